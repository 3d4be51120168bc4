"""The options of every job that shows titles."""

from dataclasses import dataclass

from batchrec.config.options import check_values, option


@dataclass(frozen=True)
class CatalogueConfig:
    """Where the titles of items are read from."""

    items: str | None = option(
        None, "Catalogue with a title for each item: files of CSV, JSON lines or Parquet, or the URL of a table."
    )
    item_column: str = option("movieId", "Item id column of the catalogue.")
    title_column: str = option("title", "Title column of the catalogue.")

    def __post_init__(self) -> None:
        check_values(self)
