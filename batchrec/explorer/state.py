"""The state of the page, as it is in its address: a user or none, and the changes to the history."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode

from batchrec.errors import ConfigError

# Enough for any title, and for changes by hand. Longer requests would only keep the machine busy.
_MAX_TEXT = 500
_MAX_CHANGES = 100
_MORE = ("all", "why")


@dataclass(frozen=True)
class State:
    """A history: that of a user, None for an empty one, without some items and with others after it, all by id."""

    user: str | None = None
    without: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to recommend after."""
        return self.user is None and not self.added

    @property
    def is_changed(self) -> bool:
        """Whether the history is not the one of a user."""
        return self.user is None or bool(self.without or self.added)

    def adding(self, item: str) -> "State":
        """Return the state with one more item at its end."""
        return self if item in self.added else replace(self, added=(*self.added, item))

    def dropping(self, item: str) -> "State":
        """Return the state without an item that was added."""
        return replace(self, added=tuple(other for other in self.added if other != item))

    def leaving_out(self, item: str) -> "State":
        """Return the state without an item of the user's history."""
        return replace(self, without=(*self.without, item))

    def putting_back(self, item: str) -> "State":
        """Return the state with an item of the user's history that was left out."""
        return replace(self, without=tuple(other for other in self.without if other != item))

    def fields(self) -> list[tuple[str, str]]:
        """Return the state as names and values of a query."""
        user = [] if self.user is None else [("user", self.user)]
        return [*user, *(("without", item) for item in self.without), *(("item", item) for item in self.added)]


@dataclass(frozen=True)
class Asked:
    """A request. add: titles or ids as they were typed. was: the state before the last change, None without one.

    more: what is shown in spite of a long history: "all" of it, and "why".
    """

    state: State = State()
    add: tuple[str, ...] = ()
    was: State | None = None
    more: tuple[str, ...] = ()

    @classmethod
    def of(cls, query: str) -> "Asked":
        """Read the query of an address. Raises ConfigError for too long a text or too many changes."""
        values = _values(query)
        names = {name for name, _ in values}
        was = [value for name, value in values if name == "was"]
        return cls(
            _state(values),
            tuple(text for name, text in values if name == "add" and text.strip()),
            _state(_values(was[0])) if was else None,
            tuple(name for name in _MORE if name in names),
        )


def address(state: State, was: State | None = None, more: Iterable[str] = ()) -> str:
    """Return the address of a state; was and more as in a request."""
    fields = state.fields()
    if was is not None:
        fields.append(("was", urlencode(was.fields())))
    return f"/?{urlencode([*fields, *((name, '1') for name in sorted(more))])}"


def _values(query: str) -> list[tuple[str, str]]:
    """Return the names and values of a query, each text within its limits."""
    pairs = parse_qsl(query)
    if len(pairs) > _MAX_CHANGES:
        raise ConfigError(f"more than {_MAX_CHANGES} changes to the history. Start again with fewer")
    for name, value in pairs:
        if name != "was" and len(value) > _MAX_TEXT:
            raise ConfigError(f"{value[:40]}... has {len(value):,} characters; expected at most {_MAX_TEXT}")
    return pairs


def _state(values: list[tuple[str, str]]) -> State:
    users = [value.strip() for name, value in values if name == "user" and value.strip()]
    return State(
        users[0] if users else None,
        tuple(dict.fromkeys(value for name, value in values if name == "without")),
        tuple(dict.fromkeys(value for name, value in values if name == "item")),
    )
