"""Mutate a model directory byte by byte, and record the result of scoring with it. Runs as a process of its own.

A mutation is determined by its number. `python -m tests.faults.mutated_models MODEL SEQUENCES WORK FIRST LAST` writes
two JSON lines per mutation to WORK/outcomes, one before it and one after it, so that a crash has a name.
"""

import json
import random
import resource
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import numpy_helper
from safetensors.numpy import load

from batchrec.config import ScoringConfig
from batchrec.errors import ModelError
from batchrec.model.directory import load_model
from batchrec.model.graph import is_external
from batchrec.scoring.score import score
from tests.faults.byte_mutations import MUTATIONS

FILES = ["encoder.onnx", "items.parquet", "manifest.json", "training.jsonl", "weights.safetensors"]
_MEMORY_BYTES = 8 << 30
# Values that replace one in a manifest.
_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    7,
    41,
    10**9,
    10**30,
    0.5,
    1e308,
    "",
    "x",
    "../x",
    "0" * 64,
    [],
    [[[]]],
    {},
    {"a": 1},
]


def mutate(files: dict[str, bytes], chance: random.Random) -> tuple[str, dict[str, bytes]]:
    """Change one file, or exchange two; return a description of the change, and the files."""
    name = chance.choice(FILES)
    if chance.random() < 0.03:
        other = chance.choice(FILES)
        return f"{name} for {other}", files | {name: files[other], other: files[name]}
    contents = bytearray(files[name])
    done = []
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        if contents:
            mutation = chance.choice(MUTATIONS)
            mutation(contents, chance)
            done.append(mutation.__name__.strip("_"))
    return f"{name}: {', '.join(done)}", files | {name: bytes(contents)}


def mutate_weights(files: dict[str, bytes], chance: random.Random) -> dict[str, bytes]:
    """Flip bits of weights, the same ones in the graph where it has copies: another model that is consistent."""
    contents = bytearray(files["weights.safetensors"])
    start = 8 + int.from_bytes(contents[:8], "little")
    for _ in range(chance.choice([1, 5, 100])):
        # A bit of any number, mostly of its exponent.
        place = start + 4 * chance.randrange((len(contents) - start) // 4) + chance.choice([0, 2, 3, 3])
        contents[place] ^= 1 << chance.randrange(8)
    graph = onnx.load_model_from_string(files["encoder.onnx"])
    weights = load(bytes(contents))
    for tensor in graph.graph.initializer:
        name = tensor.name.removeprefix("encoder.")
        if name in weights and not is_external(tensor):
            values = weights[name].copy()
            if name == "item_biases":
                values[:2] = -np.inf
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return files | {"weights.safetensors": bytes(contents), "encoder.onnx": graph.SerializeToString()}


def reseal(files: dict[str, bytes], chance: random.Random) -> tuple[str, dict[str, bytes]]:
    """Make the hashes and the model's id fit the files, and sometimes change a value of the manifest too."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {name: sha256(files[name]).hexdigest() for name in manifest["files"]}
    sums = manifest["files"]["weights.safetensors"] + manifest["files"]["items.parquet"]
    manifest["model_id"] = sha256(sums.encode()).hexdigest()[:12]
    done = "resealed"
    if chance.random() < 0.2:
        holder = chance.choice([manifest, manifest["encoder"], manifest["files"], manifest["metrics"]])
        if holder:
            key = chance.choice(sorted(holder))
            holder[key] = chance.choice(_VALUES)
            done = f"resealed with {key} = {holder[key]!r:.40}"
    # Not by Manifest, which does not accept every value.
    manifest["seal"] = ""
    manifest["seal"] = sha256((json.dumps(manifest, indent=2) + "\n").encode()).hexdigest()
    return done, files | {"manifest.json": (json.dumps(manifest, indent=2) + "\n").encode()}


def mutation(number: int, files: dict[str, bytes]) -> tuple[str, dict[str, bytes], bool]:
    """Return a description of a mutation, the changed files, and whether their hashes fit."""
    chance = random.Random(number)  # noqa: S311 - a sample, no secret
    if number % 2 == 0:
        done, changed = mutate(files, chance)
        return done, changed, False
    if chance.random() < 0.2:
        sealing, changed = reseal(mutate_weights(files, chance), chance)
        return f"other weights: {sealing}", changed, True
    done, changed = "", files
    while not done.partition(":")[0] or "manifest.json" in done:
        # The values of the manifest are changed by `reseal`.
        done, changed = mutate(files, chance)
    sealing, changed = reseal(changed, chance)
    return f"{done}, {sealing}", changed, True


def faults_of(recs: pa.Table, item_ids: set[Any]) -> Iterator[str]:
    """Yield the faults of a table that are wrong for every model."""
    if not np.isfinite(recs["score"].to_numpy()).all():
        yield "a score that is not finite"
    if not set(recs["item_id"].to_pylist()) <= item_ids:
        yield "an item that is not in the vocabulary"
    lists: dict[Any, list[dict[str, Any]]] = {}
    for row in recs.to_pylist():
        lists.setdefault(row["user_id"], []).append(row)
    for rows in lists.values():
        if [row["rank"] for row in rows] != list(range(1, len(rows) + 1)):
            yield "ranks with gaps"
        if len({row["item_id"] for row in rows}) < len(rows):
            yield "an item twice"


def outcome(folder: Path, sequences: Path, expected: pa.Table | None, *, is_sealed: bool) -> str:
    """Load a model and score with it; return "refused", "same" or "other" for the table, or a WRONG text."""
    out = folder.parent / "recs.parquet"
    out.unlink(missing_ok=True)
    try:
        model = load_model(folder)
        score(sequences, folder, ScoringConfig(top_k=3, device="cpu", workers=1), out)
    except ModelError as error:
        is_line = len(str(error).splitlines()) == 1
        return "refused" if is_line and not out.exists() else f"WRONG: more than a line, or a table: {error}"
    except Exception as error:
        return f"WRONG: {error!r}"
    recs = pq.read_table(out)
    if expected is not None and recs.drop_columns(["model_id"]).equals(expected.drop_columns(["model_id"])):
        return "same"
    faults = list(faults_of(recs, set(model.vocabulary.item_ids.to_pylist())))
    if faults or not is_sealed:
        return f"WRONG: another table: {faults}"
    return "other"


def main() -> None:
    model, sequences, work = map(Path, sys.argv[1:4])
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    files = {name: (model / name).read_bytes() for name in FILES}
    folder = work / "model"
    folder.mkdir()
    score(sequences, model, ScoringConfig(top_k=3, device="cpu", workers=1), work / "expected.parquet")
    expected = pq.read_table(work / "expected.parquet")
    with (work / "outcomes").open("w", encoding="utf-8") as outcomes:
        for number in range(int(sys.argv[4]), int(sys.argv[5])):
            done, changed, is_sealed = mutation(number, files)
            print(json.dumps({"number": number, "done": done}), file=outcomes, flush=True)
            for name, contents in changed.items():
                (folder / name).write_bytes(contents)
            # Files with their old hashes must not give another table.
            found = outcome(folder, sequences, expected, is_sealed=is_sealed)
            print(json.dumps({"number": number, "sealed": is_sealed, "outcome": found}), file=outcomes, flush=True)


if __name__ == "__main__":
    main()
