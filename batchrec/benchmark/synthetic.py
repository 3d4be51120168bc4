"""Generated logs of ratings with the size and skew of MovieLens, and the histories of a following night.

Popularity here answers: how often is an item drawn? By Zipf's law over a random order of the items.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from batchrec.arrays import Longs
from batchrec.errors import ConfigError
from batchrec.model.batching import spans
from batchrec.tables.parquet import write_parquet
from batchrec.tables.sequences_table import OF_EVENTS, filter_lists, open_sequences

_SCHEMA = pa.schema(
    [("userId", pa.int64()), ("movieId", pa.int64()), ("rating", pa.float32()), ("timestamp", pa.int64())]
)
_MIN_RATINGS = 20
# MovieLens-25M: users have rated 71 films (median) and 154 (mean). The number above the minimum of 20 is log-normal
# with this standard deviation, because exp(s^2 / 2) = (154 - 20) / (71 - 20).
_ACTIVITY_SPREAD = 1.39
_FIRST_SECOND, _SECONDS = 789_652_009, 25 * 365 * 86_400
_SECONDS_OF_A_RATING = 20
_USERS_AT_A_TIME = 4096


@dataclass(frozen=True)
class Shape:
    """The numbers of users, items and ratings of a log."""

    users: int
    items: int
    ratings: int

    def fraction(self, share: float) -> "Shape":
        """Return the shape for a share of the users, with the same ratings per user and the same catalogue."""
        return Shape(max(1, round(self.users * share)), self.items, max(1, round(self.ratings * share)))


SHAPES = {
    "ml-1m": Shape(6_040, 3_706, 1_000_209),
    "ml-20m": Shape(138_493, 26_744, 20_000_263),
    "ml-25m": Shape(162_541, 62_423, 25_000_095),
    # Of its items 3 million are drawn at least once: those that a model has.
    "3m-items": Shape(200_000, 6_300_000, 24_000_000),
}


def write_ratings(shape: Shape, seed: int, out: Path) -> None:
    """Write a CSV of the shape, with MovieLens's columns and order: by user and item. Same seed, same bytes.

    Raises ConfigError if the shape has less than one rating, or more than half of the items, per user.
    """
    if not shape.users <= shape.ratings <= shape.users * (shape.items // 2):
        raise ConfigError(
            f"--ratings {shape.ratings}: expected 1 to {shape.items // 2}, half of the items, per user: "
            f"{shape.users} to {shape.users * (shape.items // 2)}"
        )
    generator = np.random.default_rng(seed)
    # Ids have gaps, as real ones do, and popular items have any of them.
    item_ids = np.sort(generator.choice(4 * shape.items, shape.items, replace=False))
    item_ids = generator.permutation(item_ids + 1)
    lengths = _activity(shape, generator)
    with pa.csv.CSVWriter(out, _SCHEMA, write_options=pa.csv.WriteOptions(quoting_style="none")) as writer:
        for first in range(0, shape.users, _USERS_AT_A_TIME):
            chosen = lengths[first : first + _USERS_AT_A_TIME]
            writer.write_batch(_ratings(first, chosen, item_ids, generator))


def _activity(shape: Shape, generator: np.random.Generator) -> Longs:
    """Draw the number of ratings per user: (users,), log-normal above a minimum, with the sum of the shape."""
    minimum = min(_MIN_RATINGS, shape.ratings // shape.users)
    maximum = shape.items // 2
    drawn = np.exp(generator.normal(0, _ACTIVITY_SPREAD, shape.users))
    drawn *= (shape.ratings - minimum * shape.users) / drawn.sum()
    lengths: Longs = np.minimum(minimum + drawn.astype(np.int64), maximum)
    # Distribute the rest, from rounding down and from capping the most active, over the other users.
    while missing := shape.ratings - int(lengths.sum()):
        room = np.flatnonzero(lengths < maximum)
        lengths[generator.choice(room, min(missing, len(room)), replace=False)] += 1
    return lengths


def _ratings(first_user: int, lengths: Longs, item_ids: Longs, generator: np.random.Generator) -> pa.RecordBatch:
    """Draw the ratings of some users: distinct items per user, popular ones more often, by Zipf's law."""
    n_ratings, n_items = int(lengths.sum()), len(item_ids)
    users = np.repeat(np.arange(len(lengths)), lengths)
    places = spans(np.zeros_like(lengths), lengths)
    # The distribution is cut into as many equal parts as the user has items, and one item is drawn from each, in order
    # of popularity. If parts are narrower than an item, the next free items follow.
    drawn = (places + generator.random(n_ratings)) / lengths[users] * np.log(n_items + 1)
    ranks = np.exp(drawn).astype(np.int64) - 1
    free = np.maximum.accumulate(ranks - places + users * 2 * n_items) - users * 2 * n_items
    ranks = np.minimum(free + places, n_items - lengths[users] + places)
    joined = generator.integers(_FIRST_SECOND, _FIRST_SECOND + _SECONDS, len(lengths))
    columns = {
        "userId": first_user + users + 1,
        "movieId": item_ids[ranks],
        "rating": generator.integers(1, 11, n_ratings) / 2,
        "timestamp": joined[users] + generator.integers(0, _SECONDS_OF_A_RATING * lengths[users]),
    }
    order = np.lexsort((columns["movieId"], users))
    return pa.record_batch({name: column[order] for name, column in columns.items()}).cast(_SCHEMA)


def take_users(sequences: Path, n_users: int, out: Path) -> None:
    """Copy the first `n_users` rows of a sequences table."""
    table = open_sequences(sequences)
    write_parquet(islice(table.batches(n_users), 1), table.schema, out)


def shorten_histories(sequences: Path, every: int, out: Path) -> None:
    """Copy a sequences table, removing the newest item of every `every`-th user."""
    table = open_sequences(sequences)

    def shortened() -> Iterator[pa.RecordBatch]:
        for batch in table.batches(_USERS_AT_A_TIME):
            lengths = batch["item_ids"].value_lengths().to_numpy()
            is_left = np.ones(lengths.sum(), bool)
            is_left[np.cumsum(lengths)[::every] - 1] = False
            columns = [
                filter_lists(batch[name], is_left) if name in OF_EVENTS else batch[name] for name in table.schema.names
            ]
            yield pa.record_batch(columns, schema=table.schema)

    write_parquet(shortened(), table.schema, out)
