"""Tables of lakes, warehouses and databases as sources. A new kind of store is added to TABLE_SOURCES."""

from batchrec.sources.stores.bigquery import BigQuerySource
from batchrec.sources.stores.delta import DeltaSource
from batchrec.sources.stores.duckdb_file import DuckDBSource
from batchrec.sources.stores.iceberg import IcebergSource
from batchrec.sources.stores.postgres import PostgresSource
from batchrec.sources.stores.snowflake import SnowflakeSource
from batchrec.sources.stores.table_source import Since, TableSource

__all__ = ["TABLE_SOURCES", "Since", "TableSource"]

# Scheme of a URL -> the class that opens its table.
TABLE_SOURCES: dict[str, type[TableSource]] = {
    "bigquery": BigQuerySource,
    "delta": DeltaSource,
    "delta+az": DeltaSource,
    "delta+gs": DeltaSource,
    "delta+s3": DeltaSource,
    "duckdb": DuckDBSource,
    "iceberg": IcebergSource,
    "postgresql": PostgresSource,
    "snowflake": SnowflakeSource,
}
