"""Reasons against a plain loop over users, items, parts and events."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from batchrec.arrays import Floats
from batchrec.config import EncoderShape, Objective
from batchrec.model.batching import scoring_tokens
from batchrec.model.blend import NO_HABITS, Blend, habits
from batchrec.model.reasons import N_BECAUSE, Explainer, Reasons
from batchrec.tables.schemas import FIRST_ITEM, PARTS
from tests.support.models import SHAPE, examples, indexed

SIZE, N_NEIGHBOURS, MAX_LEN, HIDDEN = 14, 5, 6, 4
GENERATOR = np.random.default_rng(5)
EMBEDDINGS = GENERATOR.normal(size=(SIZE, HIDDEN)).astype(np.float32)
BIASES = GENERATOR.normal(size=SIZE).astype(np.float32)
WEIGHTS = save({"item_embeddings.weight": EMBEDDINGS, "item_biases": BIASES})
POPULARITY = GENERATOR.normal(size=SIZE)
NEIGHBOURS = np.array([[0] * N_NEIGHBOURS] * 2 + [GENERATOR.permutation(np.arange(2, SIZE))[:5] for _ in range(12)])
SIMILARITIES = GENERATOR.random((SIZE, N_NEIGHBOURS)).astype(np.float32)
SIMILARITIES[NEIGHBOURS == 0] = 0


def blend_of(scale: float, popularity: float, recency: Sequence[float], habit: Sequence[float]) -> Blend:
    biases = np.where(np.arange(SIZE) < FIRST_ITEM, -np.inf, scale * BIASES + popularity * POPULARITY)
    return Blend(
        np.array([scale], np.float32),
        biases.astype(np.float32),
        NEIGHBOURS.astype(np.int32),
        SIMILARITIES,
        np.array(recency, np.float32),
        np.array(habit, np.float32),
    )


BLENDS = {
    "all parts": blend_of(0.7, 1.0, [1.0, 0.6, 0.3], [0.5, 1.5]),
    "no encoder": blend_of(0.0, 1.0, [1.0, 0.6, 0.3], [0.5, 1.5]),
    "no popularity": blend_of(0.7, 0.0, [1.0, -0.6], [0.5, 0.0]),
    "no neighbours": blend_of(0.7, 1.0, [0.0, 0.0], [0.0, 1.5]),
    "neighbours only": blend_of(0.0, 0.0, [2.0] * 9, [0.0, 0.0]),
    "no blend": None,
}


@dataclass(frozen=True)
class PlainReason:
    carried_by: str | None
    because: dict[int, float]


def plain_reason(history: list[int], item: int, state: Floats, blend: Blend | None, n_visible: int) -> PlainReason:
    """Add up each part by itself, with every item of the catalogue for the means."""
    catalogue, newest = range(FIRST_ITEM, SIZE), history[::-1][:n_visible]
    scale = 1.0 if blend is None else float(blend.scale[0])
    encoder = [scale * (float(state @ EMBEDDINGS[other]) + float(BIASES[other])) for other in catalogue]
    contributions = {"encoder": encoder[item - FIRST_ITEM] - sum(encoder) / len(encoder)} if scale else {}
    events: defaultdict[int, float] = defaultdict(float)
    if blend is not None:
        popularity = [float(blend.biases[other]) - scale * float(BIASES[other]) for other in catalogue]
        if max(map(abs, popularity)) > 1e-5:
            contributions["popularity"] = popularity[item - FIRST_ITEM] - sum(popularity) / len(popularity)
        added = [
            (other, float(weight) * float(similarity))
            for weight, other in zip(blend.recency, newest, strict=False)
            for neighbour, similarity in zip(NEIGHBOURS[other], SIMILARITIES[other], strict=True)
            if neighbour == item
        ]
        if (by_neighbours := sum(value for _, value in added)) > 0:
            contributions["neighbours"] = by_neighbours
        for other, value in added:
            events[other] += max(value, 0)
        if item in history:
            days = sum(0.9**place for place, other in enumerate(history[::-1]) if other == item)
            habit = float(blend.habit[0]) * np.log1p(history.count(item)) + float(blend.habit[1]) * np.log1p(days)
            contributions |= {"habit": habit} if habit > 0 else {}
    if not contributions:
        return PlainReason(None, {})
    carried_by = max(PARTS, key=lambda part: contributions.get(part, -np.inf))
    if carried_by == "encoder":
        events.clear()
        for place, other in enumerate(newest):
            lengths = float(np.linalg.norm(EMBEDDINGS[item]) * np.linalg.norm(EMBEDDINGS[other]))
            cosine = float(EMBEDDINGS[item] @ EMBEDDINGS[other]) / lengths
            events[other] += np.exp(4 * cosine) / (1 + place) ** 0.5
    strongest = sorted(events.items(), key=lambda event: -event[1])[:N_BECAUSE]
    shares = {other: value / sum(events.values()) for other, value in strongest if value > 0}
    because = {"popularity": {}, "habit": {item: 1.0}}.get(carried_by, shares)
    return PlainReason(carried_by, because)


def explain(histories: list[list[int]], items: list[list[int]], states: Floats, blend: Blend | None) -> Reasons:
    return explain_as("causal", histories, items, states, blend)


def explain_as(
    objective: Objective, histories: list[list[int]], items: list[list[int]], states: Floats, blend: Blend | None
) -> Reasons:
    table, users = indexed(*histories), np.arange(len(histories))
    tokens = scoring_tokens(table, users, shape_of(objective))
    added = NO_HABITS if blend is None else habits(blend, table, users)
    return Explainer(WEIGHTS, blend).explain(tokens, states, np.array(items, np.int32), added)


def shape_of(objective: Objective) -> EncoderShape:
    return replace(SHAPE, max_len=MAX_LEN, objective=objective)


@pytest.mark.parametrize("blend", BLENDS.values(), ids=BLENDS.keys())
@settings(max_examples=examples(40))
@given(
    st.lists(st.lists(st.integers(FIRST_ITEM, SIZE - 1), min_size=1, max_size=11), min_size=1, max_size=5),
    st.integers(0, 2**32),
)
def test_reasons_equal_a_plain_loop(
    objective: Objective, blend: Blend | None, histories: list[list[int]], seed: int
) -> None:
    states = np.random.default_rng(seed).normal(size=(len(histories), HIDDEN)).astype(np.float32)
    items = [list(range(FIRST_ITEM, SIZE))] * len(histories)
    reasons = explain_as(objective, histories, items, states, blend)
    n_visible = MAX_LEN - (objective == "masked")
    for row, history in enumerate(histories):
        for place, item in enumerate(items[row]):
            expected = plain_reason(history, item, states[row], blend, n_visible)
            code = int(reasons.carried_by[row, place])
            assert (PARTS[code] if code >= 0 else None) == expected.carried_by
            named = dict(zip(reasons.items[row, place].tolist(), reasons.weights[row, place].tolist(), strict=True))
            named.pop(0, None)
            # A weight below half a thousandth is left out.
            assert named == pytest.approx(
                {key: value for key, value in expected.because.items() if key in named}, abs=6e-4
            )
            assert all(expected.because[key] < 6e-4 for key in expected.because.keys() - named.keys())
            assert list(named.values()) == sorted(named.values(), reverse=True)


def test_a_row_has_the_same_reasons_in_any_batch() -> None:
    generator = np.random.default_rng(1)
    histories = [generator.integers(FIRST_ITEM, SIZE, generator.integers(1, 9)).tolist() for _ in range(40)]
    items = [list(range(FIRST_ITEM, SIZE))] * len(histories)
    states = generator.normal(size=(len(histories), HIDDEN)).astype(np.float32)
    together = explain(histories, items, states, BLENDS["all parts"])
    for row, history in enumerate(histories):
        alone = explain([history], items[:1], states[row : row + 1], BLENDS["all parts"])
        assert (alone.carried_by[0] == together.carried_by[row]).all()
        assert (alone.items[0] == together.items[row]).all()
        assert np.allclose(alone.weights[0], together.weights[row], atol=1.1e-3)


def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    histories = [[2, 3, 4], [5], [9, 8, 7, 6, 5, 4, 3], [2, 2, 2]]
    items, states = [[4, 6, 9, 3]] * 4, np.ones((4, HIDDEN), np.float32)
    whole = explain(histories, items, states, BLENDS["all parts"])
    monkeypatch.setattr("batchrec.model.reasons._NUMBERS", 1)
    sliced = explain(histories, items, states, BLENDS["all parts"])
    assert all((getattr(whole, name) == values).all() for name, values in vars(sliced).items())


def test_no_part_carries_what_the_model_does_not_know() -> None:
    states = np.ones((1, HIDDEN), np.float32)
    reasons = explain([[2, 3]], [[SIZE, 0, 1, 4]], states, BLENDS["all parts"])
    assert (reasons.carried_by[0, :3] == -1).all()
    assert (reasons.items[0, :3] == 0).all()
    assert reasons.carried_by[0, 3] >= 0
