"""Titles of the items that a page shows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batchrec.errors import BatchrecError
from batchrec.report_page.night_files import NightTables
from batchrec.sources.catalogue import Catalogue


@dataclass(frozen=True)
class Titles:
    """Titles by item id, as text. problem: why there are none; None if there are, or if no catalogue is known."""

    by_id: dict[str, str]
    problem: str | None = None

    def name(self, item_id: Any) -> str:
        """Return the title of an item, or its id if it has none."""
        return self.by_id.get(str(item_id)) or str(item_id)

    def names(self, item_ids: Iterable[Any]) -> str:
        """Return the names of items, one after the other."""
        return "; ".join(map(self.name, item_ids))


def read_titles(tables: NightTables, item_ids: Iterable[Any]) -> Titles:
    """Read the titles of items from the catalogue."""
    try:
        catalogue = tables.catalogue
    except (BatchrecError, OSError) as error:
        return Titles({}, str(error))
    return Titles({}) if catalogue is None else titles_in(catalogue, item_ids)


def titles_in(catalogue: Catalogue, item_ids: Iterable[Any]) -> Titles:
    """Return the titles of items in a catalogue."""
    ids = [str(item) for item in item_ids]
    titles = catalogue.values_of(pa.array(ids, pa.string())).to_pylist()
    return Titles({item: title for item, title in zip(ids, titles, strict=True) if title})
