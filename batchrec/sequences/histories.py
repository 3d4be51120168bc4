"""Assemble histories, one row per user, batch by batch from events that are ordered by user."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batchrec.arrays import Longs
from batchrec.tables.log_end import EventsAhead
from batchrec.tables.sequences_table import no_items

_SECOND = 1_000_000


@dataclass(frozen=True)
class _Kept:
    """Events of the histories. lengths: (users,) events per user. also_seen: other items that each user has seen.

    disliked: items that each user dislikes; None if events have no weights.
    """

    events: pa.RecordBatch
    lengths: Longs
    also_seen: pa.ListArray
    disliked: pa.ListArray | None = None


@dataclass
class Written:
    """Counts of what was written.

    lengths: number of events per history. moments: oldest and newest time of each batch, in microseconds.
    moments_in_time: the same without events that are ahead of now.
    """

    ahead: EventsAhead
    lengths: list[pa.Array] = field(default_factory=list)
    moments: list[int] = field(default_factory=list)
    moments_in_time: list[int] = field(default_factory=list)
    n_also_seen: int = 0
    n_disliked: int = 0

    def count(self, kept: _Kept, moments: Longs) -> None:
        """Count a batch; moments: times of its events, in microseconds."""
        self.lengths.append(pa.array(kept.lengths))
        self.n_also_seen += len(kept.also_seen.flatten())
        self.n_disliked += 0 if kept.disliked is None else len(kept.disliked.flatten())
        if not len(moments):
            return
        span = [int(moments.min()), int(moments.max())]
        self.moments += span
        if span[1] >= self.ahead.until * _SECOND:
            seconds = moments // _SECOND
            self.ahead.count(seconds, kept.events["user_id"], kept.events["item_id"])
            moments = moments[seconds < self.ahead.until]
            span = [int(moments.min()), int(moments.max())] if len(moments) else []
        self.moments_in_time += span

    def add(self, other: "Written") -> None:
        """Add the counts of another part of the table."""
        self.ahead.add(other.ahead)
        self.lengths += other.lengths
        self.moments += other.moments
        self.moments_in_time += other.moments_in_time
        self.n_also_seen += other.n_also_seen
        self.n_disliked += other.n_disliked

    @property
    def newest(self) -> int:
        """The newest time that is not ahead of now; if all are, the newest of all."""
        return max(self.moments_in_time or self.moments)


def histories(
    events: Iterable[pa.RecordBatch], schema: pa.Schema, repeats: str, written: Written
) -> Iterator[pa.RecordBatch]:
    """Yield one row per user from events in the order of the histories, and count the rows in `written`.

    events: user_id, item_id, moment and, if left-out events count as seen, left_out; if events have weights also
    weight, is_seen and is_disliked, which is true for all events of a disliked item. The events of a user are
    consecutive, but may span several batches.
    """
    for whole in _whole_users(events):
        users = pc.run_end_encode(whole["user_id"])
        assemble = _weighed if "weight" in whole.schema.names else _without_left_out
        kept = assemble(whole, users.run_ends.to_numpy(), repeats)
        moments = kept.events["moment"].to_numpy()
        written.count(kept, moments)
        offsets = pa.array(np.concatenate([[0], np.cumsum(kept.lengths)]).astype(np.int32))
        columns = [
            users.values,
            pa.ListArray.from_arrays(offsets, kept.events["item_id"]),
            pa.ListArray.from_arrays(offsets, pa.array(moments // _SECOND)),
            kept.also_seen,
        ]
        if kept.disliked is not None:
            columns += [pa.ListArray.from_arrays(offsets, kept.events[name]) for name in ("weight", "is_seen")]
            columns.append(kept.disliked)
        yield pa.record_batch([column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema)


def _whole_users(events: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Regroup the batches so that none ends between two events of a user."""
    rest: list[pa.RecordBatch] = []
    for batch in events:
        ends = pc.run_end_encode(batch["user_id"]).run_ends
        if len(ends) == 1 and (not rest or rest[0]["user_id"][0] == batch["user_id"][0]):
            rest.append(batch)
            continue
        table = pa.concat_batches([*rest, batch])
        last_user_starts = table.num_rows - (batch.num_rows - (ends[-2].as_py() if len(ends) > 1 else 0))
        yield table.slice(0, last_user_starts)
        rest = [table.slice(last_user_starts)]
    yield pa.concat_batches(rest)


def _without_left_out(events: pa.RecordBatch, ends: NDArray[np.int32], repeats: str) -> "_Kept":
    """Return the events that belong in histories. ends: (users,) row after the last event of each user."""
    is_left_out = None
    if "left_out" in events.schema.names:
        is_left_out = events["left_out"].to_numpy(zero_copy_only=False)
    also_seen = no_items(len(ends), pa.list_(events["item_id"].type))
    if is_left_out is None and repeats == "all":
        return _Kept(events, np.diff(ends, prepend=0), also_seen)
    pairs, rows = _Pairs.of(ends, events["item_id"]), None
    if is_left_out is not None and is_left_out.any():
        rows = np.flatnonzero(~is_left_out)
        also_seen = pairs.lists(events["item_id"], pairs.missing(np.flatnonzero(is_left_out), rows))
    if repeats != "all":
        rows = pairs.without_repeats(rows, first=repeats == "first")
    if rows is None:
        return _Kept(events, np.diff(ends, prepend=0), also_seen)
    return _Kept(events.take(pa.array(rows)), np.bincount(pairs.users[rows], minlength=len(ends)), also_seen)


def _weighed(events: pa.RecordBatch, ends: NDArray[np.int32], repeats: str) -> "_Kept":
    """Return the events that belong in histories, with weights, as `_without_left_out`.

    One event of an item, if only one is kept, has the greatest weight of all, and counts as seen if any does.
    """
    is_left_out, is_seen, is_disliked = (
        events[name].to_numpy(zero_copy_only=False) for name in ("left_out", "is_seen", "is_disliked")
    )
    pairs, item_ids = _Pairs.of(ends, events["item_id"]), events["item_id"]
    rows = np.flatnonzero(~is_left_out)
    # An item that the history does not show as seen may be seen by an event that is left out.
    others = pairs.missing(np.flatnonzero(is_left_out & is_seen & ~is_disliked), rows[is_seen[rows]])
    disliked = pairs.missing(np.flatnonzero(is_disliked), rows)
    without_repeats = None if repeats == "all" else pairs.without_repeats(rows, first=repeats == "first")
    chosen = rows if without_repeats is None else without_repeats
    kept = events.take(pa.array(chosen))
    if len(chosen) < len(rows):
        for name in ("weight", "is_seen"):
            greatest = pairs.greatest(events[name].to_numpy(zero_copy_only=False), rows, chosen)
            kept = kept.set_column(kept.schema.get_field_index(name), name, pa.array(greatest))
    lengths = np.bincount(pairs.users[chosen], minlength=len(ends))
    return _Kept(kept, lengths, pairs.lists(item_ids, others), pairs.lists(item_ids, disliked))


@dataclass(frozen=True)
class _Pairs:
    """The user and item of each event: users (events,), numbered from 0 in order; numbers (events,), one per pair."""

    users: Longs
    numbers: Longs

    @classmethod
    def of(cls, ends: NDArray[np.int32], item_ids: pa.Array) -> "_Pairs":
        """Return the pairs, numbered. ends: (users,) row after the last event of each user."""
        users = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        items = _item_codes(item_ids)
        return cls(users, users * (int(items.max()) + 1) + items)

    def without_repeats(self, rows: Longs | None, first: bool) -> Longs | None:
        """Return the rows with the first or last event of each pair, in order. rows: those to look at; None for all."""
        numbers = self.numbers if rows is None else self.numbers[rows]
        if not len(numbers):
            return rows
        # A stable sort is faster on rows that are already ordered by user.
        order = np.argsort(numbers, kind="stable")
        is_new = np.diff(numbers[order]) != 0
        if is_new.all():
            return rows
        kept = np.sort(order[np.append(True, is_new) if first else np.append(is_new, True)])
        return kept if rows is None else rows[kept]

    def missing(self, rows: Longs, others: Longs) -> Longs:
        """Return one row of each pair that no row of `others` has."""
        numbers, first = np.unique(self.numbers[rows], return_index=True)
        missing: Longs = rows[first[~np.isin(numbers, self.numbers[others])]]
        return missing

    def greatest(self, values: NDArray[Any], rows: Longs, chosen: Longs) -> NDArray[Any]:
        """Return the greatest value of the rows of each chosen row's pair; values, not negative: of all rows."""
        numbers, places = np.unique(self.numbers[rows], return_inverse=True)
        greatest = np.zeros(len(numbers), values.dtype)
        np.maximum.at(greatest, places, values[rows])
        return greatest[np.searchsorted(numbers, self.numbers[chosen])]

    def lists(self, item_ids: pa.Array, rows: Longs) -> pa.ListArray:
        """Return the items of some rows as one sorted list per user."""
        users = self.users[rows]
        items = pa.table({"user": users, "item": item_ids.take(pa.array(rows))})
        items = items.sort_by([("user", "ascending"), ("item", "ascending")])
        n_users = int(self.users[-1]) + 1
        offsets = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=n_users))]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), items["item"].combine_chunks())


def _item_codes(item_ids: pa.Array) -> Longs:
    """Return a number from 0 to 2^40 for each item: its id minus the lowest if ids are integers within that range."""
    if pa.types.is_integer(item_ids.type):
        ids: Longs = item_ids.to_numpy()
        lowest = int(ids.min())
        if int(ids.max()) - lowest < 1 << 40:
            return ids - lowest
    codes: Longs = item_ids.dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes
