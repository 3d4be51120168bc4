"""A query of the user as a source: one SELECT, after statements that attach, load or set what it reads."""

import re
from datetime import date
from pathlib import Path

import duckdb

from batchrec.errors import ConfigError, InputError
from batchrec.sources.opening import check_types
from batchrec.sources.source import Source, types_in
from batchrec.system.signals import interrupted_by_signals
from batchrec.tables.queries import select, use_settings

_SELECT = duckdb.StatementType.SELECT
_ATTACH = duckdb.StatementType.ATTACH
# None of these can write a file, or a row of a database that is attached read-only.
_ALLOWED_BEFORE = {
    _ATTACH,
    duckdb.StatementType.LOAD,
    duckdb.StatementType.SET,
    duckdb.StatementType.VARIABLE_SET,
    duckdb.StatementType.CREATE,
}


def is_query(file: str) -> bool:
    """Return whether a file is a query, by its name."""
    return file.lower().endswith(".sql")


def open_query(
    con: duckdb.DuckDBPyConnection, file: Path, wanted: dict[str, str], run_date: date | None = None
) -> Source:
    """Run the statements of a file and open the rows of the SELECT at its end as a view.

    wanted: column name -> the option that names it. run_date: value of getvariable('run_date') in the query.
    Raises ConfigError if the file has other statements or the query lacks a wanted column; InputError if a column has
    lists or bytes.
    """
    try:
        statements = con.extract_statements(file.read_text(encoding="utf-8-sig"))
        if [statement.type for statement in statements[-1:]] != [_SELECT]:
            n = len(statements)
            raise ConfigError(f"{file}: has {n} statements; expected one SELECT as the last one")
        _run(con, statements, file, run_date)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except duckdb.ProgrammingError as error:
        is_of_extension = "Function with name" in str(error) and "does not exist" in str(error)
        advice = ". If an extension has it, write LOAD and its name before the SELECT" if is_of_extension else ""
        raise ConfigError(f"{file}: {error}{advice}") from error
    con.sql("from batchrec_query.main.result").create_view("query")
    names = {name.lower(): name for name in con.view("query").columns}
    names |= {name: names[name.lower()] for name in wanted if name.lower() in names}
    missing = [name for name in wanted if name not in names]
    if missing:
        asked = f" for {wanted[missing[0]]}" if wanted[missing[0]] != "--query" else ""
        raise ConfigError(
            f"{file}: the query has no column {missing[0]!r}{asked}; found {', '.join(con.view('query').columns)}"
        )
    relation = select(con, "sources/read_query", query_file=str(file))
    relation.create_view("source_query")
    source = Source("source_query", names, types_in(relation))
    try:
        check_types(source, wanted)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return source


def _run(con: duckdb.DuckDBPyConnection, statements: list[duckdb.Statement], file: Path, run_date: date | None) -> None:
    """Run the statements of a query once and store its rows, because a second run could return other rows.

    They run in a catalog and a connection of their own, so that their names, macros and settings do not affect
    batchrec's queries.
    """
    con.execute("attach ':memory:' as batchrec_query")
    with con.cursor() as user, interrupted_by_signals(user.interrupt):
        use_settings(user)
        user.execute("use batchrec_query")
        user.execute("set variable run_date = cast($run_date as date)", {"run_date": run_date})
        for statement in statements[:-1]:
            _run_before(user, statement, file)
        # As text, because a relation cannot have a comment after the semicolon. It is the SELECT that was just checked.
        user.execute(f"create table batchrec_query.main.result as {statements[-1].query}")
    # Some settings apply to all connections, so set them again.
    use_settings(con)


def _run_before(user: duckdb.DuckDBPyConnection, statement: duckdb.Statement, file: Path) -> None:
    """Run a statement before the SELECT; a database in a file is attached read-only."""
    text = statement.query.strip().rstrip(";").rstrip()
    if statement.type not in _ALLOWED_BEFORE or re.match(r"(?is)\s*create\b.*\bpersistent\b", text):
        name = statement.type.name
        raise ConfigError(
            f"{file}: has a statement {name} before the last one; expected one SELECT, and before it only ATTACH, "
            "LOAD, SET and CREATE, which do not change data"
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
        raise ConfigError(f"{file}: database {writable[0][0]!r} is attached for writing. Attach it as (READ_ONLY)")
