"""A query of the user as a source: one SELECT, and before it statements that attach, load or set what it reads."""

import re
from datetime import date
from pathlib import Path

import duckdb

from batchrec.errors import ConfigError, InputError
from batchrec.sources.opening import Source, check_types
from batchrec.system.signals import interrupted_by_signals
from batchrec.tables.queries import select, use_settings

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
            n = len(statements)
            raise ConfigError(f"{file}: holds {n} statements; expected one SELECT, as the last statement")
        _run(con, statements, file, run_date)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except duckdb.ProgrammingError as error:
        raise ConfigError(f"{file}: {error}") from error
    con.sql("from batchrec_query.main.result").create_view("query")
    found = {name.lower(): name for name in con.view("query").columns}
    found |= {name: found[name.lower()] for name in wanted if name.lower() in found}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ConfigError(
            f"{file}: the query has no column {missing[0]!r}; found {', '.join(con.view('query').columns)}"
        )
    relation = select(con, "sources/read_query", query_file=str(file))
    types = dict(zip(relation.columns, (str(found.id) for found in relation.types), strict=True))
    relation.create_view("source_query")
    source = Source("source_query", found, types)
    try:
        check_types(source, wanted)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return source


def _run(con: duckdb.DuckDBPyConnection, statements: list[duckdb.Statement], file: Path, run_date: date | None) -> None:
    """Run the statements of a query, and keep its rows: once, for a second run may yield others.

    They run in a catalog of their own and a connection of their own, so that no name, macro or setting of theirs means
    anything to batchrec's queries.
    """
    con.execute("attach ':memory:' as batchrec_query")
    with con.cursor() as user, interrupted_by_signals(user.interrupt):
        use_settings(user)
        user.execute("use batchrec_query")
        user.execute("set variable run_date = cast($run_date as date)", {"run_date": run_date})
        for statement in statements[:-1]:
            _run_before(user, statement, file)
        # As text, for a relation takes no comment after the semicolon; it is the one SELECT that was just checked.
        user.execute(f"create table batchrec_query.main.result as {statements[-1].query}")
    # Some settings are those of all connections.
    use_settings(con)


def _run_before(user: duckdb.DuckDBPyConnection, statement: duckdb.Statement, file: Path) -> None:
    """Run a statement before the SELECT; a database in a file is attached to be read only."""
    text = statement.query.strip().rstrip(";").rstrip()
    if statement.type not in _BEFORE or re.match(r"(?is)\s*create\b.*\bpersistent\b", text):
        name = statement.type.name
        raise ConfigError(
            f"{file}: holds several statements, one of them {name}, before the last; expected one SELECT, and before "
            "it nothing but ATTACH, LOAD, SET and CREATE, which change no data"
        )
    if statement.type == _ATTACH and "':memory:" not in text:
        options = re.search(r"\(([^()]*)\)$", text)
        if options is None:
            text = f"{text} (READ_ONLY)"
        elif not re.search(r"(?i)(^|,)\s*read_only\s*(true\s*)?(,|$)", options[1]):
            text = f"{text[:-1]}, READ_ONLY)"
    user.execute(text)
    writable = select(user, "sources/writable_databases").fetchall()
    if writable:
        raise ConfigError(f"{file}: database {writable[0][0]!r} is attached to be written to. Attach it as (READ_ONLY)")
