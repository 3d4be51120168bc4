"""Tables of Snowflake: snowflake://account/db?table=schema.name, or ?query=.

Credentials are in SNOWFLAKE_USER and SNOWFLAKE_PASSWORD, or SNOWFLAKE_PRIVATE_KEY_PATH.
"""

import os
from typing import Any

from batchrec.errors import ConfigError
from batchrec.sources.stores.adbc import AdbcSource
from batchrec.sources.stores.dialect import Dialect
from batchrec.system.urls import Url

_VARIABLES = {
    "SNOWFLAKE_USER": "username",
    "SNOWFLAKE_PASSWORD": "password",
    "SNOWFLAKE_PRIVATE_KEY_PATH": "adbc.snowflake.sql.client_option.jwt_private_key",
    "SNOWFLAKE_ROLE": "adbc.snowflake.sql.role",
    "SNOWFLAKE_WAREHOUSE": "adbc.snowflake.sql.warehouse",
}


class SnowflakeSource(AdbcSource):
    """A table, view or query of Snowflake."""

    extra = "snowflake"
    dialect = Dialect(zoned="to_timestamp_tz('{}')", naive="to_timestamp_ntz('{}')", folds_tables=True)

    @classmethod
    def connect(cls, url: Url) -> Any:
        """Connect to the account and the database that the URL names."""
        from adbc_driver_snowflake import dbapi

        return dbapi.connect(db_kwargs=connection_options(url), autocommit=True)


def connection_options(url: Url) -> dict[str, str]:
    """Return the options of the driver: from the URL, and from the variables that Snowflake's own programs read."""
    account, _, database = url.path.strip("/").partition("/")
    if not account or not database:
        raise ConfigError(f"{url}: expected snowflake://account/db?table=schema.name")
    options = {"adbc.snowflake.sql.account": account, "adbc.snowflake.sql.db": database}
    options |= {option: os.environ[name] for name, option in _VARIABLES.items() if os.environ.get(name)}
    if os.environ.get("SNOWFLAKE_PRIVATE_KEY_PATH"):
        options["adbc.snowflake.sql.auth_type"] = "auth_jwt"
    return options
