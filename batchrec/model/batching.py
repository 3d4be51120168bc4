"""Model inputs from histories. Training and scoring both make them here and nowhere else.

Rows of tokens are int32, oldest item first, padded on the right with PAD.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batchrec.arrays import Bools, Floats, Ints, Longs
from batchrec.config import EncoderShape
from batchrec.model.id_index import mixed
from batchrec.model.vocabulary import Vocabulary
from batchrec.tables.schemas import DAY_S, MASK, PAD

_DIGESTED_USERS = 256


@dataclass(frozen=True)
class Histories:
    """Known items of users, oldest first, concatenated.

    items: (events,) int32 indexes; offsets: (users + 1,) int64, where each user's items start and the last user's end.
    ties: (events,) bool, whether an item has the same timestamp as the one before it; None if times do not matter.
    same_day: (events,) bool, whether an item is of the same day (UTC) as the one before it; None if days are not known.
    weights: (events,) float32, how much each counts in training; None if all weigh 1.
    """

    items: Ints
    offsets: Longs
    ties: Bools | None = None
    weights: Floats | None = None
    same_day: Bools | None = None

    @classmethod
    def from_arrow(
        cls, item_ids: pa.ListArray, vocabulary: Vocabulary, timestamps: pa.ListArray | None = None
    ) -> "Histories":
        """Look up lists of external ids, leaving out items that the model does not know.

        timestamps: Unix seconds, which give the ties and the days.
        """
        indexes = vocabulary.indexes(item_ids.flatten())
        known = indexes != PAD
        offsets = np.concatenate([[0], np.cumsum(item_ids.value_lengths().to_numpy(), dtype=np.int64)])
        if timestamps is None and known.all():
            return cls(indexes, offsets)
        offsets = np.concatenate([[0], np.cumsum(known, dtype=np.int64)])[offsets]
        if timestamps is None:
            return cls(indexes[known], offsets)
        moments = timestamps.flatten().to_numpy()[known]
        users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        is_same_user = np.diff(users, prepend=-1) == 0
        ties = (np.diff(moments, prepend=0) == 0) & is_same_user
        same_day = (np.diff(moments // DAY_S, prepend=0) == 0) & is_same_user
        return cls(indexes[known], offsets, ties, same_day=same_day)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def relative_weights(self) -> Floats | None:
        """Return the weights divided by their mean: (events,) float32, None if all weigh 1."""
        return None if self.weights is None else self.weights / np.float32(self.weights.mean(dtype=np.float64))

    @property
    def lengths(self) -> Longs:
        """Return the number of items of each user: (users,)."""
        lengths: Longs = self.offsets[1:] - self.offsets[:-1]
        return lengths

    def followed_by(self, others: "Histories") -> "Histories":
        """Append the items of `others`, user by user, to these; ties, days and weights are dropped."""
        if len(others.items) == 0:
            return Histories(self.items, self.offsets)
        offsets = self.offsets + others.offsets
        items = np.empty(len(self.items) + len(others.items), np.int32)
        items[spans(offsets[:-1], self.lengths)] = self.items
        items[spans(offsets[:-1] + self.lengths, others.lengths)] = others.items
        return Histories(items, offsets)

    def below(self, size: int) -> "Histories":
        """Keep only the items whose index is below `size`."""
        return self.keep(self.items < size)

    def keep(self, is_kept: Bools) -> "Histories":
        """Keep some events: is_kept (events,) bool. Ties still refer to the event that was before."""
        offsets = np.concatenate([[0], np.cumsum(is_kept, dtype=np.int64)])[self.offsets]
        ties = None if self.ties is None else self.ties[is_kept]
        weights = None if self.weights is None else self.weights[is_kept]
        same_day: Bools | None = None
        if self.same_day is not None:
            # Another event may have been the first one of the day.
            same_day = np.diff(np.cumsum(~self.same_day)[is_kept], prepend=0) == 0
        return Histories(self.items[is_kept], offsets, ties, weights, same_day)

    def take(self, users: Longs) -> "Histories":
        """Return the histories of some users, in the order of `users`."""
        lengths = self.lengths[users]
        places = spans(self.offsets[users], lengths)
        ties = None if self.ties is None else self.ties[places]
        weights = None if self.weights is None else self.weights[places]
        same_day = None if self.same_day is None else self.same_day[places]
        return Histories(self.items[places], np.concatenate([[0], np.cumsum(lengths)]), ties, weights, same_day)


@dataclass(frozen=True)
class SeenPairs:
    """The seen items of rows as pairs: rows (pairs,) int64 and items (pairs,) int64 indexes."""

    rows: Longs
    items: Longs

    def of_rows(self, rows: Longs, n_rows: int) -> "SeenPairs":
        """Keep the pairs of some of n_rows rows, and number these rows from 0."""
        is_kept, numbers = numbered_rows(self.rows, rows, n_rows)
        return SeenPairs(numbers, self.items[is_kept])


def numbered_rows(pair_rows: Longs, rows: Longs, n_rows: int) -> tuple[Bools, Longs]:
    """Return which pairs belong to some of n_rows rows, and the new rows of these, numbered in the order of `rows`."""
    numbers = np.full(n_rows, -1)
    numbers[rows] = np.arange(len(rows))
    numbered = numbers[pair_rows]
    return numbered >= 0, numbered[numbered >= 0]


NO_PAIRS = SeenPairs(np.empty(0, np.int64), np.empty(0, np.int64))


def also_seen(users: pa.RecordBatch, vocabulary: Vocabulary) -> Histories:
    """Look up the items of the column also_seen of a sequences batch: none if the column is missing."""
    if "also_seen" not in users.schema.names:
        return Histories(np.empty(0, np.int32), np.zeros(len(users) + 1, np.int64))
    return Histories.from_arrow(users["also_seen"], vocabulary)


def spans(starts: Longs, lengths: Longs) -> Longs:
    """Return the places start, start + 1, ... of each span, span after span: (sum of lengths,)."""
    first = np.cumsum(lengths) - lengths
    places: Longs = np.arange(lengths.sum(), dtype=np.int64) + np.repeat(starts - first, lengths)
    return places


def pad(items: Ints | Bools, starts: Longs, lengths: Longs, n_extra: int = 0) -> Ints:
    """Lay spans of `items` out as rows (len(starts), longest + n_extra), PAD after each row's end."""
    places = np.arange(int(lengths.max(initial=0)) + n_extra)
    if len(items) == 0:
        return np.full((len(starts), len(places)), PAD, np.int32)
    # Take rows at full width and overwrite what follows each span: cheaper than an index for each value.
    tokens: Ints = items.take(starts[:, None] + places, mode="clip").astype(np.int32, copy=False)
    tokens[places >= lengths[:, None]] = PAD
    return tokens


def visible_events(shape: EncoderShape) -> int:
    """Return how many of the newest events of a history an encoder sees: a MASK takes the place of one."""
    return shape.max_len - (shape.objective == "masked")


def scoring_tokens(histories: Histories, users: Longs, shape: EncoderShape) -> Ints:
    """Lay out each user's newest items to ask for the next one at the last place: (len(users), up to max_len).

    A causal encoder predicts at the newest item; a masked one at a MASK after it, which takes the place of an item.
    """
    n_extra = shape.max_len - visible_events(shape)
    lengths = np.minimum(histories.lengths[users], visible_events(shape))
    tokens = pad(histories.items, histories.offsets[users + 1] - lengths, lengths, n_extra)
    if n_extra:
        tokens[np.arange(len(users)), lengths] = MASK
    return tokens


def seen_pairs(histories: Histories, users: Longs) -> SeenPairs:
    """List the full history of each user, row r for users[r]; an item seen twice is listed twice."""
    bounds = zip(histories.offsets[users].tolist(), histories.offsets[users + 1].tolist(), strict=True)
    # A slice per user is cheaper than an index per item; the empty slice covers the case of no users.
    items = [histories.items[:0], *(histories.items[start:end] for start, end in bounds)]
    return SeenPairs(np.repeat(np.arange(len(users)), histories.lengths[users]), np.concatenate(items, dtype=np.int64))


def history_digests(histories: Histories, others: Histories | None = None) -> Longs:
    """Hash each history into a number that changes with any item or the place of one: (users,) int64.

    others: further items that the users have seen; without any, the digest is that of the history.
    """
    if others is not None and len(others.items):
        # An odd factor, so that an item counts differently in a history than among the others.
        apart = history_digests(others).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return (history_digests(histories).view(np.uint64) + apart).view(np.int64)
    digests: Longs = np.empty(len(histories), np.int64)
    # Few users at a time, so that all steps work in the cache.
    for first in range(0, len(histories), _DIGESTED_USERS):
        offsets = histories.offsets[first : first + _DIGESTED_USERS + 1]
        placed = histories.items[offsets[0] : offsets[-1]].astype(np.uint64)
        placed <<= np.uint64(32)
        placed += spans(np.zeros(len(offsets) - 1, np.int64), np.diff(offsets)).view(np.uint64)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed(placed))])[offsets - offsets[0]]
        digests[first : first + _DIGESTED_USERS] = np.diff(sums).view(np.int64)
    return digests


def length_sorted(lengths: Longs, batch_size: int) -> Iterator[Longs]:
    """Split users into batches of similar length, so that batches hold little padding. Yields (batch,) row numbers."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def token_batches(lengths: Longs, max_tokens: int, max_users: int) -> Iterator[Longs]:
    """Split users into batches of similar length: many users with short histories, few with long ones.

    A batch holds up to max_users users and, including padding, max_tokens tokens; at least one user. Yields (batch,)
    row numbers.
    """
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = lengths[order[start : start + max_users]]
        n_fitting = int(np.searchsorted(longest * np.arange(1, len(longest) + 1), max_tokens, side="right"))
        batch = order[start : start + max(1, n_fitting)]
        yield batch
        start += len(batch)
