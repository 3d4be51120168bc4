"""The top k by the maxima of groups against a plain loop over each row, and what else runs the graph of a wide row."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.config import ScoringPrecision
from batchrec.model.batching import SeenPairs, scoring_tokens, seen_pairs
from batchrec.model.blend import Blend, ScoredPairs
from batchrec.model.directory import ENCODER, read_graph
from batchrec.model.graph import Graph
from batchrec.model.ranker import Ranker
from batchrec.model.runs import GROUP
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training import wide_top_k
from batchrec.training.encoder import Encoder
from batchrec.training.export import check_parity, export_encoder, write_encoder
from batchrec.training.wide_top_k import is_wide, padded, top_items
from tests.model.test_cuda_operators import as_assigned_to_devices, as_exported, in_half_precision, uncovered
from tests.support.models import examples, indexed, small_encoder, zero_blend
from tests.support.shared import EXPORT, made_once

# Whole groups, and a rest beyond more groups than some lists are long.
SIZES = (3 * GROUP, 325)


def wide_graph(name: str, encoder: Encoder, blend: Blend | None = None) -> Path:
    """A folder with the graph of an encoder as if its vocabulary were wide."""

    def export(folder: Path) -> None:
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wide_top_k, "WIDE", 0)
            patch.setattr(EXPORT, export_encoder)
            write_encoder(encoder, folder, blend)

    return made_once(f"wide-{name}", export)


def graph_of_habits(size: int) -> Graph:
    """A graph without an encoder."""
    blend = replace(zero_blend(size), habit=np.ones(2, np.float32))
    return read_graph(wide_graph(f"habits-{size}", small_encoder(size), blend))


@cache
def of_habits(size: int) -> Ranker:
    """A ranker whose scores are the habits alone: any that a test passes."""
    return Ranker(graph_of_habits(size), "cpu")


@cache
def of_encoder() -> tuple[Encoder, Path]:
    encoder = small_encoder(101)
    encoder.item_biases.data = torch.linspace(0.5, -0.5, 101)
    return encoder, wide_graph("encoder", encoder)


@pytest.mark.parametrize("size", SIZES)
@settings(max_examples=examples(60))
@given(st.data())
def test_groups_rank_like_a_plain_loop_over_the_row(size: int, data: st.DataObject) -> None:
    n_items = size - FIRST_ITEM
    top_k = data.draw(st.integers(1, n_items))
    n_rows, n_levels = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([1, 3, 1000]))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    scores = generator.integers(-n_levels, n_levels, (n_rows, n_items)).astype(np.float32)
    is_seen = generator.random(scores.shape) < data.draw(st.sampled_from([0, 0.1, 0.9, 1]))
    rows, items = np.indices(scores.shape).reshape(2, -1)
    habits = ScoredPairs(rows, FIRST_ITEM + items, scores.ravel())
    seen = SeenPairs(*(places + shift for places, shift in zip(is_seen.nonzero(), (0, FIRST_ITEM), strict=True)))
    tokens = np.full((n_rows, 1), FIRST_ITEM, np.int32)
    ranking = of_habits(size).rank(tokens, seen, top_k, habits)
    for row in range(n_rows):
        allowed = np.flatnonzero(~is_seen[row]).tolist()
        best = sorted(allowed, key=lambda item: (-scores[row, item], item))[:top_k]
        assert ranking.items[row][ranking.is_item[row]].tolist() == [FIRST_ITEM + item for item in best]
        assert ranking.scores[row].tolist() == [*scores[row, best], *[-np.inf] * (top_k - len(best))]


@pytest.mark.slow
def test_one_graph_takes_lists_of_any_length_and_any_number_of_rows() -> None:
    encoder, folder = of_encoder()
    ranker, table = Ranker(read_graph(folder), "cpu"), indexed([5, 6, 7], [2], [90, 3, 100])
    for n_users in (1, 3):
        users = np.arange(n_users)
        tokens = scoring_tokens(table, users, encoder.shape)
        for top_k in (1, 4, 5, 99):
            assert ranker.rank(tokens, seen_pairs(table, users), top_k).items.shape == (n_users, top_k)
    assert check_parity(encoder, folder, table) < 1e-4


def test_places_beyond_the_row_are_never_returned_whichever_of_equal_scores_the_device_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def last_of_equals(values: torch.Tensor, k: int, largest: bool = True) -> Any:
        ordered = values.flip(1).sort(dim=1, descending=largest, stable=True)
        return SimpleNamespace(values=ordered.values[:, :k], indices=values.shape[1] - 1 - ordered.indices[:, :k])

    monkeypatch.setattr(wide_top_k, "WIDE", 0)
    monkeypatch.setattr(wide_top_k, "topk", last_of_equals)
    scores = torch.tensor([[5.0, 4, 3, 2, 1], [-torch.inf] * 5])
    best, places = top_items(padded(scores), 5, 5)
    assert best.tolist() == scores.tolist()
    assert places[0].tolist() == [0, 1, 2, 3, 4]
    assert int(places[1].max()) < 5


def test_only_wide_rows_are_padded_to_whole_groups() -> None:
    assert not is_wide(62_423)
    assert is_wide(3_000_000)
    narrow = torch.zeros((1, 33))
    assert padded(narrow) is narrow


@pytest.mark.parametrize("form", [as_exported, as_assigned_to_devices, in_half_precision])
def test_cuda_implements_each_operator_of_a_wide_graph(
    form: Callable[[Path, Path], onnx.ModelProto], tmp_path: Path
) -> None:
    model = form(of_encoder()[1] / ENCODER, tmp_path)
    assert uncovered(model) == set()
    assert [node.op_type for node in model.graph.node].count("TopK") == 3


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_wide_graph_ranks_nearly_the_same_in_fewer_bits(precision: ScoringPrecision) -> None:
    encoder, folder = of_encoder()
    histories, users = indexed(*([2 + 3 * user, 5, 9 + user] for user in range(20))), np.arange(20)
    tokens, seen = scoring_tokens(histories, users, encoder.shape), seen_pairs(histories, users)
    exact, other = (Ranker(read_graph(folder), "cpu", bits).rank(tokens, seen, 99) for bits in ("fp32", precision))
    assert other.is_item.tolist() == exact.is_item.tolist()
    spread = float(exact.scores[:, 0].max() - exact.scores[exact.is_item].min())
    assert np.abs(exact.scores[exact.is_item] - other.scores[exact.is_item]).max() < 0.05 * spread
