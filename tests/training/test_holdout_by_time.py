"""Items held out by time, and the events of the training and of the refit, compared with plain loops."""

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from batchrec.arrays import Bools
from batchrec.config import TrainingConfig
from batchrec.model.batching import Histories
from batchrec.tables.schemas import FIRST_ITEM
from batchrec.training.corpus import Corpus, read_corpus
from batchrec.training.holdout_by_time import hold_out_after
from tests.support.logs import Events, Log, write_log
from tests.support.models import examples

CUT, AHEAD, NEVER = 50, 100, 253_402_214_400
moments = st.sampled_from([10, 20, CUT - 1, CUT, CUT + 1, 60, AHEAD - 1, NEVER])


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Draw histories of few items around the cut; their users are numbered from 1."""
    log: dict[int, Events] = {}
    for user in range(1, draw(st.integers(2, 12)) + 1):
        times = sorted(draw(st.lists(moments, min_size=1, max_size=8)))
        items = draw(st.lists(st.integers(1, 6), min_size=len(times), max_size=len(times)))
        log[user] = list(zip(items, times, strict=True))
    return log


def corpus_of(log: Log, seed: int = 0) -> Corpus:
    with tempfile.TemporaryDirectory() as folder:
        return read_corpus(write_log(Path(folder, "log.parquet"), log), seed, AHEAD)


def later_items(events: Events, repeat_items: bool) -> set[int]:
    before = {item for item, moment in events if moment < CUT}
    after = {item for item, moment in events if moment >= CUT}
    return after if repeat_items else after - before


def lists_of(histories: Histories, corpus: Corpus) -> list[list[int]]:
    ids = corpus.vocabulary.item_ids.to_pylist()
    return [
        [ids[index - FIRST_ITEM] for index in histories.items[start:end]]
        for start, end in pairwise(histories.offsets.tolist())
    ]


def items_of(log: Log, users: Sequence[int], until: int) -> list[list[int]]:
    return [[item for item, moment in log[user] if moment < until] for user in users]


@pytest.mark.usefixtures("one_duckdb")
@settings(max_examples=examples(80))
@given(logs(), st.integers(0, 9), st.integers(1, 12), st.booleans())
def test_the_split_equals_that_of_plain_loops(log: Log, seed: int, most: int, repeat_items: bool) -> None:
    corpus = corpus_of(log, seed)
    order = [user + 1 for user in corpus.holdout_users.tolist()]
    qualified = [user for user in order if log[user][0][1] < CUT and later_items(log[user], repeat_items)]
    assume(qualified)
    config = TrainingConfig(validation_users=most, repeat_items=repeat_items)
    split = hold_out_after(corpus, CUT, config)

    chosen = qualified[: max(1, min(most, len(qualified) // 2))]
    for held_out, users in ((split.held_out, chosen), (split.qualified, qualified[:most])):
        assert lists_of(held_out.histories, corpus) == items_of(log, sorted(users), CUT)
        later = [sorted(items) for items in lists_of(held_out.later, corpus)]
        assert later == [sorted(later_items(log[user], repeat_items)) for user in sorted(users)]
        assert held_out.keep_seen == repeat_items
    assert lists_of(split.training, corpus) == items_of(log, list(log), CUT)

    withheld = set(order[: order.index(chosen[-1]) + 1])
    assert set(chosen) <= withheld
    assert lists_of(split.final.histories, corpus) == [
        items_of(log, [user], CUT if user in withheld else NEVER + 1)[0] for user in log
    ]
    for kept, histories in ((split.kept, split.training), (split.final.kept, split.final.histories)):
        assert corpus.histories.items[kept].tolist() == histories.items.tolist()
        assert_same_ties(corpus, kept, histories)


def assert_same_ties(corpus: Corpus, kept: Bools, histories: Histories) -> None:
    """The ties are those of the times of the kept events."""
    times = corpus.times[kept]
    assert histories.ties is not None
    for start, end in pairwise(histories.offsets.tolist()):
        expected = np.diff(times[start:end], prepend=-1) == 0
        assert histories.ties[start:end].tolist() == expected.tolist()


def test_users_who_end_in_the_future_are_trained_on_and_not_held_out() -> None:
    log = {user: [(1, 10), (2, CUT), (3, NEVER if user == 3 else CUT)] for user in range(1, 7)}
    corpus = corpus_of(log)
    split = hold_out_after(corpus, CUT, TrainingConfig())
    assert lists_of(split.final.histories, corpus)[2] == [1, 2, 3]
    assert len(split.held_out.later) == 2


def test_a_user_who_will_be_held_out_is_not_trained_on_before() -> None:
    log = {user: [(1, 10), (2, CUT), (3, CUT + 9)] for user in range(1, 9)}
    first = corpus_of(log).holdout_users.tolist()[0] + 1
    # Without an event before the cut the user does not qualify.
    log[first] = [(1, CUT), (4, CUT + 1), (5, CUT + 9)]
    corpus = corpus_of(log)
    split, next_split = (hold_out_after(corpus, cut, TrainingConfig()) for cut in (CUT, CUT + 5))
    users = list(log).index(first)
    assert lists_of(split.final.histories, corpus)[users] == []
    assert [5] in lists_of(next_split.held_out.later, corpus)
    assert [1, 4] in lists_of(next_split.held_out.histories, corpus)
