"""diff: what changed between two tables of recommendations: of two nights, or of two files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.config import CatalogueConfig, DiffConfig, parse_date
from batchrec.errors import ConfigError, InputError, one_line
from batchrec.nightly.archive import RECS, Archive
from batchrec.report_page.night_sections import NIGHT_COLUMNS, night_row
from batchrec.report_page.table_changes import TableChanges, same_id_types, table_changes
from batchrec.report_page.titles import titles_in
from batchrec.sources.catalogue import read_catalogue
from batchrec.sources.text_tables import read_text_table
from batchrec.tables.queries import connect, literal, rows_of, spill_folder
from batchrec.tables.repeated_recs import refuse_repeats
from batchrec.tables.sealed_parquet import schema_in

# In the names of the gates, which have these figures too, or in the head.
_NAMED_OTHERWISE = ("Night", "Items recommended", "Overlap")
_INPUT = ("rows_read", "users", "items")
_COLUMNS = ("user_id", "item_id", "rank")


@dataclass(frozen=True)
class Compared:
    """A figure, or the number of rows of a source, on both sides; None where a side lacks it."""

    name: str
    before: str | float | None
    after: str | float | None


@dataclass(frozen=True)
class DiffReport:
    """The changes from the table `before` to the table `after`, which are named as they were asked for.

    changed_share: of the users in both, those whose list holds other items; None without any. sources: rows by source.
    figures: of the reports of both nights, none for files. titles: by item id, of the items in the lists that moved
    most.
    """

    before: str
    after: str
    changes: TableChanges
    changed_share: float | None
    sources: list[Compared]
    figures: list[Compared]
    titles: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Side:
    """A table to compare: its name, its file, and the report of its night if it is one."""

    name: str
    recs: Path
    report: dict[str, Any] | None = None


def diff(
    names: tuple[str, ...],
    archive: Archive,
    config: DiffConfig = DiffConfig(),
    catalogue: CatalogueConfig | None = None,
) -> DiffReport:
    """Compare two tables; names: the earlier one, then the later one. Without names the last two published nights.

    A name is the run date of a published night, the folder of a night, or a table with user_id, item_id and rank: files
    of Parquet, CSV or JSON lines, a query or a URL. Ids of different types are compared as text.
    catalogue: where the titles of items are read from. Raises ConfigError if there is no such night, InputError for a
    table that cannot be read or has changed since it was published.
    """
    advice = ""
    if not names:
        names, advice = tuple(map(str, archive.dates()[-2:])), ". Run another night first, or name two"
    if len(names) != 2:
        raise ConfigError(
            f"{archive.folder}: found {', '.join(names) or 'no night'} to compare; expected two run dates or tables"
            f"{advice}"
        )
    before, after = (_side(name, archive) for name in names)
    with connect() as con:
        previous, recs = _comparable(before, after, spill_folder(con))
        for side, file in ((before, previous), (after, recs)):
            if side.report is not None:
                # The gates of the night have checked it.
                continue
            rows = con.read_parquet(str(file), hive_partitioning=False).project("user_id, item_id, rank as position")
            rows.create_view("compared_recs")
            refuse_repeats(con, "compared_recs", f"{side.name}:")
        changes = table_changes(con, recs, previous, config.lists, config.items)
        sources = _compared(_sources(con, previous), _sources(con, recs))
        item_type = pq.read_schema(recs).field("item_id").type
    shown = {item for moved in changes.moved for item in (*moved.came, *moved.gone)}
    titles = None if catalogue is None else read_catalogue(catalogue, item_type)
    return DiffReport(
        *names,
        changes=changes,
        changed_share=1 - changes.same_lists / changes.users_in_both if changes.users_in_both else None,
        sources=sources,
        figures=_compared(_figures(before.report), _figures(after.report)),
        titles={} if titles is None else titles_in(titles, shown).by_id,
    )


def _side(name: str, archive: Archive) -> _Side:
    night = parse_date(name)
    if night is None:
        table = Path(name) / RECS
        return _Side(name, table if table.is_file() else Path(name))
    if night not in archive.dates():
        failed = archive.failed.report(night)
        why = "is not published" if failed is None else f"failed and has no published table: {failed['failed']}"
        raise ConfigError(f"{archive.folder}: night {name} {why}. batchrec nights lists the nights")
    if not archive.is_intact(night):
        raise InputError(
            f"{archive.table(night)}: is not the table that was published: it, or its report, is lost or damaged. "
            "Compare another night"
        )
    return _Side(name, archive.table(night), archive.report(night))


def _comparable(before: _Side, after: _Side, folder: Path) -> tuple[Path, Path]:
    """Return the files of two tables; if they are not both Parquet with ids of the same types, as text in a folder."""
    if _is_recs(before.recs) and _is_recs(after.recs) and same_id_types(before.recs, after.recs):
        return before.recs, after.recs
    return _as_text(before, folder / "before.parquet"), _as_text(after, folder / "after.parquet")


def _is_recs(file: Path) -> bool:
    """Return whether a file is Parquet with the columns of a table. Raises InputError if it was sealed and changed."""
    schema = schema_in(file) if file.is_file() else None
    return schema is not None and set(_COLUMNS) <= set(schema.names)


def _as_text(side: _Side, out: Path) -> Path:
    """Write the columns of any table as Parquet with ids as text; returns `out`."""
    name = str(side.recs) if side.report is not None or side.recs.is_file() else side.name
    advice = f"a table with the columns {', '.join(_COLUMNS)}; if they are nested, a query that unnests them"
    columns = dict.fromkeys(_COLUMNS, advice)
    table = read_text_table(name, "diff", columns, ("source",))
    ids = {column: table.without_null_words(column).required(column) for column in ("user_id", "item_id")}
    try:
        rank = table.required("rank").cast(pa.int64())
    except pa.ArrowException as error:
        raise InputError(f"{name}: column 'rank' has a value that is not an integer: {one_line(error)}") from error
    others = {"source": table.rows["source"]} if "source" in table.names else {}
    pq.write_table(pa.table({**ids, "rank": rank, **others}), out)
    return out


def _sources(con: duckdb.DuckDBPyConnection, recs: Path) -> dict[str, Any]:
    """Return the number of rows by source; none if the table does not say."""
    if "source" not in pq.read_schema(recs).names:
        return {}
    return {row["source"]: row["n_rows"] for row in rows_of(con, "report/sources", recs=literal(recs))}


def _figures(report: dict[str, Any] | None) -> dict[str, Any]:
    """Return the figures of a night: those of the list of nights, and all that its gates checked."""
    if report is None:
        return {}
    figures = dict(zip(NIGHT_COLUMNS, night_row(report), strict=True))
    figures = {name: value for name, value in figures.items() if name not in _NAMED_OTHERWISE}
    built = {name.replace("_", " "): report["stages"]["build-sequences"][name] for name in _INPUT}
    return figures | built | {check["figure"]: check["value"] for check in report["checks"]}


def _compared(before: dict[str, Any], after: dict[str, Any]) -> list[Compared]:
    """Return the values on both sides, in the order of the later one."""
    return [Compared(name, before.get(name), after.get(name)) for name in after | before]
