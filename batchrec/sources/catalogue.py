"""Columns of a catalogue by item: titles to show, and categories for the rules."""

import logging
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from batchrec.config import CatalogueConfig, RulesConfig
from batchrec.errors import InputError
from batchrec.sources.text_tables import TextTable, read_text_table
from batchrec.tables.ids import as_ids, without_blanks
from batchrec.tables.queries import connect, select

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ItemColumn:
    """One value per item: item_ids and values, both (items,) string; each item appears once."""

    item_ids: pa.Array
    values: pa.Array

    def values_of(self, item_ids: pa.Array) -> pa.Array:
        """Return the value of each item, in their order: (items,) string, null if an item has none."""
        return self.values.take(pc.index_in(without_blanks(item_ids.cast(pa.string())), value_set=self.item_ids))


class Catalogue(ItemColumn):
    """The titles of items."""

    @property
    def titles(self) -> pa.Array:
        """The titles, in the order of item_ids."""
        return self.values

    def warn_of_untitled(self, item_ids: pa.Array, titles: pa.Array, file: str | None) -> None:
        """Log a warning if less than half of the items of a model have a title, with an item of each side.

        titles: of the items, as values_of returns them.
        """
        if titles.null_count > len(item_ids) / 2:
            _log.warning(
                "--items %s: has titles for %d of %d items of the model; none for %r; items with titles look like %r",
                file,
                len(item_ids) - titles.null_count,
                len(item_ids),
                str(item_ids[pc.index(titles.is_null(), True).as_py()]),
                self.item_ids[0].as_py(),
            )


def read_catalogue(config: CatalogueConfig, id_type: pa.DataType, run_date: date | None = None) -> Catalogue | None:
    """Return the titles in `config.items`: CSV, Parquet or a .sql file; None if the option is not set.

    id_type: type of the model's item ids, int64 or string.
    Raises InputError if a file cannot be read, lacks a column or holds no title, ConfigError if a query fails.
    """
    if config.items is None:
        return None
    columns = {config.item_column: "--item-column", config.title_column: "--title-column"}
    table = read_text_table(config.items, "--items", columns, run_date=run_date)
    titles = _value_per_item(table, config.item_column, config.title_column, id_type)
    if len(titles.values) == 0:
        raise InputError(f"{config.items}: holds no titles")
    return Catalogue(titles.item_ids, titles.values)


def read_categories(config: RulesConfig, id_type: pa.DataType) -> ItemColumn | None:
    """Return the categories in `config.items`; None if no option asks for them.

    Words such as NULL are missing values here, as in the log. A title may be such a word.
    Raises InputError and ConfigError as `read_catalogue` does.
    """
    if config.items is None or config.category_column is None:
        return None
    columns = {config.item_column: "--item-column", config.category_column: "--category-column"}
    table = read_text_table(config.items, "--items", columns, run_date=config.night)
    table = table.without_null_words(config.category_column)
    categories = _value_per_item(table, config.item_column, config.category_column, id_type)
    if len(categories.values) == 0:
        raise InputError(f"{config.items}: holds no {config.category_column}")
    return categories


def _value_per_item(table: TextTable, item_column: str, value_column: str, id_type: pa.DataType) -> ItemColumn:
    text = table.written_ids(item_column)
    # A catalogue may hold codes next to integer ids. The items with codes are found by their titles.
    item_ids = pc.coalesce(as_ids(text, id_type).cast(pa.string()), as_ids(text, pa.string()))
    with connect() as con:
        con.from_arrow(pa.table({"item_id": item_ids, "value": table.rows[value_column]})).create_view("catalogue")
        rows = select(con, "sources/value_per_item").to_arrow_table()
    columns = rows.cast(pa.schema([("item_id", pa.string()), ("value", pa.string())]))
    return ItemColumn(columns["item_id"].combine_chunks(), columns["value"].combine_chunks())
