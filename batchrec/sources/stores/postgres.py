"""Tables of Postgres: postgresql://host/db?table=schema.name, or ?query=; credentials as for psql."""

import logging
import time
from typing import Any

import pyarrow as pa

from batchrec.sources.stores.adbc import AdbcSource
from batchrec.system.urls import Url, connection_uri

_log = logging.getLogger(__name__)

# Seconds before each further attempt to connect.
_DELAYS_S = (1, 3)
# A server that refuses a connection says FATAL. Only a server that is still starting is asked again.
_REFUSED, _STARTING = "FATAL:", "starting up"


class PostgresSource(AdbcSource):
    """A table, view or query of Postgres, read within one transaction that cannot write."""

    extra = "postgres"

    @classmethod
    def connect(cls, url: Url) -> Any:
        """Connect, and try again if no server answers."""
        from adbc_driver_manager import OperationalError
        from adbc_driver_postgresql import dbapi

        for delay_s in (*_DELAYS_S, None):
            try:
                connection = dbapi.connect(connection_uri(url))
                break
            except OperationalError as error:
                is_refused = _REFUSED in str(error) and _STARTING not in str(error)
                if is_refused or delay_s is None:
                    raise
                _log.warning("%s: cannot be reached, trying again in %d s", url, delay_s)
                time.sleep(delay_s)
        with connection.cursor() as cursor:
            cursor.execute("set transaction isolation level repeatable read, read only")
        return connection

    def expression(self, column: pa.Field) -> str:
        """Select types that the driver does not know as text, and infinite times as nulls: it returns them as dates."""
        name = self.dialect.name(column.name)
        if isinstance(column.type, pa.OpaqueType) and pa.types.is_binary(column.type.storage_type):
            return f"cast({name} as text) as {name}"
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            return f"case when isfinite({name}) then {name} end as {name}"
        return name
