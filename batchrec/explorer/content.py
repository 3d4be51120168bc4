"""The content of the page for a request: the history, and the list of each view with its moves."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice

import pyarrow as pa

from batchrec.errors import ConfigError
from batchrec.explorer.moves import Moves, moves
from batchrec.explorer.state import Asked, State, address
from batchrec.explorer.views import View, changed
from batchrec.scoring.recommender import NamedItem, Recommendation
from batchrec.tables.sequences_table import Sequences, find_user

# Events shown of a long history, and users named as examples.
_N_SHOWN = 10
_N_EXAMPLES = 5
# Items of a history up to which reasons are computed without being asked for: each item is a scoring of its own.
_N_EXPLAINED = 300
# Lists that are kept, so that a change computes only the new one.
_N_KEPT = 64
_BEFORE = "the list before the change"


@dataclass(frozen=True)
class Event:
    """An event of the history. on: its day. kind: how it came here. href: the address without it, or with it again.

    unknown_to: the labels of the views whose model does not know the item.
    """

    item: NamedItem
    on: str
    kind: str
    unknown_to: list[str]
    href: str


@dataclass(frozen=True)
class Column:
    """The list of a view. made: how the list was made. compared: with what it is, None if it is not."""

    label: str
    made: str
    rows: list[Recommendation]
    moves: Moves | None
    compared: str | None

    @property
    def gone(self) -> str:
        """The heading of the items that are not in the list."""
        return "Gone from the list" if self.compared == _BEFORE else f"Only in {self.compared}"


@dataclass(frozen=True)
class Page:
    """The whole page. n_older: events that are not shown. links: addresses by name. error: one line, None without.

    typed: what could not be added. n_items: of the history, if the reasons were not computed. more: as in the request.
    """

    state: State = field(default_factory=State)
    error: str | None = None
    events: tuple[Event, ...] = ()
    n_older: int = 0
    columns: tuple[Column, ...] = ()
    examples: tuple[str, ...] = ()
    links: dict[str, str] | None = None
    typed: str = ""
    n_items: int | None = None
    more: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """A sentence for those who do not see the lists move."""
        if self.error:
            return self.error
        moved = [f"{column.label}: {column.moves.summary}" for column in self.columns if column.moves]
        return ". ".join(moved or [f"{column.label}: {len(column.rows)} items" for column in self.columns])


class Explorer:
    """The histories that are open, None without any, and one or two views."""

    def __init__(self, views: list[View], sequences: Sequences | None) -> None:
        self.views, self._sequences = views, sequences
        self._list_of = lru_cache(_N_KEPT)(self._list)
        # A page needs the row several times, and it is searched for among all users.
        self._user = lru_cache(1)(self._find_user)
        self._examples = () if sequences is None else _first_users(sequences)

    def page(self, query: str) -> Page:
        """Return the page for the query of an address; what cannot be found is its error.

        Raises BatchrecError for files that cannot be read any more.
        """
        try:
            asked = Asked.of(query)
            if asked.was is not None:
                self._user(asked.was.user)
            user = self._user(asked.state.user)
        except ConfigError as error:
            return Page(error=str(error), examples=self._examples)
        problem = None
        try:
            state = asked.state
            for text in asked.add:
                state = state.adding(self.views[0].recommender.find(text.strip()))
            if asked.add:
                asked = replace(asked, state=state, was=asked.was or asked.state)
        except ConfigError as error:
            problem, asked = str(error), replace(asked, was=None)
        typed = " ".join(asked.add) if problem else ""
        if asked.state.is_empty:
            return Page(error=problem, examples=self._examples, typed=typed)
        return replace(self._filled(asked, user), error=problem, typed=typed)

    def _filled(self, asked: Asked, user: pa.RecordBatch | None) -> Page:
        state = asked.state
        events = self._events(asked, user)
        n_shown = len(events) if "all" in asked.more else _N_SHOWN
        n_items = len({event.item for event in events})
        explains = "why" in asked.more or n_items <= _N_EXPLAINED
        links = {
            "here": address(state, asked.was, asked.more),
            "all": address(state, asked.was, {*asked.more, "all"}),
            "why": address(state, asked.was, {*asked.more, "why"}),
            "first": address(State(state.user)),
        }
        return Page(
            state,
            events=tuple(events[:n_shown]),
            n_older=max(0, len(events) - n_shown),
            columns=tuple(self._column(number, asked, explains) for number in range(len(self.views))),
            examples=self._examples,
            links=links,
            n_items=None if explains else n_items,
            more=asked.more,
        )

    def _column(self, number: int, asked: Asked, explains: bool) -> Column:
        view, state, was = self.views[number], asked.state, asked.was
        shows_table = self._shows_table(number, state)
        rows = self._list_of(number, state, shows_table, explains)
        made = "As published." if shows_table else "By the model, without rules."
        if shows_table and not view.files.fits_histories:
            made += " Its histories are not kept, so its reasons are not known."
        if not rows:
            made = self._why_empty(view, state, shows_table)
        # A change is compared with the model's own list: the published one has rules.
        if was is not None and not was.is_empty and was != state and not shows_table:
            before, compared = self._list_of(number, was, False, False), _BEFORE
        elif number > 0:
            before = self._list_of(0, state, self._shows_table(0, state), False)
            compared = self.views[0].files.label
        else:
            return Column(view.files.label, made, rows, None, None)
        return Column(view.files.label, made, rows, moves(before, rows), compared)

    def _shows_table(self, number: int, state: State) -> bool:
        return self.views[number].files.recs is not None and not state.is_changed

    def _why_empty(self, view: View, state: State, shows_table: bool) -> str:
        if shows_table:
            return "The table has no list for this user."
        if not view.knows(self._row(view, state)):
            return "The model knows no item of this history. In a table such users get popular items."
        return "No item is left to recommend."

    def _list(self, number: int, state: State, from_table: bool, explains: bool) -> list[Recommendation]:
        view = self.views[number]
        row = self._row(view, state)
        return view.published(row, explains) if from_table else view.listed(row, explains)

    def _row(self, view: View, state: State) -> pa.RecordBatch:
        user = self._user(state.user)
        return changed(view.recommender.history_of([]) if user is None else user, state)

    def _find_user(self, user: str | None) -> pa.RecordBatch | None:
        """Return a row of sequences, None without a user. Raises ConfigError for a user who is missing."""
        if user is None:
            return None
        if self._sequences is None:
            raise ConfigError("no histories are open. Pass --sequences FILE to batchrec explore")
        row = find_user(self._sequences, user)
        if row is None:
            raise ConfigError(f"there is no user {user!r} in the histories, {self._sequences.path}")
        return row

    def _events(self, asked: Asked, user: pa.RecordBatch | None) -> list[Event]:
        """Return the events, newest first: what was added, then the history of the user with what is left out."""
        state = asked.state
        shown: list[tuple[str, str, str, State]] = [
            (item, "", "added", state.dropping(item)) for item in reversed(state.added)
        ]
        if user is not None:
            items, times = user["item_ids"][0].as_py(), user["timestamps"][0].as_py()
            for item, time in zip(map(str, reversed(items)), reversed(times), strict=True):
                is_out = item in state.without
                changes = state.putting_back(item) if is_out else state.leaving_out(item)
                shown.append((item, _day(time), "left out" if is_out else "", changes))
        ids = [item for item, *_ in shown]
        named = self.views[0].recommender.named(ids)
        known = [(view.files.label, view.recommender.knows(ids)) for view in self.views]
        return [
            Event(
                item,
                on,
                kind,
                [label for label, is_known in known if not is_known[place]],
                address(changes, state, asked.more),
            )
            for place, (item, (_, on, kind, changes)) in enumerate(zip(named, shown, strict=True))
        ]


def _first_users(sequences: Sequences) -> tuple[str, ...]:
    users = islice(sequences.batches(_N_EXAMPLES), 1)
    return tuple(str(user) for batch in users for user in batch["user_id"].to_pylist())


def _day(time: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return ""
