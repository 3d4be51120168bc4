"""Logs of ratings as large and as unevenly spread as MovieLens, and histories of the night after."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from batchrec.arrays import Longs
from batchrec.errors import ConfigError
from batchrec.model.batching import spans
from batchrec.tables.parquet import write_parquet
from batchrec.tables.sequences_table import open_sequences

_SCHEMA = pa.schema(
    [("userId", pa.int64()), ("movieId", pa.int64()), ("rating", pa.float32()), ("timestamp", pa.int64())]
)
_LEAST_RATINGS = 20
# MovieLens-25M: users have rated 71 films in the median and 154 in the mean. What is above the least 20 is log-normal
# with this standard deviation, for exp(s^2 / 2) = (154 - 20) / (71 - 20).
_ACTIVITY_SPREAD = 1.39
_FIRST_SECOND, _SECONDS = 789_652_009, 25 * 365 * 86_400
_SECONDS_OF_A_RATING = 20
_USERS_AT_A_TIME = 4096


@dataclass(frozen=True)
class Shape:
    """How many users, items and ratings a log has."""

    users: int
    items: int
    ratings: int

    def fraction(self, share: float) -> "Shape":
        """Give the log of a share of the users, with as many ratings each and the same catalogue."""
        return Shape(max(1, round(self.users * share)), self.items, max(1, round(self.ratings * share)))


SHAPES = {
    "ml-1m": Shape(6_040, 3_706, 1_000_209),
    "ml-20m": Shape(138_493, 26_744, 20_000_263),
    "ml-25m": Shape(162_541, 62_423, 25_000_095),
}


def write_ratings(shape: Shape, seed: int, out: Path) -> None:
    """Write a CSV of the shape, in MovieLens's columns and order: by user and item. Same seed, same bytes.

    Raises ConfigError for a shape that has less than a rating or more than half of the items for each user.
    """
    if not shape.users <= shape.ratings <= shape.users * (shape.items // 2):
        raise ConfigError(
            f"--ratings {shape.ratings}: {shape.users} users have 1 to {shape.items // 2}, half of the items, each"
        )
    generator = np.random.default_rng(seed)
    # Ids have gaps, as real ones do: the most popular items are anywhere among them.
    item_ids = np.sort(generator.choice(4 * shape.items, shape.items, replace=False))
    item_ids = generator.permutation(item_ids + 1)
    lengths = _activity(shape, generator)
    with pa.csv.CSVWriter(out, _SCHEMA, write_options=pa.csv.WriteOptions(quoting_style="none")) as writer:
        for first in range(0, shape.users, _USERS_AT_A_TIME):
            chosen = lengths[first : first + _USERS_AT_A_TIME]
            writer.write_batch(_ratings(first, chosen, item_ids, generator))


def _activity(shape: Shape, generator: np.random.Generator) -> Longs:
    """Draw how many items each user has rated: (users,), log-normal above a least number, the sum as the shape says."""
    least = min(_LEAST_RATINGS, shape.ratings // shape.users)
    most = shape.items // 2
    drawn = np.exp(generator.normal(0, _ACTIVITY_SPREAD, shape.users))
    drawn *= (shape.ratings - least * shape.users) / drawn.sum()
    lengths: Longs = np.minimum(least + drawn.astype(np.int64), most)
    # What rounding down and the most active have left over goes to the others.
    while missing := shape.ratings - int(lengths.sum()):
        room = np.flatnonzero(lengths < most)
        lengths[generator.choice(room, min(missing, len(room)), replace=False)] += 1
    return lengths


def _ratings(first_user: int, lengths: Longs, item_ids: Longs, generator: np.random.Generator) -> pa.RecordBatch:
    """Draw the ratings of some users, each of different items, popular ones more often than others by Zipf's law."""
    n_ratings, n_items = int(lengths.sum()), len(item_ids)
    users = np.repeat(np.arange(len(lengths)), lengths)
    places = spans(np.zeros_like(lengths), lengths)
    # A user's items are drawn one from each of as many equal parts of the distribution, in order of popularity. Where
    # parts are narrower than an item, the next ones not taken follow.
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


def shorten_histories(sequences: Path, every: int, out: Path) -> None:
    """Copy a sequences table in which every so many-th user lacks the newest item."""
    table = open_sequences(sequences)

    def shortened() -> Iterator[pa.RecordBatch]:
        for batch in table.batches(_USERS_AT_A_TIME):
            lengths = batch["item_ids"].value_lengths().to_numpy()
            is_left = np.ones(lengths.sum(), bool)
            is_left[np.cumsum(lengths)[::every] - 1] = False
            offsets = pa.array(np.concatenate([[0], np.cumsum(is_left)])[np.concatenate([[0], np.cumsum(lengths)])])
            lists = [
                pa.ListArray.from_arrays(offsets.cast(pa.int32()), batch[name].flatten().filter(pa.array(is_left)))
                for name in ("item_ids", "timestamps")
            ]
            yield pa.record_batch([batch["user_id"], *lists, batch["also_seen"]], schema=table.schema)

    write_parquet(shortened(), table.schema, out)
