"""The options of every job that shows titles."""

from dataclasses import dataclass

from batchrec.config.options import option


@dataclass(frozen=True)
class CatalogueConfig:
    """Where titles of items are found."""

    items: str | None = option(None, "Catalogue with a title for each item: CSV or Parquet; a file, folder or glob.")
    item_column: str = option("movieId", "Column of the item's id in the catalogue.")
    title_column: str = option("title", "Column of the item's title in the catalogue.")
