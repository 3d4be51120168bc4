"""Which loaded events become part of a history: --min-rating, --min-item-events, --min-user-events and --repeats."""

import duckdb

from batchrec.config import SequencesConfig
from batchrec.sequences.events import LoadedEvents
from batchrec.tables.queries import select


class _HistoryEvents:
    """The view history_events. Each filter replaces the table behind it, so that only one copy is held."""

    def __init__(self, con: duckdb.DuckDBPyConnection, remember: bool) -> None:
        self._con, self._table = con, "loaded_events"
        select(con, "sequences/history_events", remember=remember).create_view("history_events")

    def n_kept(self) -> int:
        """Count the events that no filter has left out."""
        n_events: int = select(self._con, "sequences/kept_events").fetchall()[0][0]
        return n_events

    def apply(self, query: str, **values: object) -> int:
        """Replace the events by the result of a query over them. Return how many fewer are kept."""
        n_before, table = self.n_kept(), f"filtered_{self._table}"
        select(self._con, query, **values).create(table)
        self._con.table(table).create_view("history_events")
        self._con.execute(f"drop table {self._table}")
        self._table = table
        return n_before - self.n_kept()


def remembers_left_out(config: SequencesConfig) -> bool:
    """Return whether items of events that a filter leaves out still count as seen."""
    return config.seen == "all" and (config.min_rating is not None or config.min_item_events > 1)


def filter_events(con: duckdb.DuckDBPyConnection, loaded: LoadedEvents, config: SequencesConfig) -> dict[str, int]:
    """Make the view history_events out of the table loaded_events. Return how many events each filter left out."""
    remember = remembers_left_out(config)
    events = _HistoryEvents(con, remember)
    left_out = {"before --since": loaded.n_before_since, "below --min-rating": loaded.n_below_min_rating}
    if config.repeats != "all" and max(config.min_item_events, config.min_user_events) > 1:
        # Filters count events without repeats. Without filters, repeats are dropped as the histories are written.
        events.apply("sequences/folded_events", repeats=config.repeats)
    if config.min_item_events > 1:
        left_out["below --min-item-events"] = events.apply(
            "sequences/frequent", id_column="item_id", min_events=config.min_item_events, remember=remember
        )
    if config.min_user_events > 1:
        left_out["below --min-user-events"] = events.apply(
            "sequences/frequent", id_column="user_id", min_events=config.min_user_events, remember=False
        )
    return {reason: n_events for reason, n_events in left_out.items() if n_events}
