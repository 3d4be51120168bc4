"""The model gate holds out the users and items that training holds out: the rule is in numpy there, in SQL here."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.config import ScoringConfig, TrainingConfig
from batchrec.errors import InputError
from batchrec.model.directory import load_model
from batchrec.nightly.gates.model import HeldOutItems, held_out_items
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.corpus import Corpus, read_corpus
from batchrec.training.holdout import Split, hold_out, popularity_accuracy
from tests.support.logs import Log, write_log
from tests.support.models import torch_scores, trained_model

NOW, NEVER = 1_700_000_000, 253_402_214_400
# The tiny models know the items 1000 to 1039. The item 7 is unknown to them.
ITEMS = [7, *range(1030, 1038)]


@dataclass(frozen=True)
class Case:
    """A log, and the options that decide what is held out of it."""

    log: Log
    seed: int
    most: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw histories with repeated items, ties in time and last events in the future. The first item names the user."""
    log = {}
    for user in range(draw(st.integers(2, 16))):
        items = [1000 + user, *draw(st.lists(st.sampled_from(ITEMS), max_size=6))]
        times = sorted(draw(st.lists(st.integers(NOW, NOW + 4), min_size=len(items), max_size=len(items))))
        if draw(st.integers(0, 5)) == 0:
            times[-1] = NEVER
        log[user] = list(zip(items, times, strict=True))
    return Case(log, draw(st.integers(0, 9)), draw(st.integers(1, 20)))


@contextmanager
def tonight(case: Case) -> Iterator[tuple[Corpus, HeldOutItems]]:
    with tempfile.TemporaryDirectory() as folder:
        sequences = write_log(Path(folder, "log.parquet"), case.log)
        config = TrainingConfig(seed=case.seed, validation_users=case.most)
        with held_out_items(sequences, config) as held_out:
            yield read_corpus(sequences, case.seed), held_out


def held_out_by_training(corpus: Corpus, split: Split) -> list[tuple[list[int], int]]:
    """Return the histories and the held-out items by their external ids, in the order of the table."""
    ids = corpus.vocabulary.item_ids.to_pylist()
    histories = split.held_out.histories
    lists = [
        [ids[index - FIRST_ITEM] for index in histories.items[start:end]]
        for start, end in zip(histories.offsets[:-1], histories.offsets[1:], strict=True)
    ]
    return [(items, ids[item - FIRST_ITEM]) for items, item in zip(lists, split.held_out.items, strict=True)]


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_the_gate_and_training_hold_out_the_same_items_of_the_same_users(case: Case) -> None:
    with tonight(case) as (corpus, held_out):
        rows = held_out.con.table("held_out").order("user_id").fetchall()
        try:
            split = hold_out(corpus.histories, case.most, corpus.holdout_users)
        except InputError:
            assert (rows, held_out.popularity_ndcg) == ([], 0.0)
            return
        expected = held_out_by_training(corpus, split)
        assert [(items, item) for _, items, _, item in rows] == expected
        assert [user for user, *_ in rows] == [items[0] - 1000 for items, _ in expected]
        popularity = popularity_accuracy(split, corpus.vocabulary.size)
        assert held_out.popularity_ndcg == pytest.approx(popularity.ndcg)


@settings(max_examples=10, deadline=None)
@given(case=cases())
def test_the_gate_ranks_the_items_that_training_holds_out(case: Case) -> None:
    model = load_model(trained_model())
    with tonight(case) as (corpus, held_out):
        try:
            split = hold_out(corpus.histories, case.most, corpus.holdout_users)
        except InputError:
            return
        gains = []
        for history, item in held_out_by_training(corpus, split):
            scores = {other: score for other, score in torch_scores(history, model).items() if other not in history}
            rank = sum(score >= scores[item] for score in scores.values()) if item in scores else math.inf
            gains.append(1 / math.log2(rank + 1) if rank <= 10 else 0.0)
        figures = held_out.measure(trained_model(), ScoringConfig(device="cpu"))
    assert figures.ndcg_at_10 == pytest.approx(sum(gains) / len(gains))
