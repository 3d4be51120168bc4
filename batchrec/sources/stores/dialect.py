"""The SQL that reads a table: how databases spell names and times, and what ?table= and ?query= select from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from batchrec.errors import ConfigError
from batchrec.sources.stores.table_source import Since
from batchrec.system.urls import Url

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")


@dataclass(frozen=True)
class Dialect:
    """The spelling of a database.

    quote: the character around names. zoned, naive: a time with or without a zone. folds_tables: whether simple names
    in ?table= are written without quotes, so that the database changes their case to its own.
    """

    quote: str = '"'
    zoned: str = "timestamp with time zone '{}'"
    naive: str = "timestamp '{}'"
    folds_tables: bool = False

    def name(self, name: str) -> str:
        """Return a name of a column in quotes."""
        return f"{self.quote}{name.replace(self.quote, self.quote * 2)}{self.quote}"

    def rows_of(self, url: Url) -> str:
        """Return what ?table= or ?query= selects from. Raises ConfigError if the URL does not have exactly one."""
        url.check_parameters({"table", "query"})
        table, query = url.parameters.get("table", ""), url.parameters.get("query", "")
        if bool(table) == bool(query):
            raise ConfigError(f"{url}: expected ?table=schema.name, or ?query= with one SELECT")
        if query:
            # On lines of its own, because it may end with a comment.
            return f"(\n{query.strip().rstrip(';')}\n) as batchrec_rows"
        is_plain = [self.folds_tables and _PLAIN_NAME.fullmatch(part) is not None for part in table.split(".")]
        parts = zip(table.split("."), is_plain, strict=True)
        return ".".join(part if plain else self.name(part) for part, plain in parts)

    def select(self, rows: str, expressions: Sequence[str], schema: pa.Schema, since: Since | None) -> str:
        """Return the SELECT of expressions over the rows, with the bound as its condition if there is one."""
        condition = "" if since is None else self._condition(schema.field(since.column), since.start)
        return f"select {', '.join(expressions)} from {rows}{condition}"  # noqa: S608 - every name is in quotes

    def select_nothing(self, rows: str) -> str:
        """Return a SELECT that has the columns of the rows, and no row."""
        return f"select * from {rows} where false limit 0"  # noqa: S608

    def _condition(self, column: pa.Field, start: datetime) -> str:
        utc = start.astimezone(UTC)
        if pa.types.is_timestamp(column.type) and column.type.tz:
            bound = self.zoned.format(utc.isoformat(" "))
        elif pa.types.is_timestamp(column.type):
            bound = self.naive.format(utc.replace(tzinfo=None).isoformat(" "))
        elif pa.types.is_date(column.type):
            bound = f"date '{utc.date()}'"
        else:
            # A number or a text: only the reader of the log knows which time it means.
            return ""
        name = self.name(column.name)
        return f" where {name} >= {bound} or {name} is null"
