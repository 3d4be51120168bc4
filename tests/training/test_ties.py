"""Items with the same timestamp: their order means nothing, and every batch shuffles it."""

from itertools import groupby, pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batchrec.config import TrainingConfig
from batchrec.model.batching import Histories, pad
from batchrec.model.vocabulary import Vocabulary
from batchrec.tables.schemas import PAD
from batchrec.training.corpus import read_corpus
from batchrec.training.default_sizes import encoder_shape
from batchrec.training.holdout import hold_out
from batchrec.training.windows import draw_batches, tie_order
from tests.support.models import longs, training_sequences

# Events of users: item and timestamp, in time order.
event = st.tuples(st.integers(2, 30), st.integers(0, 4))
logs = st.lists(
    st.lists(event, max_size=8).map(lambda events: sorted(events, key=lambda e: e[1])), min_size=1, max_size=6
)


def histories_of(log: list[list[tuple[int, int]]]) -> Histories:
    """The histories that from_arrow returns for events whose item 30 is unknown."""
    vocabulary = Vocabulary(pa.array(range(2, 30)), np.ones(28, dtype=np.int64))
    columns = [pa.array([[part[at] for part in events] for events in log], pa.list_(pa.int64())) for at in (0, 1)]
    return Histories.from_arrow(columns[0], vocabulary, columns[1])


def known(log: list[list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    return [[(item, moment) for item, moment in events if item != 30] for events in log]


def plain_ties(log: list[list[tuple[int, int]]]) -> list[bool]:
    return [place > 0 and events[place - 1][1] == events[place][1] for events in log for place in range(len(events))]


@given(logs)
def test_a_tie_is_with_the_previous_known_item(log: list[list[tuple[int, int]]]) -> None:
    histories = histories_of(log)
    assert histories.ties is not None
    assert histories.items.tolist() == [item for events in known(log) for item, _ in events]
    assert histories.ties.tolist() == plain_ties(known(log))


@given(logs, st.data())
def test_take_keeps_ties(log: list[list[tuple[int, int]]], data: st.DataObject) -> None:
    users = data.draw(st.lists(st.integers(0, len(log) - 1), max_size=6))
    taken = histories_of(log).take(longs(users))
    assert taken.ties is not None
    assert taken.ties.tolist() == plain_ties([known(log)[user] for user in users])


@given(logs, st.integers(0, 99))
def test_shuffling_keeps_the_order_of_times_and_the_padding(log: list[list[tuple[int, int]]], seed: int) -> None:
    histories = histories_of(log)
    assert histories.ties is not None
    starts, lengths = histories.offsets[:-1], histories.lengths
    order = tie_order(pad(histories.ties, starts, lengths).astype(bool), np.random.default_rng(seed))
    rows = np.take_along_axis(pad(histories.items, starts, lengths), order, axis=1)
    for row, events in zip(rows.tolist(), known(log), strict=True):
        assert row[len(events) :] == [PAD] * (len(row) - len(events))
        for _, group in groupby(enumerate(events), key=lambda placed: placed[1][1]):
            placed = list(group)
            assert sorted(row[place] for place, _ in placed) == sorted(item for _, (item, _) in placed)


def test_every_order_of_ties_is_equally_frequent() -> None:
    items, ties = np.tile(np.array([[5, 6, 7]], np.int32), (6000, 1)), np.tile([[False, True, True]], (6000, 1))
    shuffled = np.take_along_axis(items, tie_order(ties, np.random.default_rng(0)), axis=1)
    _, counts = np.unique(shuffled, axis=0, return_counts=True)
    assert len(counts) == 6
    assert counts.min() > 850


def test_holding_out_does_not_change_other_ties() -> None:
    log = [[(2, 0), (3, 0), (4, 1)], [(5, 0), (6, 0), (7, 0)], [(8, 0), (9, 2), (10, 2)]]
    split = hold_out(histories_of(log), 1, longs([1, 0, 2]))
    assert split.training.items.tolist() == [2, 3, 4, 5, 6, 8, 9, 10]
    assert split.training.ties is not None
    assert split.training.ties.tolist() == [False, True, False, False, True, False, False, True]


def batches_of(log: list[list[tuple[int, int]]], n_batches: int, *, keep_ties: bool = False) -> set[tuple[int, ...]]:
    """The windows drawn from a log, each as its tokens and its last label."""
    histories = histories_of(log)
    config = TrainingConfig(min_epoch_steps=n_batches, batch_size=1, keep_ties=keep_ties)
    batches = draw_batches(histories, 30, encoder_shape(config, histories), config, np.random.default_rng(0))
    return {(*batch.tokens[0].tolist(), int(batch.labels[0, -1])) for batch in batches}


def test_ties_are_shuffled_unless_keep_ties() -> None:
    log = [[(2, 0), (3, 1), (4, 1), (5, 2)]]
    assert batches_of(log, 40) == {(2, 3, 4, 5), (2, 4, 3, 5)}
    assert batches_of(log, 40, keep_ties=True) == {(2, 3, 4, 5)}


def test_ties_come_from_the_times_of_the_sequences_table() -> None:
    histories = read_corpus(training_sequences(), 0).histories
    assert histories.ties is not None
    # All its times differ.
    assert len(histories.ties) == len(histories.items)
    assert not histories.ties.any()
    assert all(start <= end for start, end in pairwise(histories.offsets.tolist()))
