"""Cold start: users whose history has no item of the model get recent popular items, of all users and their segment.

The items are counted here. Each user's list is made of them in scoring/popular_lists.py.
"""

from collections import Counter
from pathlib import Path
from threading import Lock
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.config import ScoringConfig
from batchrec.errors import InputError
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.pools import RecLists
from batchrec.rules.rulebook import Rulebook
from batchrec.scoring.empty_lists import emptied_by
from batchrec.scoring.popular_lists import Order, PopularLists
from batchrec.tables.ids import BLANKS, as_ids
from batchrec.tables.log_end import ahead_from, log_end
from batchrec.tables.queries import connect, literal, materialize, select
from batchrec.tables.schemas import BY_ALL_TIME, BY_RECENT, BY_SEGMENT, FIRST_ITEM


class PopularItems:
    """The popular items of the sequences, counted only if a cold user needs them, since that scans the file."""

    def __init__(
        self,
        sequences: Path | None,
        config: ScoringConfig,
        rulebook: Rulebook,
        vocabulary: Vocabulary,
    ) -> None:
        """Read nothing yet. Without sequences, only the popularity of all time is used: the vocabulary has it."""
        self._sequences, self._config, self._rulebook, self._vocabulary = sequences, config, rulebook, vocabulary
        self.segments = rulebook.segments
        self._opening = Lock()
        self._opened: PopularLists | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle: with the lists, because the worker may not have the sequences."""
        self.open()
        return {name: value for name, value in vars(self).items() if name != "_opening"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._opening = Lock()

    def open(self) -> PopularLists:
        """Return the popular lists, counted the first time. Raises InputError if the sequences cannot be read."""
        with self._opening:
            if self._opened is None:
                self._opened = self._count()
            return self._opened

    def lists(self, users: pa.RecordBatch) -> RecLists:
        """Return the lists of users, over the vocabulary of `open`; users: a sequences batch."""
        segments = np.full(len(users), -1) if self.segments is None else self.segments.of(users["user_id"])
        return self.open().lists(users, segments, self._config.top_k, self._config.seen_from)

    def emptied_by(self, users: pa.RecordBatch) -> Counter[str]:
        """Count users without a list by the rule that left them nothing; users: a sequences batch."""
        if len(users) == 0:
            return Counter()
        popular = self.open()
        return emptied_by(popular.rules, popular.limits(users, self._config.seen_from), np.arange(len(users)))

    def _count(self) -> PopularLists:
        recent = self._recent_items()
        segments = recent["segment"]
        of_all_users = recent.filter(segments.is_null())
        vocabulary = self._vocabulary.extended(of_all_users["item_id"].combine_chunks())
        rules = self._rulebook.compile(vocabulary)
        trained_on = np.flatnonzero(vocabulary.n_events)
        of_model = (FIRST_ITEM + trained_on).astype(np.int32)
        all_time = Order.of(of_model, vocabulary.popularity[trained_on], BY_ALL_TIME, rules)

        def order_of(counted: pa.Table, source: int) -> Order:
            items = vocabulary.indexes(counted["item_id"].combine_chunks())
            return Order.of(items, counted["popularity"].to_numpy(), source, rules)

        return PopularLists(
            vocabulary,
            rules,
            order_of(of_all_users, BY_RECENT).then(all_time),
            {
                number: order_of(recent.filter(pc.equal(segments, number)), BY_SEGMENT)
                for number in pc.unique(segments).drop_null().to_pylist()
            },
        )

    def _recent_items(self) -> pa.Table:
        """Sum the weights of the events of items in the last days, of all users (segment is null) and by segment.

        Columns: segment, item_id and popularity. Leave out items whose ids cannot be of the model's type.
        """
        id_type = self._vocabulary.item_ids.type
        schema = pa.schema([("segment", pa.int64()), ("item_id", id_type), ("popularity", pa.float64())])
        if self._sequences is None:
            return schema.empty_table()
        segments = pa.table({"user_id": [], "segment": []})
        if self.segments is not None:
            segments = pa.table({"user_id": self.segments.user_ids, "segment": self.segments.numbers})
        try:
            with connect() as con:
                con.register("given_segments", segments)
                path, days = literal(self._sequences), self._config.popular_days
                materialize(con, "scoring/segments", path=path, blanks=BLANKS)
                ahead = ahead_from(None if self._config.run_date is None else self._config.night)
                until = log_end(con, self._sequences, ahead)
                counted = select(con, "scoring/recent_items", path=path, days=days, until=until).to_arrow_table()
        except duckdb.Error as error:
            raise InputError(f"{self._sequences}: {error}") from error
        item_ids = counted["item_id"].combine_chunks()
        if item_ids.type != id_type:
            item_ids = as_ids(item_ids.cast(pa.string()), id_type)
        place = counted.schema.get_field_index("item_id")
        return counted.set_column(place, "item_id", item_ids).filter(item_ids.is_valid()).cast(schema)
