"""The page of explore over the tiny models, and a reader of it."""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from batchrec.config import ExploreConfig
from batchrec.explorer.content import Explorer
from batchrec.explorer.views import ViewFiles, open_view
from batchrec.nightly.night_views import histories_of, night_views
from batchrec.tables.sequences_table import open_sequences
from tests.support.models import N_ITEMS, model_of, training_sequences
from tests.support.night_pages import two_nights
from tests.support.nights import Company, night
from tests.support.shared import made_once

BAD_TITLE = '<script>document.title = "broken"</script> & "more"'
# The title of an item, and those of two that share their name.
LONG_TITLE = "A very long title of very long words: " + "Donaudampfschifffahrtsgesellschaft" * 9


def titles() -> Path:
    """Return a catalogue: Film 0, Film 1 and so on; two films of one name; a long title; one that is markup."""

    def make(file: Path) -> None:
        names = {1000 + number: f"Film {number}, The" for number in range(N_ITEMS)}
        names |= {1030: "Twins (1988)", 1031: "Twins (2008)", 1032: LONG_TITLE, 1033: BAD_TITLE}
        rows = [f'{item},"{name.replace(chr(34), 2 * chr(34))}"' for item, name in names.items()]
        file.write_text("\n".join(["movieId,title", *rows]), encoding="utf-8")

    return made_once("explored-titles.csv", make)


def of_models(*models: Path, sequences: Path | None = None, **options: Any) -> Explorer:
    """Open models by the names of their folders, and histories; options: of explore."""
    config = ExploreConfig(**options)
    views = [open_view(ViewFiles(model.name, model), config) for model in models]
    return Explorer(views, open_sequences(sequences or training_sequences()))


@cache
def two_models() -> Explorer:
    return of_models(model_of("causal"), model_of("masked"), items=str(titles()))


@cache
def one_model() -> Explorer:
    return of_models(model_of("causal"), items=str(titles()))


@cache
def explored_nights() -> Explorer:
    """Open the two nights of `two_nights`."""
    shop = Company(two_nights())
    histories = histories_of(shop.archive)
    assert histories is not None
    files = night_views(shop.archive, shop.registry, [night(0), night(1)], histories)
    config = ExploreConfig(top_k=5, items=str(titles()))
    return Explorer([open_view(one, config) for one in files], open_sequences(histories))


@dataclass
class Row:
    """A row as a reader sees it: texts by the class of their element."""

    key: str
    texts: dict[str, str] = field(default_factory=lambda: defaultdict(str))
    links: list[str] = field(default_factory=list)

    @property
    def item(self) -> int | str:
        name = self.key.split()[-1]
        return int(name) if name.isdecimal() else name

    @property
    def move(self) -> str:
        return " ".join("".join(text for name, text in self.texts.items() if name.startswith("move")).split())


class Shown(HTMLParser):
    """The page as a reader sees it. lists: the rows by view; gone: titles by view; events: the history."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.lists: list[list[Row]] = []
        self.gone: list[list[str]] = []
        self.events: list[Row] = []
        self.texts: dict[str, str] = defaultdict(str)
        self.links: list[str] = []
        self._open: list[tuple[str, str]] = []
        self._row: Row | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in {"meta", "link", "input"}:
            return
        self._open.append((tag, values.get("class") or values.get("id") or ""))
        names = [name for _, name in self._open]
        if tag == "section" and names[-1] == "list":
            self.lists.append([])
            self.gone.append([])
        if tag == "li" and "because" not in names:
            self._row = Row(values.get("data-row", ""))
            if "rows" in names:
                self.lists[-1].append(self._row)
            elif "events" in names:
                self.events.append(self._row)
        if tag == "a":
            (self.links if self._row is None else self._row.links).append(values["href"])

    def handle_data(self, data: str) -> None:
        names = [name for _, name in self._open if name]
        name = names[-1] if names else ""
        self.texts[name] += data
        if self._row is not None:
            place = "because" if "because" in names else name
            self._row.texts[place] += data
        if "gone" in names and name == "what":
            self.gone[-1].append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            continue
        if tag == "li" and not any(name == "because" for _, name in self._open):
            self._row = None

    @property
    def items(self) -> list[list[int | str]]:
        """The items of each list."""
        return [[row.item for row in rows] for rows in self.lists]
