"""A query of the user as a source: one SELECT, and before it statements that attach, load or set what it reads."""

from datetime import date
from pathlib import Path

import duckdb

from batchrec.errors import ConfigError, InputError
from batchrec.queries import select, use_settings
from batchrec.sources.opening import Source, check_types

_SELECT = duckdb.StatementType.SELECT
_ATTACH = duckdb.StatementType.ATTACH
# None of them can write a file or a row of an attached database that is read-only.
_BEFORE = {
    _ATTACH,
    duckdb.StatementType.LOAD,
    duckdb.StatementType.SET,
    duckdb.StatementType.VARIABLE_SET,
    duckdb.StatementType.CREATE,
}


def is_query(file: str) -> bool:
    """Tell whether a file holds a query, by its name."""
    return file.lower().endswith(".sql")


def open_query(
    con: duckdb.DuckDBPyConnection, file: Path, wanted: dict[str, str], run_date: date | None = None
) -> Source:
    """Open the rows of the SELECT that a file ends with as a view, once the statements before it have run.

    wanted: column name -> the option that names it. run_date: what getvariable('run_date') returns in the query.
    Raises ConfigError for a file that holds other statements, or a query without each wanted column; InputError for a
    column that holds lists or bytes.
    """
    try:
        statements = con.extract_statements(file.read_text(encoding="utf-8-sig"))
        if [statement.type for statement in statements[-1:]] != [_SELECT]:
            raise ConfigError(f"{file}: holds {len(statements)} statements; expected one SELECT, at the end")
        con.execute("set variable run_date = cast($run_date as date)", {"run_date": run_date})
        for statement in statements[:-1]:
            _run_before(con, statement, file)
        use_settings(con)
        # As text, for a relation takes no comment after the semicolon; it is the one SELECT that was just checked.
        con.execute(f"create view query as {statements[-1].query}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except duckdb.ProgrammingError as error:
        raise ConfigError(f"{file}: {error}") from error
    found = {name.lower(): name for name in con.view("query").columns}
    found |= {name: found[name.lower()] for name in wanted if name.lower() in found}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ConfigError(
            f"{file}: the query has no column {missing[0]!r}; found {', '.join(con.view('query').columns)}"
        )
    relation = select(con, "read_query", query_file=str(file))
    types = dict(zip(relation.columns, (str(found.id) for found in relation.types), strict=True))
    relation.create_view("source_query")
    source = Source("source_query", found, types)
    try:
        check_types(source, wanted)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return source


def _run_before(con: duckdb.DuckDBPyConnection, statement: duckdb.Statement, file: Path) -> None:
    """Run a statement before the SELECT; a database is attached to be read only."""
    if statement.type not in _BEFORE:
        name = statement.type.name
        raise ConfigError(
            f"{file}: holds several statements, one of them {name}, before the last; expected one SELECT, and before "
            "it nothing but ATTACH, LOAD, SET and CREATE, which change no data"
        )
    text = statement.query.strip().rstrip(";").rstrip()
    if statement.type == _ATTACH and "read_only" not in text.lower():
        text = f"{text[:-1]}, READ_ONLY)" if text.endswith(")") else f"{text} (READ_ONLY)"
    con.execute(text)
    writable = select(con, "writable_databases").fetchall()
    if writable:
        raise ConfigError(f"{file}: database {writable[0][0]!r} is attached to be written to. Attach it as (READ_ONLY)")
