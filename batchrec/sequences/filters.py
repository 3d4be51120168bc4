"""Which loaded events become part of a history: --min-rating, --min-item-events, --min-user-events and --repeats."""

from collections import Counter

import duckdb
import pyarrow as pa

from batchrec.config import SequencesConfig
from batchrec.tables.queries import materialize, select, table_of


class HistoryEvents:
    """The view history_events. Each filter replaces the table behind it, so that only one copy is held."""

    def __init__(self, con: duckdb.DuckDBPyConnection, config: SequencesConfig, table: str) -> None:
        """Take the view as it is over a table, which is dropped by the first filter."""
        self._con, self._config, self._table = con, config, table

    def n_kept(self) -> int:
        """Count the events that no filter has left out."""
        n_events: int = select(self._con, "sequences/kept_events").fetchall()[0][0]
        return n_events

    def fold(self) -> None:
        """Drop repeats if a filter counts events: filters count them without repeats.

        Without filters, repeats are dropped as the histories are written.
        """
        config = self._config
        if config.repeats != "all" and max(config.min_item_events, config.min_user_events) > 1:
            folded = "sequences/folded_weighed_events" if config.weighs_events else "sequences/folded_events"
            self._apply(folded, repeats=config.repeats)

    def filter(self, item_counts: pa.Table | None = None) -> Counter[str]:
        """Leave out rare items, then users with few events. Return how many events each filter left out.

        item_counts: item_id and n_events of all histories, if these are only a part of them.
        """
        config, left_out = self._config, Counter[str]()
        if config.min_item_events > 1:
            if item_counts is None:
                select(self._con, "sequences/item_counts").create_view("item_counts")
            else:
                self._con.from_arrow(item_counts).create_view("item_counts")
            left_out["below --min-item-events"] = self._apply(
                "sequences/frequent_items",
                min_item_events=config.min_item_events,
                remember=remembers_left_out(config),
            )
        if config.min_user_events > 1:
            left_out["below --min-user-events"] = self._apply(
                "sequences/frequent_users", min_user_events=config.min_user_events
            )
        return left_out

    def _apply(self, query: str, **values: object) -> int:
        """Replace the events by the result of a query over them. Return how many fewer are kept."""
        n_before = self.n_kept()
        materialize(self._con, query, **values)
        self._con.table(table_of(query)).create_view("history_events")
        self._con.execute(f"drop table {self._table}")
        self._table = table_of(query)
        return n_before - self.n_kept()


def remembers_left_out(config: SequencesConfig) -> bool:
    """Return whether events that are left out are kept, because their items still count as seen, or are disliked."""
    filters_items = config.min_rating is not None or config.min_item_events > 1
    return config.weighs_events or (config.seen == "all" and filters_items)
