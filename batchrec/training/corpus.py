"""The training corpus: all histories of a sequences table, their items, and the order in which users are held out.

Items are indexed by popularity: the number of their events in all histories, future ones included
(sql/training/items.sql). It is stored in the model next to the sum of their weights, for popular lists; no accuracy
depends on either.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.arrays import Floats, Longs
from batchrec.errors import InputError
from batchrec.model.batching import Histories
from batchrec.model.vocabulary import Vocabulary
from batchrec.tables.log_end import ahead_from, log_end
from batchrec.tables.queries import connect, literal, select
from batchrec.tables.schemas import DAY_S, FIRST_ITEM
from batchrec.tables.sequences_table import open_sequences

_USERS_AT_A_TIME = 8192
_MIN_WEIGHT = np.float32(1e-30)


@dataclass(frozen=True)
class Corpus:
    """All non-empty histories, as indexes into the vocabulary of their items.

    holdout_users: (users,) int64, the users whose last event may be held out, in an order that stays the same from
    night to night for the same users. A model that starts from last night's weights has not seen the events held out
    then, so the same ones must be held out again.
    times: (events,) int64, of each event of the histories, Unix seconds. until: the time before which events count.
    """

    vocabulary: Vocabulary
    histories: Histories
    holdout_users: Longs
    times: Longs
    until: int


def read_corpus(path: Path, seed: int, ahead: int | None = None, half_life: float | None = None) -> Corpus:
    """Read a whole sequences table into memory, 14 bytes per event, 18 if events have weights.

    ahead: Unix time from which events count as in the future and are not held out; by the clock if not given.
    half_life: age in days at which an event counts half; None if the age does not matter. The age is that at the newest
    event that is not in the future; later events count fully.
    Raises InputError if the table breaks its contract or holds no item.
    """
    sequences = open_sequences(path)
    try:
        with connect() as con:
            counted = select(con, "training/items", path=literal(path)).to_arrow_table().combine_chunks()
            until = log_end(con, path, ahead_from() if ahead is None else ahead)
            newest = select(con, "training/newest_event", path=literal(path), until=until).fetchall()[0][0]
            users = select(con, "training/users_to_hold_out", path=literal(path), seed=seed, until=until)
            ordered = users.to_arrow_table()["user_id"]
    except duckdb.Error as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    sequences.check_same()
    if len(counted) == 0:
        raise InputError(f"{path}: no history holds an item. Run batchrec build-sequences on ratings that do")
    vocabulary = Vocabulary(counted["item_id"].cast(sequences.item_type).chunk(0), counted["n_events"].to_numpy())
    user_ids, read, weights, times = [], [], [], []
    for read_batch in sequences.batches(_USERS_AT_A_TIME):
        # Users without a history teach nothing, and would make default sizes too small, which depend on the lengths.
        batch = read_batch.filter(pc.greater(pc.list_value_length(read_batch["item_ids"]), 0))
        user_ids.append(batch["user_id"])
        read.append(Histories.from_arrow(batch["item_ids"], vocabulary, batch["timestamps"]))
        weights.append(_weights(batch, newest, half_life))
        times.append(batch["timestamps"].flatten().to_numpy())
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([histories.lengths for histories in read]))])
    events = zip(*((part.items, part.ties, part.same_day) for part in read), strict=True)
    items, ties, same_day = (np.concatenate(arrays) for arrays in events)
    places = pc.index_in(ordered.cast(sequences.user_type), value_set=pa.chunked_array(user_ids))
    histories = Histories(items, offsets, ties, _unless_all_are_1(weights), same_day)
    if histories.weights is not None:
        weight = np.bincount(histories.items, histories.weights, vocabulary.size).astype(np.float64)
        vocabulary = replace(vocabulary, weights=weight[FIRST_ITEM:])
    return Corpus(vocabulary, histories, places.to_numpy().astype(np.int64), np.concatenate(times), until)


def _weights(batch: pa.RecordBatch, newest: int, half_life: float | None) -> Floats | None:
    """Return the weight of each event, by the column weights and its age: (events,); None if all weigh 1."""
    weights: Floats | None = None
    if "weights" in batch.schema.names:
        weights = batch["weights"].flatten().to_numpy()
    if half_life is not None:
        ages = np.maximum(0, newest - batch["timestamps"].flatten().to_numpy()) / DAY_S
        fresh = np.exp2(-ages / half_life).astype(np.float32)
        # Above 0, so that the weights have a mean to be divided by, however old all events are.
        weights = np.maximum(fresh if weights is None else weights * fresh, _MIN_WEIGHT)
    return weights


def _unless_all_are_1(weights: list[Floats | None]) -> Floats | None:
    """Join the weights of parts; None if all weigh 1."""
    given = [part for part in weights if part is not None]
    if not given:
        return None
    joined: Floats = np.concatenate(given)
    return None if (joined == 1).all() else joined
