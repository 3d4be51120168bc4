"""Model directories with correct hashes and wrong parts: one line names the part that is refused."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load, save

from batchrec.config import EncoderShape, Objective
from batchrec.errors import ModelError
from batchrec.model.directory import load_model
from batchrec.model.parts import weight_shapes
from batchrec.nightly.registry import ModelRegistry
from batchrec.tables.schemas import MODEL_VERSION
from batchrec.training.encoder import Encoder
from tests.support.models import trained_model
from tests.support.strangers import Change, assert_refused, reseal


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(trained_model(), tmp_path / "model"))


def items(change: Callable[[pa.Table], pa.Table]) -> Change:
    return lambda model: pq.write_table(change(pq.read_table(model / "items.parquet")), model / "items.parquet")


def column(name: str, change: Callable[[list[Any]], list[Any]], kind: pa.DataType | None = None) -> Change:
    """Change the values of a column of the items; the new values decide its type and whether it is nullable."""

    def changed(table: pa.Table) -> pa.Table:
        values = pa.array(change(table[name].to_pylist()), kind or table.schema.field(name).type)
        field = pa.field(name, values.type, nullable=values.null_count > 0)
        return table.set_column(table.schema.get_field_index(name), field, values)

    return items(changed)


def weighing(weight: float | None) -> Change:
    """Add the weights of the items: 1, except that of the last one."""

    def weighed(table: pa.Table) -> pa.Table:
        field = pa.field("weight", pa.float64(), nullable=weight is None)
        return table.append_column(field, pa.array([1.0] * (len(table) - 1) + [weight]))

    return items(weighed)


def one_more(table: pa.Table) -> pa.Table:
    more = {"item_id": [7], "item_index": [42], "n_events": [1]}
    return pa.concat_tables([table, pa.table(more, schema=table.schema)])


VOCABULARIES: dict[str, tuple[Change, str]] = {
    "a row less": (items(lambda table: table.slice(1)), "holds 39 items; expected 40, by the manifest"),
    "a row more": (items(one_more), "holds 41 items; expected 40"),
    "no rows": (items(lambda table: table.slice(0, 0)), "holds 0 items; expected 40"),
    "an item twice": (column("item_id", lambda ids: [ids[1], *ids[1:]]), "has 2 rows; expected one"),
    "ids of floats": (column("item_id", lambda ids: ids, pa.float64()), "its columns are item_id double"),
    "ids of small integers": (column("item_id", lambda ids: ids, pa.int32()), "its columns are item_id int32"),
    "ids of bytes": (column("item_id", lambda ids: [b"%d" % i for i in ids], pa.binary()), "item_id binary"),
    "a null id": (column("item_id", lambda ids: [None, *ids[1:]]), "without nulls"),
    "a null count": (column("n_events", lambda n: [None, *n[1:]]), "without nulls"),
    "negative events": (column("n_events", lambda n: [*n[:-1], -1]), "has -1 events; expected 0 or more"),
    "events of floats": (column("n_events", lambda n: n, pa.float64()), "n_events double"),
    "a weight below 0": (weighing(-0.5), "a weight that is not a finite number, 0 or more"),
    "a weight of nan": (weighing(math.nan), "a weight that is not a finite number, 0 or more"),
    "a null weight": (weighing(None), "without nulls"),
    "indexes from 0": (column("item_index", lambda n: [i - 2 for i in n]), "the indexes do not run from 2 to 41"),
    "indexes backwards": (column("item_index", lambda n: n[::-1]), "the indexes do not run from 2 to 41"),
    "no ids": (
        items(lambda table: table.drop_columns(["item_id"])),
        "its columns are item_index int32, n_events int64",
    ),
    "a column more": (items(lambda table: table.append_column("x", table["item_id"])), "x int64; expected"),
    "other bytes": (lambda model: (model / "items.parquet").write_bytes(b"PAR1xxPAR1"), "not a readable Parquet file"),
}


@pytest.mark.parametrize(("change", "said"), VOCABULARIES.values(), ids=VOCABULARIES.keys())
def test_items_that_do_not_fit_are_refused(
    change: Change, said: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(model)
    reseal(model)
    line = assert_refused(model, capsys)
    assert "items.parquet: " in line
    assert said in line


def test_ids_that_are_not_utf_8_are_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pq.read_table(model / "items.parquet")
    texts = pa.array([b"\xff%d" % number for number in range(len(table))], pa.binary())
    broken = pa.StringArray.from_buffers(len(texts), *texts.buffers()[1:])
    pq.write_table(
        table.set_column(0, pa.field("item_id", pa.string(), nullable=False), broken), model / "items.parquet"
    )
    reseal(model)
    assert "items.parquet: " in assert_refused(model, capsys)


def weights(change: Callable[[dict[str, Any]], object]) -> Change:
    def changed(model: Path) -> None:
        arrays = dict(load((model / "weights.safetensors").read_bytes()))
        change(arrays)
        (model / "weights.safetensors").write_bytes(save(arrays))

    return changed


def header(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the header of the safetensors file but not the weights."""

    def changed(model: Path) -> None:
        contents = (model / "weights.safetensors").read_bytes()
        end = 8 + int.from_bytes(contents[:8], "little")
        entries = json.loads(contents[8:end])
        change(entries)
        text = json.dumps(entries).encode()
        (model / "weights.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + contents[end:])

    return changed


def raw_weights(contents: bytes) -> Change:
    return lambda model: (model / "weights.safetensors").write_bytes(contents)


def longer_header(model: Path) -> None:
    """Pad the header of the safetensors file with one blank more."""
    contents = (model / "weights.safetensors").read_bytes()
    end = 8 + int.from_bytes(contents[:8], "little")
    (model / "weights.safetensors").write_bytes(
        (end - 7).to_bytes(8, "little") + contents[8:end] + b" " + contents[end:]
    )


WEIGHTS: dict[str, tuple[Change, str]] = {
    "a weight less": (weights(lambda w: w.pop("norm.bias")), "lacks the weight 'norm.bias'"),
    "a weight more": (weights(lambda w: w.update(x=w["norm.bias"])), "has an unexpected weight 'x'"),
    "other items": (weights(lambda w: w.update(item_biases=w["item_biases"][1:])), "expected 'F32' [42]"),
    "other numbers": (weights(lambda w: w.update({"norm.bias": w["norm.bias"].astype(np.float64)})), "'F64' [8]"),
    "no number": (
        weights(lambda w: w.update({"norm.bias": w["norm.bias"] * np.nan})),
        "norm.bias holds values that are not finite",
    ),
    "an endless number": (
        weights(lambda w: w["item_biases"].__setitem__(5, np.inf)),
        "item_biases holds values that are not finite",
    ),
    "endless numbers both ways": (
        weights(lambda w: w["item_biases"].__setitem__([5, 6], [np.inf, -np.inf])),
        "item_biases holds values that are not finite",
    ),
    "nothing": (raw_weights(b""), "not a safetensors file"),
    "a header beyond the end": (raw_weights((1 << 62).to_bytes(8, "little") + b"{}"), "not a safetensors file"),
    "a deep header": (raw_weights((100_000).to_bytes(8, "little") + b"[" * 100_000), "not a safetensors file"),
    "weights at any byte": (longer_header, "; expected a multiple of 8"),
    "a list as header": (raw_weights((2).to_bytes(8, "little") + b"[]"), "its header is not an object"),
    "a number as weight": (
        header(lambda h: h.update({"norm.bias": 7})),
        "norm.bias is 7; expected dtype, shape and data_offsets",
    ),
    "sizes of floats": (
        header(lambda h: h["norm.bias"].update(shape=[8.0])),
        "norm.bias is 'F32' [8.0]; expected 'F32' [8]",
    ),
    "a place before": (header(lambda h: h["norm.bias"].update(data_offsets=[-32, 0])), "norm.bias is at [-32, 0]"),
    "a place beyond": (header(lambda h: h["norm.bias"].update(data_offsets=[1 << 40, (1 << 40) + 32])), "ends at byte"),
    "a place that is text": (header(lambda h: h["norm.bias"].update(data_offsets="x")), "norm.bias is at 'x'"),
    "two in one place": (
        header(lambda h: h["norm.bias"].update(data_offsets=h["norm.weight"]["data_offsets"])),
        "the weights do not fill the file",
    ),
}


@pytest.mark.parametrize(("change", "said"), WEIGHTS.values(), ids=WEIGHTS.keys())
def test_weights_that_do_not_fit_are_refused(
    change: Change, said: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(model)
    reseal(model)
    line = assert_refused(model, capsys)
    assert "weights.safetensors: " in line
    assert said in line


@pytest.mark.parametrize("objective", ["causal", "masked"])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_expected_weights_are_those_of_the_encoder(objective: Objective, n_layers: int) -> None:
    shape = EncoderShape(objective, 7, 12, n_layers, 3, 0.1)
    shapes = {name: tuple(weight.shape) for name, weight in Encoder(19, shape).state_dict().items()}
    assert weight_shapes(19, shape) == shapes


def encoder(**changes: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda manifest: {"encoder": manifest["encoder"] | changes}


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "a text as length": (encoder(max_len="many"), "max_len is 'many'; expected an integer, 1 or more"),
    "a truth as length": (encoder(max_len=True), "max_len is True"),
    "no length": (encoder(max_len=0), "max_len is 0"),
    "a length of its own": (encoder(max_len=9), "position_embeddings.weight is 'F32' [8, 8]; expected 'F32' [9, 8]"),
    "an endless length": (encoder(max_len=10**9), "expected 'F32' [1000000000, 8]"),
    "another size": (encoder(hidden_size=16), "[42, 8]; expected 'F32' [42, 16]"),
    "endless layers": (encoder(n_layers=10**12), "expected those of 1000000000000 layers"),
    "a layer more": (encoder(n_layers=2), "lacks the weight 'blocks.1"),
    "odd heads": (encoder(n_heads=3), "n_heads is 3; expected a divisor of hidden_size, 8"),
    "an unknown objective": (encoder(objective="x"), "objective is 'x'; expected one of causal, masked"),
    "no dropout": (encoder(dropout=None), "dropout is None"),
    "an item more": (lambda manifest: {"n_items": 41}, "item_biases|item_embeddings"),
    "a text of items": (lambda manifest: {"n_items": "40"}, "n_items is '40'; expected an integer"),
    "metrics in a list": (lambda manifest: {"metrics": [1]}, "metrics are [1]; expected a number for each name"),
    "a text as metric": (lambda manifest: {"metrics": {"ndcg_at_10": "x"}}, "metrics are {'ndcg_at_10': 'x'}"),
    "no number as metric": (lambda manifest: {"metrics": {"ndcg_at_10": float("nan")}}, "metrics are"),
    "a list of options": (lambda manifest: {"config": []}, "config is []"),
    "a number as id": (lambda manifest: {"model_id": 7}, "model_id is 7; expected "),
    "a path as id": (lambda manifest: {"model_id": "../../../x"}, "model_id is '../../../x'; expected "),
    "another id": (lambda manifest: {"model_id": "0" * 12}, "by its weights and items"),
    "a short hash": (
        lambda manifest: {"files": manifest["files"] | {"encoder.onnx": "0"}},
        "lists a file without its SHA-256",
    ),
    "a float as version": (
        lambda manifest: {"contract_version": float(MODEL_VERSION)},
        f"version is {MODEL_VERSION}.0; expected {MODEL_VERSION}",
    ),
}


@pytest.mark.parametrize(("change", "said"), MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_manifest_that_does_not_fit_is_refused(
    change: Callable[[dict[str, Any]], dict[str, Any]], said: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reseal(model, **change(json.loads((model / "manifest.json").read_text(encoding="utf-8"))))
    line = assert_refused(model, capsys)
    assert any(part in line for part in said.split("|"))


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, f'{{"contract_version": {MODEL_VERSION}, "x": ' + "[" * 200_000, "9" * 5000, "1" * (1 << 20)],
)
def test_a_deeply_nested_or_endless_manifest_is_refused(
    text: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "manifest.json").write_text(text, encoding="utf-8")
    assert "manifest.json: " in assert_refused(model, capsys)


FILES = ["encoder.onnx", "items.parquet", "manifest.json", "training.jsonl", "weights.safetensors"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "link", "link to itself", "device"])
def test_a_file_that_is_a_link_or_a_pipe_is_refused(
    kind: str, name: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = (model / name).rename(model.parent / name)
    if kind == "pipe":
        os.mkfifo(model / name)
    else:
        # Reading a device would never end.
        target = {"link": file, "link to itself": model / name, "device": Path("/dev/zero")}[kind]
        (model / name).symlink_to(target)
    line = assert_refused(model, capsys)
    assert name in line
    assert ("is not a regular file" if kind == "pipe" else "is a link; expected a file") in line


def test_a_file_that_is_too_large_is_refused_before_it_is_read(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (model / "training.jsonl").open("r+b") as file:
        file.truncate(1 << 40)
    assert "training.jsonl: has 1,099,511,627,776 bytes" in assert_refused(model, capsys)


def test_a_version_of_another_name_is_not_put_to_use(model: Path, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    registry.folder.mkdir()
    model_id = load_model(model).manifest.model_id
    for name in (f"2024-03-01-{model_id}", "2024-03-02-0123456789ab"):
        shutil.copytree(model, registry.folder / name)
    right, wrong = registry.versions()
    registry.use(right)
    with pytest.raises(ModelError, match=f"holds model {model_id}, but its name says another"):
        registry.use(wrong)
    assert registry.current == right
