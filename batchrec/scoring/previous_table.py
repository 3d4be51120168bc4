"""The recs table of an earlier night: what would come out the same is carried over."""

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
    """Recommendations by user, of a table that was made as the one to come is.

    n_rows: (users,) int64, how many recommendations each of its users has.
    """

    def __init__(self, file: pq.ParquetFile, where: Path) -> None:
        """Read whose recommendations stand where, 32 bytes a user and the id.

        Raises InputError where the file is damaged.
        """
        self._file, self._where = file, where
        # Workers share the file, which is for one reader at a time.
        self._reading = Lock()
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        self._starts: Longs = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        # Chunks are scored one after another: the next one's rows are mostly in the group that was read last.
        self._group: Callable[[int], pa.RecordBatch] = lru_cache(maxsize=4)(self._read_group)
        ids: list[pa.Array] = []
        last: pa.Scalar | None = None
        digests, firsts = [], []
        for number in np.flatnonzero(sizes).tolist():
            group = self._read_group(number, ["user_id", "history_digest"])
            is_first = np.ones(len(group), bool)
            is_first[1:] = pc.not_equal(group["user_id"][1:], group["user_id"][:-1]).to_numpy(zero_copy_only=False)
            # The rows of a user may go on in this group.
            is_first[0] = group["user_id"][0] != last
            last = group["user_id"][-1]
            firsts.append(self._starts[number] + np.flatnonzero(is_first))
            ids.append(group["user_id"].filter(pa.array(is_first)))
            digests.append(group["history_digest"].to_numpy()[is_first])
        self._ids = SortedIds(pa.concat_arrays(ids))
        self._digests, self._firsts = np.concatenate(digests), np.concatenate(firsts)
        self.n_rows: Longs = np.diff(self._firsts, append=self._starts[-1])

    def find(self, user_ids: pa.Array, digests: Longs) -> Longs:
        """Give the place of each user whose history has this digest: (users,) int64, -1 for all others."""
        places = self._ids.places(user_ids)
        return np.where((places >= 0) & (self._digests[places] == digests), places, -1)

    def join(self, recs: pa.RecordBatch, users: Longs, others: Longs, places: Longs) -> pa.RecordBatch:
        """Give recommendations and, among them, those of other users, who stand at `places`, in the order of users.

        users: (rows,) whose each row of recs is; others: (others,) like them. Raises InputError where the file is
        damaged.
        """
        earlier, rows = self.rows(places)
        both = pa.concat_batches([recs, *(batch.cast(recs.schema) for batch in earlier)])
        order = np.argsort(np.concatenate([users, np.repeat(others, self.n_rows[places])]), kind="stable")
        return both.take(pa.array(np.concatenate([np.arange(len(recs)), len(recs) + rows])[order]))

    def rows(self, places: Longs) -> tuple[list[pa.RecordBatch], Longs]:
        """Give batches that hold the recommendations of the users at `places`, and the rows of those, in that order.

        The rows are counted through all batches, in which source and model_id are dictionaries. Raises InputError where
        the file is damaged.
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
            raise InputError(f"{self._where}: {one_line(error)}. Leave --previous out, to score everybody") from error


def open_previous(path: Path, schema: pa.Schema) -> PreviousRecs | None:
    """Open an earlier recs table; None, and a line in the log, where it was made in another way than `schema` says.

    The schema's metadata name the model and the options that a user's recommendations depend on.
    """
    if not path.exists():
        _log.info("%s: no such file: everybody is scored", path)
        return None
    try:
        opened = open_parquet(path)
        file = parquet_of(opened)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path}: cannot be read: {one_line(error)}. Leave --previous out, to score everybody"
        ) from error
    found = file.schema_arrow
    made_alike = {key: (found.metadata or {}).get(key) for key in schema.metadata} == schema.metadata
    if not made_alike or not found.equals(schema) or file.metadata.num_rows == 0:
        _log.info("%s: of another model, or other options: everybody is scored", path)
        return None
    # Texts that repeat are read several times as fast as what their dictionaries hold.
    return PreviousRecs(parquet_of(opened, read_dictionary=["source", "model_id"]), path)
