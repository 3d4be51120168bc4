"""The views of the page: a model, or a published night with its model, each with the list of a history."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from batchrec.config import ExploreConfig
from batchrec.errors import InputError, one_line
from batchrec.explorer.state import State
from batchrec.scoring.recommender import Recommendation, Recommender, open_recommender
from batchrec.tables.ids import as_ids
from batchrec.tables.queries import connect, literal, select
from batchrec.tables.schemas import BY_MODEL, SOURCES
from batchrec.tables.sequences_table import OF_EVENTS

# The values of an event that is added, besides its item and time.
_EVENT = {"weights": 1.0, "is_seen": True}


@dataclass(frozen=True)
class ViewFiles:
    """The files of a view. recs: the published table of a night, None for a model.

    fits_histories: whether the table was made from the histories that the page shows.
    """

    label: str
    model: Path
    recs: Path | None = None
    fits_histories: bool = False


@dataclass(frozen=True)
class View:
    """A view that is open."""

    files: ViewFiles
    recommender: Recommender
    top_k: int

    def published(self, user: pa.RecordBatch, explains: bool) -> list[Recommendation]:
        """Return the list in the night's table of a user, a row of sequences; empty if there is none.

        explains: whether rows have reasons; they have none if the table was made from other histories. Raises
        InputError if the table cannot be read.
        """
        rows = self._rows(user["user_id"][0].as_py())
        by_model = [row for row in rows if row.source == SOURCES[BY_MODEL]]
        if not (explains and self.files.fits_histories and by_model and self.knows(user)):
            return rows
        explained = {row.rank: row for row in self.recommender.explained(user, by_model)}
        return [explained.get(row.rank, row) for row in rows]

    def listed(self, user: pa.RecordBatch, explains: bool) -> list[Recommendation]:
        """Return the model's list after a history, a row of sequences; empty if the model knows no item of it.

        explains: whether rows have reasons.
        """
        if not self.knows(user):
            return []
        rows = self.recommender.recommend(user)
        return self.recommender.explained(user, rows) if rows and explains else rows

    def knows(self, user: pa.RecordBatch) -> bool:
        """Return whether the model knows an item of a history."""
        return bool(self.recommender.knows([str(item) for item in user["item_ids"][0].as_py()]).any())

    def _rows(self, user: Any) -> list[Recommendation]:
        assert self.files.recs is not None  # noqa: S101 - asked for nights only
        try:
            with connect() as con:
                values = {"recs": literal(self.files.recs), "user": str(user), "k": self.top_k}
                found = select(con, "explorer/list_of_user", **values).fetchall()
        except duckdb.Error as error:
            raise InputError(f"{self.files.recs}: cannot be read: {one_line(error)}") from error
        items = self.recommender.named([str(item) for _, item, _, _ in found])
        return [
            Recommendation(rank, item.item_id, item.title, score, source)
            for (rank, _, score, source), item in zip(found, items, strict=True)
        ]


def open_view(files: ViewFiles, config: ExploreConfig) -> View:
    """Open the model of a view. Raises as `open_recommender` does."""
    return View(files, open_recommender(files.model, config, config.top_k), config.top_k)


def changed(user: pa.RecordBatch, state: State) -> pa.RecordBatch:
    """Return a row of sequences without the items that are left out, and with an event for each that was added.

    The events are at the time of the newest one. Items whose id cannot be of the type of the column are left out.
    """
    (history,) = user.to_pylist()
    added = as_ids(pa.array(state.added, pa.string()), user.schema.field("item_ids").type.value_type).drop_null()
    newest = max(history["timestamps"], default=0)
    new = {"item_ids": added.to_pylist(), "timestamps": [newest] * len(added)}
    new |= {name: [value] * len(added) for name, value in _EVENT.items()}
    without = set(state.without)
    kept = [place for place, item in enumerate(history["item_ids"]) if str(item) not in without]
    for name in OF_EVENTS & history.keys():
        history[name] = [*(history[name][place] for place in kept), *new[name]]
    return pa.RecordBatch.from_pylist([history], schema=user.schema)
