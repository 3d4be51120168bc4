"""Histories as Python has them: lists of item ids, a table or data frame, or the path of a sequences table."""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.errors import InputError, one_line
from batchrec.model.vocabulary import Vocabulary
from batchrec.scoring.known_items import none_known
from batchrec.tables.schemas import PAD, WEIGHED_COLUMNS, id_type, is_list, sequences_schema
from batchrec.tables.sequences_table import Sequences, checked_batch, open_sequences

# Any: an Arrow table, or a data frame of any library that Arrow reads.
GivenHistories: TypeAlias = Iterable[Iterable[int | str]] | PathLike[str] | str | Any

_WHERE = "histories"


@dataclass(frozen=True)
class HistoriesTable:
    """Histories in memory; table: with at least user_id and item_ids; schema: of its batches, that of sequences."""

    table: pa.Table
    schema: pa.Schema

    @property
    def n_users(self) -> int:
        """The number of histories."""
        return len(self.table)

    @property
    def user_type(self) -> pa.DataType:
        """The type of user ids: int64 or string."""
        return self.schema.field("user_id").type

    def batches(self, n_users: int) -> Iterator[pa.RecordBatch]:
        """Yield the histories in batches of up to `n_users`. Raises InputError as `Sequences.batches`."""
        for batch in self.table.to_batches(n_users):
            yield checked_batch(_with_times(batch), self.schema, _WHERE)


def read_histories(given: GivenHistories, vocabulary: Vocabulary) -> Sequences | HistoriesTable:
    """Return histories as a sequences table.

    given: lists of item ids, oldest first, whose user_id is their place from 0; a table or data frame with item_ids
    and, if there are, the other columns of sequences; or the path of a sequences table. Without timestamps the items of
    a history are all of one day, as those of `recommend`.
    Raises InputError for other things, ConfigError if the model knows no item of histories in memory.
    """
    if isinstance(given, str | PathLike):
        return open_sequences(Path(given))
    try:
        # A series has no columns: it is a list.
        table = pa.table(given if hasattr(given, "columns") else {"item_ids": _lists(given)})
        table = _with_id_types(table, vocabulary.item_ids.type)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise InputError(f"{_WHERE}: {one_line(error)}; expected a list of ids for each") from error
    items = table["item_ids"].combine_chunks().flatten().drop_null()
    if len(items) and (vocabulary.indexes(items) == PAD).all():
        raise none_known(vocabulary, items[:10].to_pylist())
    if "user_id" not in table.column_names:
        table = table.add_column(0, "user_id", pa.array(np.arange(len(table))))
    elif (n_rows := pc.value_counts(table["user_id"]).field("counts").to_numpy()).max(initial=1) > 1:
        raise InputError(f"{_WHERE}: a user has {n_rows.max()} rows; expected one row per user")
    weighed = [name for name in WEIGHED_COLUMNS if name in table.column_names]
    user_type = id_type(table.schema.field("user_id").type, "user_id", _WHERE)
    return HistoriesTable(table, sequences_schema(user_type, table.schema.field("item_ids").type.value_type, weighed))


def _lists(given: Iterable[Any]) -> pa.Array:
    lists = list(given)
    if lists and isinstance(lists[0], str | Integral):
        first = lists[0] if isinstance(lists[0], str) else int(lists[0])
        raise InputError(f"{_WHERE}: found ids; expected a list of ids for each history, like [[{first!r}]]")
    if any(isinstance(ids, Set) for ids in lists):
        # Of texts it would be another one in every process.
        raise InputError(f"{_WHERE}: found a set, which has no order; expected a list of ids for each, oldest first")
    # Arrow reads neither its own arrays within a list, nor ranges and the like.
    read = str | np.ndarray
    lists = [list(ids) if isinstance(ids, Iterable) and not isinstance(ids, read) else ids for ids in lists]
    return pa.array(lists) if lists else pa.array([], pa.list_(pa.null()))


def _with_id_types(table: pa.Table, item_type: pa.DataType) -> pa.Table:
    """Return the table with item_ids as lists of int64 or string; item_type: of ids if all histories are empty."""
    names = table.column_names
    if names.count("item_ids") != 1:
        raise InputError(f"{_WHERE}: expected one column 'item_ids'; found {', '.join(names) or 'none'}")
    place, lists = names.index("item_ids"), table["item_ids"]
    if not is_list(lists.type):
        raise InputError(f"{_WHERE}: column 'item_ids' is {lists.type}; expected lists of ids")
    is_empty = pa.types.is_null(lists.type.value_type)
    type_ = item_type if is_empty else id_type(lists.type.value_type, "item_ids", _WHERE)
    return table.set_column(place, "item_ids", lists.cast(pa.list_(type_)))


def _with_times(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with timestamps in seconds: 0 for all items if there are none."""
    if "timestamps" not in batch.schema.names:
        lengths = batch["item_ids"].value_lengths().fill_null(0).to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        times = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.zeros(offsets[-1], np.int64)))
        return batch.append_column("timestamps", times)
    times = batch["timestamps"]
    if is_list(times.type) and pa.types.is_timestamp(times.type.value_type):
        # As numbers they would count units of their own type.
        place = batch.schema.names.index("timestamps")
        seconds = times.cast(pa.list_(pa.timestamp("s")), safe=False)
        return batch.set_column(place, "timestamps", seconds.cast(pa.list_(pa.int64())))
    return batch
