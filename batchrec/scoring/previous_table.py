"""The previous recs table: users whose list would come out the same are carried over from it."""

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchrec.arrays import Longs
from batchrec.errors import InputError, one_line
from batchrec.model.batching import spans
from batchrec.tables.sealed_parquet import open_parquet, parquet_of
from batchrec.tables.sorted_ids import SortedIds

_log = logging.getLogger(__name__)


class PreviousRecs:
    """Recommendations by user, of a table made by the same model and options as the new one.

    n_rows: (users,) int64, how many recommendations each of its users has.
    """

    def __init__(self, file: pq.ParquetFile, where: Path) -> None:
        """Read each user's id, digest and rows: 32 bytes per user, and the id.

        Raises InputError if the file is damaged.
        """
        self._file, self._where = file, where
        # Workers share the file, which only one of them can read at a time.
        self._reading = Lock()
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        self._starts: Longs = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        # Chunks are scored one after another: most rows of the next chunk are in the group that was read last.
        self._group: Callable[[int], pa.RecordBatch] = lru_cache(maxsize=4)(self._read_group)
        ids: list[pa.Array] = []
        last: pa.Scalar | None = None
        digests, firsts = [], []
        for number in np.flatnonzero(sizes).tolist():
            group = self._read_group(number, ["user_id", "history_digest"])
            is_first = np.ones(len(group), bool)
            is_first[1:] = pc.not_equal(group["user_id"][1:], group["user_id"][:-1]).to_numpy(zero_copy_only=False)
            # A user's rows may begin in the group before and end in this one.
            is_first[0] = group["user_id"][0] != last
            last = group["user_id"][-1]
            firsts.append(self._starts[number] + np.flatnonzero(is_first))
            ids.append(group["user_id"].filter(pa.array(is_first)))
            digests.append(group["history_digest"].to_numpy()[is_first])
        self._ids = SortedIds(pa.concat_arrays(ids))
        self._digests, self._firsts = np.concatenate(digests), np.concatenate(firsts)
        self.n_rows: Longs = np.diff(self._firsts, append=self._starts[-1])

    def find(self, user_ids: pa.Array, digests: Longs) -> Longs:
        """Return the place of each user whose history has this digest: (users,) int64, -1 for all other users."""
        places = self._ids.places(user_ids)
        return np.where((places >= 0) & (self._digests[places] == digests), places, -1)

    def merge(self, recs: pa.RecordBatch, n_recs: Longs, places: Longs) -> tuple[pa.RecordBatch, Longs]:
        """Add the recommendations of the users at `places` to those of all others, in the order of users.

        n_recs: (users,), how many rows of recs each user has. places: (users,), -1 for a user who has rows of recs, or
        none at all. Returns all rows, and how many each user has. Raises InputError if the file is damaged.
        """
        carried = np.flatnonzero(places >= 0)
        n_carried = np.zeros_like(n_recs)
        n_carried[carried] = self.n_rows[places[carried]]
        groups, rows = self._rows_at(places[carried])
        both = pa.concat_batches([recs, *(group.cast(recs.schema) for group in groups)])
        users = np.arange(len(n_recs))
        order = np.argsort(np.concatenate([np.repeat(users, n_recs), np.repeat(users, n_carried)]), kind="stable")
        merged = both.take(pa.array(np.concatenate([np.arange(len(recs)), len(recs) + rows])[order]))
        return merged, n_recs + n_carried

    def _rows_at(self, places: Longs) -> tuple[list[pa.RecordBatch], Longs]:
        """Return row groups with the recommendations of the users at `places`, and their rows, in the order of places.

        Rows are counted through all returned groups, in which source and model_id are dictionaries.
        """
        rows = spans(self._firsts[places], self.n_rows[places])
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        touched = np.unique(groups)
        read = [self._group(number) for number in touched.tolist()]
        read_starts = np.cumsum([0, *np.diff(self._starts)[touched[:-1]]])
        return read, rows - self._starts[groups] + read_starts[np.searchsorted(touched, groups)]

    def _read_group(self, number: int, columns: list[str] | None = None) -> pa.RecordBatch:
        try:
            with self._reading:
                return self._file.read_row_group(number, columns=columns).combine_chunks().to_batches()[0]
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self._where}: {one_line(error)}. Leave --previous out to score all users") from error


def open_previous(path: Path, schema: pa.Schema) -> PreviousRecs | None:
    """Open an earlier recs table; return None, and log why, if its schema is not the one given.

    The schema's metadata name the model and the options that a user's recommendations depend on.
    """
    if not path.exists():
        _log.info("%s: no such file: all users are scored", path)
        return None
    try:
        opened = open_parquet(path)
        file = parquet_of(opened)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path}: cannot be read: {one_line(error)}. Leave --previous out to score all users"
        ) from error
    previous = file.schema_arrow
    same_metadata = {key: (previous.metadata or {}).get(key) for key in schema.metadata} == schema.metadata
    if not same_metadata or not previous.equals(schema) or file.metadata.num_rows == 0:
        _log.info("%s: made by another model or other options: all users are scored", path)
        return None
    # Repeated texts are read several times as fast as dictionaries than as strings.
    return PreviousRecs(parquet_of(opened, read_dictionary=["source", "model_id"]), path)
