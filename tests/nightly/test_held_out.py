"""The model gate holds out the users and items that training holds out: the rule is in numpy there, in SQL here."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import stdev

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from batchrec.config import ScoringConfig, TrainingConfig
from batchrec.errors import InputError
from batchrec.model.batching import Histories
from batchrec.model.directory import load_model
from batchrec.nightly.gates.model import HeldOutItems, held_out_items
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training import train as training
from batchrec.training.corpus import Corpus, read_corpus
from batchrec.training.holdout import Split, popularity_accuracy
from tests.support.logs import Log, write_log
from tests.support.models import examples, torch_scores, trained_model

DAY = 86_400
NOW, NEVER = 1_700_000_000, 253_402_214_400
# The tiny models know the items 1000 to 1039. The item 7 is unknown to them.
ITEMS = [7, *range(1030, 1038)]


@dataclass(frozen=True)
class Case:
    """A log, and the options that decide what is held out of it."""

    log: Log
    config: TrainingConfig


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw histories with repeated items, ties in time and last events in the future. The first item names the user.

    Some logs have many users with events long ago, so that items are held out by time.
    """
    is_spread = draw(st.booleans())
    log = {}
    for user in range(draw(st.integers(2, 16))):
        items = [1000 + user, *draw(st.lists(st.sampled_from(ITEMS), max_size=6))]
        moments = st.integers(NOW, NOW + 4)
        if is_spread:
            moments |= st.sampled_from([NOW - days * DAY for days in (7, 14, 100, 2000)])
        times = sorted(draw(st.lists(moments, min_size=len(items), max_size=len(items))))
        if draw(st.integers(0, 5)) == 0:
            times[-1] = NEVER
        log[user] = list(zip(items, times, strict=True))
    if is_spread:
        old = [(1020, NOW - 3000 * DAY)] * 20
        log |= {user: [(1000 + user, NOW - 3000 * DAY), *old, (1037, NOW)] for user in range(50, 81)}
    config = TrainingConfig(
        seed=draw(st.integers(0, 9)), validation_users=draw(st.integers(1, 20)), repeat_items=draw(st.booleans())
    )
    return Case(log, config)


@contextmanager
def tonight(case: Case) -> Iterator[tuple[Corpus, HeldOutItems, Split | None]]:
    """Yield the corpus, the held-out items of the gate, and the split of a training; None if it cannot be split."""
    with tempfile.TemporaryDirectory() as folder:
        sequences = write_log(Path(folder, "log.parquet"), case.log)
        corpus = read_corpus(sequences, case.config.seed)
        try:
            _, split = training._split(sequences, corpus, case.config)
        except InputError:
            split = None
        with held_out_items(sequences, case.config) as held_out:
            yield corpus, held_out, split


def held_out_by_training(corpus: Corpus, split: Split) -> list[tuple[list[int], set[int]]]:
    """Return the histories and the later items by their external ids, in the order of the table."""
    ids = corpus.vocabulary.item_ids.to_pylist()

    def lists(histories: Histories) -> list[list[int]]:
        return [
            [ids[index - FIRST_ITEM] for index in histories.items[start:end]]
            for start, end in pairwise(histories.offsets.tolist())
        ]

    held_out = split.held_out
    return list(zip(lists(held_out.histories), map(set, lists(held_out.later)), strict=True))


@pytest.mark.usefixtures("one_duckdb")
@settings(max_examples=examples(60))
@given(case=cases())
def test_the_gate_and_training_hold_out_the_same_items_of_the_same_users(case: Case) -> None:
    with tonight(case) as (corpus, held_out, split):
        rows = held_out.con.table("held_out").order("user_id").fetchall()
        if split is None:
            assert (rows, len(held_out.popularity)) == ([], 0)
            return
        event("by time" if split.refit else "last items")
        expected = held_out_by_training(corpus, split)
        assert [(items, set(later)) for *_, items, _, later in rows] == expected
        assert [len(later) for *_, later in rows] == [len(later) for _, later in expected]
        assert sorted(number for number, *_ in rows) == list(range(len(rows)))
        assert [user for _, user, *_ in rows] == [items[0] - 1000 for items, _ in expected]
        popularity = popularity_accuracy(split, corpus.vocabulary.size)
        assert held_out.popularity.mean() == pytest.approx(popularity.ndcg)


@settings(max_examples=examples(10))
@given(case=cases())
def test_the_gate_ranks_the_items_that_training_holds_out(case: Case) -> None:
    model = load_model(trained_model())
    with tonight(case) as (corpus, held_out, split):
        if split is None:
            return
        ndcgs = []
        for history, later in held_out_by_training(corpus, split):
            seen = set() if case.config.repeat_items else set(history)
            scores = {item: score for item, score in torch_scores(history, model).items() if item not in seen}
            ranks = [sum(score >= scores[item] for score in scores.values()) for item in later if item in scores]
            best = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(later), 10) + 1))
            ndcgs.append(sum(1 / math.log2(rank + 1) for rank in ranks if rank <= 10) / best)
        measured = held_out.measure(trained_model(), ScoringConfig(device="cpu"))
        again = held_out.measure(trained_model(), ScoringConfig(device="cpu"), measured).figures
        numbers = [number for number, *_ in held_out.con.table("held_out").order("user_id").fetchall()]
        gains = [ndcg - held_out.popularity[number] for ndcg, number in zip(ndcgs, numbers, strict=True)]
    figures = measured.figures
    assert figures.ndcg_at_10 == pytest.approx(sum(ndcgs) / len(ndcgs))
    if len(gains) > 1:
        assert figures.popularity_margin == pytest.approx(2 * stdev(gains) / math.sqrt(len(gains)))
        assert again == figures
    else:
        assert figures.popularity_margin == again.in_use_margin == 1
