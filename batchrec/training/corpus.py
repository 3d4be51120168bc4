"""What there is to train on: the histories of a sequences table, the items in them, the users to hold out first."""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.arrays import Longs
from batchrec.errors import InputError
from batchrec.model.batching import Histories
from batchrec.model.vocabulary import Vocabulary
from batchrec.tables.log_end import ahead_from, log_end
from batchrec.tables.queries import connect, literal, select
from batchrec.tables.sequences_table import open_sequences

_USERS_AT_A_TIME = 8192


@dataclass(frozen=True)
class Corpus:
    """All histories that hold an event, as indexes of the vocabulary of their items.

    holdout_users: (users,) int64, those whose last event may be held out, in an order that is the same every night, as
    far as they are the same users: a model that goes on from last night's has not seen what was held out then, so it
    must be held out again.
    """

    vocabulary: Vocabulary
    histories: Histories
    holdout_users: Longs


def read_corpus(path: Path, seed: int, ahead: int | None = None) -> Corpus:
    """Read a whole sequences table, 5 bytes an event.

    ahead: the moment from which on events are ahead of their time, so that none is held out; by the clock if not given.
    Raises InputError where it breaks its contract or holds no item.
    """
    sequences = open_sequences(path)
    try:
        with connect() as con:
            counted = select(con, "training/items", path=literal(path)).to_arrow_table().combine_chunks()
            until = log_end(con, path, ahead_from() if ahead is None else ahead)
            users = select(con, "training/users_to_hold_out", path=literal(path), seed=seed, until=until)
            ordered = users.to_arrow_table()["user_id"]
    except duckdb.Error as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    sequences.check_same()
    if len(counted) == 0:
        raise InputError(f"{path}: no history holds an item. Run batchrec build-sequences on ratings that do")
    vocabulary = Vocabulary(counted["item_id"].cast(sequences.item_type).chunk(0), counted["n_events"].to_numpy())
    user_ids, read = [], []
    for read_batch in sequences.batches(_USERS_AT_A_TIME):
        # Who has no history teaches nothing, and must not make sizes smaller that go by the lengths.
        batch = read_batch.filter(pc.greater(pc.list_value_length(read_batch["item_ids"]), 0))
        user_ids.append(batch["user_id"])
        read.append(Histories.from_arrow(batch["item_ids"], vocabulary, batch["timestamps"]))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([histories.lengths for histories in read]))])
    items, ties = (np.concatenate(arrays) for arrays in zip(*((part.items, part.ties) for part in read), strict=True))
    places = pc.index_in(ordered.cast(sequences.user_type), value_set=pa.chunked_array(user_ids))
    return Corpus(vocabulary, Histories(items, offsets, ties), places.to_numpy().astype(np.int64))
