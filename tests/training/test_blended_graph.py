"""The graph of a blend against a plain loop that adds its parts one by one."""

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.config import Objective
from batchrec.model.batching import NO_PAIRS, SeenPairs, scoring_tokens, seen_pairs
from batchrec.model.blend import Blend, habits
from batchrec.model.directory import ENCODER, read_graph
from batchrec.model.graph import Graph
from batchrec.model.ranker import Ranker
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.encoder import Encoder
from batchrec.training.export import check_parity, export_encoder
from tests.support.models import examples, indexed, next_item_scores, small_encoder
from tests.support.params import masked_is_slow, slow_except
from tests.support.shared import export_by_shape, exported

SIZE, N_NEIGHBOURS, MAX_LEN = 17, 4, 6


@cache
def encoder(objective: Objective) -> Encoder:
    return small_encoder(SIZE, objective=objective)


@cache
def blend(scale: float) -> Blend:
    generator = np.random.default_rng(3)
    neighbours = generator.integers(0, SIZE, (SIZE, N_NEIGHBOURS)).astype(np.int32)
    # PAD and MASK are nobody's history, and have no neighbours.
    neighbours[:FIRST_ITEM] = 0
    similarities = generator.random((SIZE, N_NEIGHBOURS)).astype(np.float32)
    similarities[neighbours == 0] = 0
    return Blend(
        scale=np.array([scale], np.float32),
        biases=generator.normal(size=SIZE).astype(np.float32),
        neighbours=neighbours,
        similarities=similarities,
        recency=np.array([3.0, 2.0, 0.5], np.float32),
        habit=np.array([0.7, 1.5], np.float32),
    )


@cache
def graph(objective: Objective, scale: float) -> Graph:
    return read_graph(exported(encoder(objective), blend(scale), export_encoder))


def plain_scores(objective: Objective, scale: float, history: list[int]) -> list[float]:
    """The blended score of every index after one history of indexes, part by part."""
    parts, own = blend(scale), encoder(objective)
    biases = own.item_biases.tolist()
    scores = [
        scale * (score - biases[item]) + float(parts.biases[item])
        for item, score in enumerate(next_item_scores(own, history))
    ]
    visible = history[-(MAX_LEN if objective == "causal" else MAX_LEN - 1) :]
    for weight, item in zip(parts.recency.tolist(), reversed(visible), strict=False):
        for neighbour, similarity in zip(parts.neighbours[item], parts.similarities[item], strict=True):
            scores[neighbour] += weight * float(similarity)
    for item in set(history):
        # Without days each event is a day of its own.
        days = sum(0.9**place for place, other in enumerate(reversed(history)) if other == item)
        scores[item] += float(parts.habit[0]) * np.log(1 + history.count(item)) + float(parts.habit[1]) * np.log(
            1 + days
        )
    return scores


@pytest.mark.parametrize(
    ("objective", "scale"),
    [
        ("causal", 0.6),
        ("masked", 0.6),
        pytest.param("causal", 0.0, id="causal without the encoder"),
        pytest.param("masked", 0.0, id="masked without the encoder", marks=pytest.mark.slow),
    ],
)
@settings(max_examples=examples(40))
@given(st.lists(st.lists(st.integers(FIRST_ITEM, SIZE - 1), min_size=1, max_size=15), min_size=1, max_size=5))
def test_a_blended_score_is_the_sum_of_its_parts(
    objective: Objective, scale: float, histories: list[list[int]]
) -> None:
    table, users = indexed(*histories), np.arange(len(histories))
    tokens = scoring_tokens(table, users, encoder(objective).shape)
    pairs = [(row, item) for row in range(len(histories)) for item in range(FIRST_ITEM, SIZE)]
    asked = SeenPairs(*np.array(pairs, np.int64).T.copy())
    ranker = Ranker(graph(objective, scale), "cpu")
    ranking, scores = ranker.rank_and_score(tokens, NO_PAIRS, 5, asked, habits(blend(scale), table, users))
    expected = [plain_scores(objective, scale, history) for history in histories]
    assert scores.tolist() == pytest.approx([expected[row][item] for row, item in pairs], abs=1e-4)
    for row, own in enumerate(expected):
        best = sorted(own[FIRST_ITEM:], reverse=True)[:5]
        assert ranking.scores[row].tolist() == pytest.approx(best, abs=1e-4)


@pytest.mark.slow
@masked_is_slow
def test_seen_items_are_masked_after_the_blend_and_asked_scores_are_not(objective: Objective) -> None:
    table, users = indexed([2, 3, 4, 5], [6]), np.arange(2)
    tokens, seen = scoring_tokens(table, users, encoder(objective).shape), seen_pairs(table, users)
    ranking, scores = Ranker(graph(objective, 0.6), "cpu").rank_and_score(tokens, seen, SIZE - FIRST_ITEM, seen)
    for row, history in enumerate(([2, 3, 4, 5], [6])):
        is_item = ranking.is_item[row]
        assert is_item.sum() == SIZE - FIRST_ITEM - len(history)
        assert not set(ranking.items[row][is_item].tolist()) & set(history)
    assert np.isfinite(scores).all()


@masked_is_slow
@pytest.mark.parametrize("precision", slow_except(["fp16", "int8"], "int8"))
def test_other_precisions_rank_nearly_the_same(objective: Objective, precision: str) -> None:
    generator = np.random.default_rng(1)
    table = indexed(*(generator.integers(FIRST_ITEM, SIZE, 6).tolist() for _ in range(20)))
    tokens = scoring_tokens(table, np.arange(20), encoder(objective).shape)
    exact = Ranker(graph(objective, 0.6), "cpu").rank(tokens, NO_PAIRS, 3)
    other = Ranker(graph(objective, 0.6), "cpu", precision).rank(tokens, NO_PAIRS, 3)  # type: ignore[arg-type]
    spread = float(exact.scores.max() - exact.scores.min())
    assert np.abs(exact.scores - other.scores).max() < 0.05 * spread


@masked_is_slow
def test_parity_is_checked_with_the_blend(objective: Objective) -> None:
    folder = exported(encoder(objective), blend(0.6), export_encoder)
    table = indexed([2, 3, 4], [5, 6, 7, 8, 9, 10, 11])
    assert check_parity(encoder(objective), folder, table, blend(0.6)) < 1e-4
    with pytest.raises(RuntimeError, match="differ"):
        check_parity(encoder(objective), folder, table)


def test_a_graph_without_the_encoder_has_none_of_its_products() -> None:
    operators = {node.op_type for node in onnx.load_model_from_string(graph("causal", 0.0).proto).graph.node}
    assert operators.isdisjoint({"MatMul", "Gemm", "Attention", "LayerNormalization"})


@masked_is_slow
def test_graphs_of_one_shape_differ_only_in_their_weights(objective: Objective, tmp_path: Path) -> None:
    expected = exported(encoder(objective), blend(0.6), export_encoder)
    other, other_blend = (
        small_encoder(SIZE, seed=1, objective=objective),
        replace(blend(0.3), recency=np.ones(3, np.float32)),
    )
    for name, own, parts in (("other", other, other_blend), ("own", encoder(objective), blend(0.6))):
        shutil.copytree(expected, tmp_path / name)
        export_by_shape(own, tmp_path / name, parts)
    graphs = [
        onnx.load(folder / ENCODER, load_external_data=False) for folder in (expected, *sorted(tmp_path.iterdir()))
    ]
    assert graphs[0] != graphs[1]
    assert graphs[0] == graphs[2]
