"""Sections of gpu_check.py on correctness: batchrec doctor, and results on the device next to those of the CPU."""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
from safetensors.torch import load

from batchrec.arrays import Bools, Floats, Longs
from batchrec.benchmark.synthetic import write_ratings
from batchrec.config import EncoderShape, Objective, ScoringConfig, SequencesConfig, TrainingConfig
from batchrec.errors import BatchrecError
from batchrec.model.batching import SeenPairs
from batchrec.model.blend import Blend
from batchrec.model.directory import load_model, read_graph
from batchrec.model.graph import Graph
from batchrec.model.ranker import Ranker
from batchrec.scoring.score import score
from batchrec.sequences.build import build_sequences
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.blend import make_blend
from batchrec.training.corpus import read_corpus
from batchrec.training.encoder import Encoder
from batchrec.training.export import write_encoder
from batchrec.training.signals import read_signals
from batchrec.training.train import train
from examples.gpu.workspace import Row, Workspace, write_model

_ROOT = Path(__file__).resolve().parents[2]
_TOP_K = 100


def doctor(_: Workspace) -> Iterator[Row]:
    """Run `batchrec doctor` in its own process, where nothing has loaded CUDA's libraries before."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "batchrec", "doctor"]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    yield Row("exit code of `batchrec doctor`", str(result.returncode), result.returncode)
    yield Row("`batchrec doctor`", f"{result.stdout.strip()}\n{result.stderr.strip()}")


def parity(workspace: Workspace) -> Iterator[Row]:
    """Compare tables of the device with tables of the CPU, for both objectives.

    Raises RuntimeError at the end if a table cannot be made or recommends a seen item.
    """
    ratings, sequences = workspace.folder / "parity.csv", workspace.folder / "parity.parquet"
    write_ratings(workspace.sizes.parity, 1, ratings)
    build_sequences([str(ratings)], SequencesConfig(), sequences)
    wrong: list[str] = []
    for objective, seen in product(get_args(Objective), ("allow", "block")):
        # With seen items allowed the habit counts.
        model = _blended_model(workspace, sequences, objective)
        reference = _lists(workspace, sequences, model, ScoringConfig(top_k=_TOP_K, seen=seen, device="cpu"))
        for precision in ("fp32", "fp16"):
            name = f"{objective}, seen {seen}, {precision}"
            config = ScoringConfig(top_k=_TOP_K, seen=seen, device=workspace.device, precision=precision)
            try:
                items, scores = _lists(workspace, sequences, model, config)
            except BatchrecError as error:
                wrong.append(f"{name}: {error}")
                continue
            yield _agreement(name, reference, (items, scores))
            if seen == "block":
                n_seen = int(_is_seen(sequences, items).sum())
                yield Row(f"{name}: seen items recommended", str(n_seen), n_seen)
                wrong += [f"{name}: {n_seen} seen items"] * bool(n_seen)
    if wrong:
        raise RuntimeError("; ".join(wrong))


def _blended_model(workspace: Workspace, sequences: Path, objective: Objective) -> Path:
    """Train an encoder briefly, and write a model that adds every part of a blend to it."""
    plain, out = workspace.folder / f"{objective}-plain", workspace.folder / objective
    if out.exists():
        return out
    config = TrainingConfig(
        objective=objective,
        hidden_size=64,
        max_len=64,
        max_epochs=2,
        max_minutes=workspace.sizes.parity_minutes,
        validate="last-item",
        blend="none",
        device=workspace.device,
    )
    train(sequences, config, plain)
    model = load_model(plain)
    encoder = Encoder(model.vocabulary.size, model.manifest.shape)
    encoder.load_state_dict(load(model.weights))
    corpus = read_corpus(sequences, seed=0)
    signals = read_signals(corpus.histories, corpus.times, corpus.until, corpus.vocabulary.size)
    others = ("neighbours", "neighbours_of_the_newest", "times_taken", "days_taken")
    blend = make_blend({"encoder": 1.0, **dict.fromkeys((*signals.popularity, *others), 0.2)}, encoder, signals)
    if not (blend.has_encoder and blend.has_neighbours and blend.has_habit):
        raise RuntimeError("the blend lacks a part: parity would not be checked for it")
    return write_model(encoder, corpus.vocabulary, out, blend)


def _lists(workspace: Workspace, sequences: Path, model: Path, config: ScoringConfig) -> tuple[Longs, Floats]:
    """Score all users; return items and scores, both (users, top_k)."""
    out = workspace.folder / "parity-recs.parquet"
    score(sequences, model, config, out)
    recs = pq.read_table(out, columns=["item_id", "score"])
    items, scores = (recs[name].to_numpy().reshape(-1, config.top_k) for name in ("item_id", "score"))
    return items, scores


def _agreement(name: str, reference: tuple[Longs, Floats], other: tuple[Longs, Floats]) -> Row:
    """Return overlap@10, the share of equal ranks, and the largest difference in score relative to max(1, score)."""
    (items, scores), (other_items, other_scores) = reference, other
    overlap = float((items[:, :10, None] == other_items[:, None, :10]).any(axis=2).mean())
    same = float((items == other_items).mean())
    difference = float((np.abs(scores - other_scores) / np.maximum(1, np.abs(scores))).max())
    figure = f"overlap@10 {overlap:.5f}, same rank {same:.3%}, largest relative difference in score {difference:.1e}"
    return Row(name, figure, overlap)


def _is_seen(sequences: Path, items: Longs) -> Bools:
    """Return which recommended items, (users, top_k), are in the history of their user."""
    histories = pq.read_table(sequences, columns=["item_ids"])["item_ids"].combine_chunks()
    taken = histories.flatten().to_numpy()
    users = np.repeat(np.arange(len(items)), histories.value_lengths().to_numpy())
    factor = 1 + max(taken.max(), items.max())
    is_seen: Bools = np.isin(np.arange(len(items))[:, None] * factor + items, users * factor + taken)
    return is_seen


def ties(workspace: Workspace) -> Iterator[Row]:
    """Rank items with few different scores, and return the share of places that hold the same item as on the CPU.

    Raises RuntimeError at the end if one differs.
    """
    generator = np.random.default_rng(0)
    shares = []
    for width in workspace.sizes.widths:
        graph = _graph_of_offsets(workspace.folder / "ties", width + FIRST_ITEM)
        offsets = generator.integers(0, 50, width + FIRST_ITEM).astype(np.float32)
        rows = max(2, min(256, (1 << 25) // width))
        tokens = np.full((rows, 1), FIRST_ITEM, np.int32)
        seen = SeenPairs(np.repeat(np.arange(rows), 20), generator.integers(FIRST_ITEM, width, 20 * rows))
        rankers = [Ranker(graph, device, item_offsets=offsets) for device in ("cpu", workspace.device)]
        for top_k in (10, 100, 250, 300):
            expected, items = (ranker.rank(tokens, seen, min(top_k, width)).items for ranker in rankers)
            shares.append(float((expected == items).mean()))
            yield Row(f"{width:,} items, top {top_k}: same item as on the CPU", f"{shares[-1]:.4%}", shares[-1])
    if min(shares) < 1:
        raise RuntimeError("items of equal score are in another order than on the CPU")


def _graph_of_offsets(folder: Path, vocabulary_size: int) -> Graph:
    """Export a graph whose scores are the item_offsets alone, so that ties are exact."""
    encoder = Encoder(vocabulary_size, EncoderShape("causal", 2, 2, 1, 1, 0.0))
    shapes = (1, vocabulary_size, (vocabulary_size, 1), (vocabulary_size, 1), 1, 2)
    scale, biases, neighbours, *others = (np.zeros(shape, np.float32) for shape in shapes)
    folder.mkdir(exist_ok=True)
    write_encoder(encoder, folder, Blend(scale, biases, neighbours.astype(np.int32), *others))
    return read_graph(folder)
