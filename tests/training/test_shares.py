"""The shares of the parts against a plain loop over users and their best ten candidates."""

from collections import Counter

import numpy as np
import pytest

from batchrec.tables.schemas import PARTS
from batchrec.training.candidates import Candidates
from batchrec.training.shares import part_shares

SIGNALS = {
    "encoder": "encoder",
    "popular": "popularity",
    "popular_7_days": "popularity",
    "neighbours": "neighbours",
    "days_taken": "habit",
}


def candidates(n_users: int, seed: int) -> Candidates:
    """Candidates of which few are neighbours or habits."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(4, 30, n_users)
    values = generator.normal(size=(lengths.sum(), len(SIGNALS))).astype(np.float32)
    values[:, 3:] = np.abs(values[:, 3:]) * (generator.random((lengths.sum(), 2)) < 0.2)
    counts = generator.integers(1, 9, lengths.sum()).astype(np.float32)
    is_relevant = generator.random(lengths.sum()) < 0.1
    return Candidates(values, is_relevant, counts, np.cumsum(lengths) - lengths, np.ones(n_users, np.int64))


@pytest.mark.parametrize(
    "weights", [[1, 0.6, 0.6, 1, 1], [0, 0.6, -0.6, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 2, 0]], ids=str
)
def test_shares_equal_a_plain_loop(weights: list[float]) -> None:
    drawn, counted, n_listed = candidates(40, 3), Counter[str](), 0
    named = dict(zip(SIGNALS, weights, strict=True))
    for user in range(drawn.n_users):
        own = np.flatnonzero(drawn.users == user)
        ranked = sorted(
            own, key=lambda place: (-float(drawn.values[place] @ np.array(weights)), drawn.is_relevant[place])
        )
        for place in ranked[:10]:
            n_listed += 1
            added = Counter[str]()
            for column, (name, weight) in enumerate(named.items()):
                if not weight:
                    continue
                value, part = weight * drawn.values[place, column], SIGNALS[name]
                if part in {"encoder", "popularity"}:
                    value -= weight * np.average(drawn.values[own, column], weights=drawn.counts[own])
                elif value == 0:
                    continue
                added[part] += value
            if added:
                counted[max(PARTS, key=lambda part: added.get(part, -np.inf))] += 1
    shares = part_shares(drawn, named, SIGNALS)
    assert shares == pytest.approx({part: counted[part] / n_listed for part in PARTS})
    assert list(shares) == list(PARTS)
