"""Titles of items, and items by their titles."""

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from batchrec.config import CatalogueConfig
from batchrec.errors import ConfigError, InputError
from batchrec.sources.text_tables import read_text_table
from batchrec.tables.ids import as_ids, without_blanks
from batchrec.tables.queries import connect, select

_ARTICLES = "the|a|an|le|la|les|il|lo|gli|el|los|las|der|die|das|un|une|ein|eine"


@dataclass(frozen=True)
class Catalogue:
    """Titles by item: item_ids and titles, both (items,) string, an item once."""

    item_ids: pa.Array
    titles: pa.Array

    def titles_of(self, item_ids: pa.Array) -> pa.Array:
        """Return the title of each item, in their order: (items,) string, null if it has none."""
        return self.titles.take(pc.index_in(without_blanks(item_ids.cast(pa.string())), value_set=self.item_ids))

    def title_of(self, item_id: str) -> str:
        """Give the title of one item, empty where there is none."""
        place = pc.index(self.item_ids, item_id).as_py()
        return self.titles[place].as_py() if place >= 0 else ""


def read_catalogue(config: CatalogueConfig, id_type: pa.DataType, run_date: date | None = None) -> Catalogue | None:
    """Read the titles of `config.items`: CSV, Parquet or a .sql file; None if it is not given.

    Raises InputError for files that cannot be read or do not hold the columns, ConfigError for a query that does not
    run.
    """
    if config.items is None:
        return None
    named = (config.title_column, "--title-column")
    return read_column(config.items, config.item_column, named, id_type, run_date)


def read_column(
    items: str, item_column: str, named: tuple[str, str], id_type: pa.DataType, run_date: date | None = None
) -> Catalogue:
    """Read any column of a catalogue as its titles; named: the column, and the option that names it.

    id_type: of the model's items, int64 or string.
    Raises InputError and ConfigError as `read_catalogue` does.
    """
    wanted = {item_column: "--item-column", named[0]: named[1]}
    rows = read_text_table(items, "--items", wanted, (), run_date)
    text = rows[item_column].combine_chunks()
    # A catalogue of integers may hold other codes too, which are found by their titles.
    item_ids = pc.coalesce(as_ids(text, id_type).cast(pa.string()), as_ids(text, pa.string()))
    values = rows[named[0]]
    # A film may be called Null; a category is none then, as in the log.
    if named[1] == "--category-column":
        values = as_ids(values.combine_chunks(), pa.string())
    found = pa.table({"item_id": item_ids, "title": values})
    with connect() as con:
        con.from_arrow(found).create_view("catalogue")
        titles = select(con, "sources/titles").to_arrow_table()
    named_items = titles.cast(pa.schema([("item_id", pa.string()), ("title", pa.string())])).combine_chunks()
    if len(named_items) == 0:
        raise InputError(f"{items}: holds no {'titles' if named[1] == '--title-column' else named[0]}")
    return Catalogue(named_items["item_id"].chunk(0), named_items["title"].chunk(0))


def find_item(wanted: str, catalogue: Catalogue) -> str:
    """Find the id of the item that a person means by a title or an id.

    Titles match without case, year, "a.k.a." part, punctuation and article; failing that by words within them.
    Raises ConfigError for what matches no title or several, with the nearest titles.
    """
    titles = catalogue.titles.to_pylist()
    query, year = _name(wanted), _year(wanted)
    names = [set(_names(title)) for title in titles]
    same_year = [number for number, title in enumerate(titles) if year in (None, _year(title))]
    matches = [number for number in same_year if query and query in names[number]]
    if not matches:
        known = pc.index(catalogue.item_ids, wanted).as_py()
        if known >= 0:
            return wanted
        matches = [n for n in same_year if query and any(f" {query} " in f" {name} " for name in names[n])]
    if len(matches) == 1:
        return str(catalogue.item_ids[matches[0]].as_py())
    if matches:
        found = ", ".join(f"{titles[number]!r} (id {catalogue.item_ids[number]})" for number in matches[:10])
        raise ConfigError(f"{wanted!r} is ambiguous: {found}. Add the year, or pass the item's id")
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for title, all_names in zip(titles, names, strict=True):
        for name in all_names:
            owners[name].append(repr(title))
    close = difflib.get_close_matches(query, owners, n=5, cutoff=0.5)
    # Several films have one name, and a film several.
    nearest = list(dict.fromkeys(title for name in close for title in owners[name]))[:10]
    raise ConfigError(f"{wanted!r} is no title or id of the catalogue; nearest: {', '.join(nearest) or 'none'}")


def _names(title: str) -> Iterator[str]:
    """Give the names a title goes by: what stands outside parentheses, and each thing within them but the year."""
    yield _name(re.sub(r"\([^()]*\)", " ", title))
    for other in re.findall(r"\(([^()]*)\)", title):
        if not re.fullmatch(r"\s*\d{4}\s*", other):
            yield _name(re.sub(r"^\s*a\.?k\.?a\.?\s", "", other, flags=re.IGNORECASE))


def _name(text: str) -> str:
    """Reduce a name to lower-case words without accents, year, and article at its start or moved to its end."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    plain = re.sub(r"\(\s*\d{4}\s*\)\s*$", "", plain).strip()
    plain = re.sub(rf",\s*({_ARTICLES}|l')$", "", plain)
    words = re.sub(r"[^\w]+", " ", re.sub("['‘’]", "", plain)).strip()
    return re.sub(rf"^({_ARTICLES})\s(?=.)", "", words)


def _year(text: str) -> str | None:
    found = re.search(r"\(\s*(\d{4})\s*\)\s*$", text)
    return found.group(1) if found else None
