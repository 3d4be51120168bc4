"""Tables of BigQuery: bigquery://project?table=dataset.name, or ?query=; Google's application default credentials."""

from typing import Any

from batchrec.errors import ConfigError
from batchrec.sources.stores.adbc import AdbcSource
from batchrec.sources.stores.dialect import Dialect
from batchrec.system.urls import Url


class BigQuerySource(AdbcSource):
    """A table, view or query of BigQuery."""

    extra = "bigquery"
    dialect = Dialect(quote="`", zoned="timestamp '{}'", naive="datetime '{}'")

    @classmethod
    def connect(cls, url: Url) -> Any:
        """Connect to the project that the URL names, which also pays for the query."""
        from adbc_driver_bigquery import DatabaseOptions, dbapi

        project = url.path.strip("/")
        if not project:
            raise ConfigError(f"{url}: expected bigquery://project?table=dataset.name")
        # It has no transactions.
        return dbapi.connect(db_kwargs={DatabaseOptions.PROJECT_ID.value: project}, autocommit=True)
