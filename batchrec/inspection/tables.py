"""Inspect a table that batchrec writes: its seal, its pages, its contract and its figures."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.errors import InputError, one_line
from batchrec.inspection.inspection import N_ROWS, Inspection, n_bytes
from batchrec.tables.ids import BLANKS
from batchrec.tables.queries import connect, literal, rows_of
from batchrec.tables.schemas import CONTRACTS
from batchrec.tables.sealed_parquet import open_parquet, parquet_of, schema_in
from batchrec.tables.sequences_table import open_sequences

_KINDS = {
    "recs": "recommendations",
    "similar": "similar items",
    "sequences": "histories",
    "items": "vocabulary of a model",
    "vectors": "vectors",
    "evaluation": "results of evaluate",
    "recs-shard": "a shard of recommendations",
}
# The columns by which a table of another program is recognised.
_COLUMNS = {
    "sequences": {"user_id", "item_ids", "timestamps"},
    "recs": {"user_id", "rank", "item_id", "score", "source"},
    "similar": {"item_id", "rank", "similar_item_id", "score", "source"},
}
_CHUNK_USERS = 10_000


def contract_of(file: Path) -> str | None:
    """Return the contract of a table, such as recs/1; "recs" if only its columns say so, None for any other file.

    Raises InputError if the file was sealed and has changed.
    """
    schema = schema_in(file)
    if schema is None:
        return None
    written = (schema.metadata or {}).get(b"batchrec.contract")
    if written is not None:
        return str(written, errors="replace")
    return next((name for name, columns in _COLUMNS.items() if columns <= set(schema.names)), None)


def inspect_table(file: Path, contract: str) -> Inspection:
    """Inspect a table; contract: of `contract_of`. Raises InputError if it is damaged or breaks its contract."""
    name, _, version = contract.partition("/")
    if name not in CONTRACTS or (version and version not in map(str, CONTRACTS[name])):
        known = ", ".join(f"{name}/{version}" for name, versions in CONTRACTS.items() for version in versions)
        raise InputError(f"{file}: has the contract {contract}; expected one of {known}. Upgrade batchrec")
    table, head = _read(file)
    figures: dict[str, Any] = {"contract": contract if version else "none written", "bytes": n_bytes(file)}
    figures["rows"] = table.metadata.num_rows
    checks = ["SHA-256 of the file, if it is sealed", "checksums of the pages", "version of the contract"]
    with connect() as con:
        if name == "sequences":
            for _ in open_sequences(file).batches(_CHUNK_USERS):
                checks[3:] = ["histories: in time order, without nulls, one per user"]
            figures |= rows_of(con, "inspection/histories", path=literal(file))[0]
        elif name in {"recs", "similar"}:
            figures |= _figures_of_lists(con, file, name)
            checks.append("lists: without nulls, duplicates and gaps in the ranks")
    types = {column.name: str(column.type) for column in table.schema_arrow}
    return Inspection(str(file), _KINDS[name], checks, figures, types, head)


def _read(file: Path) -> tuple[pq.ParquetFile, list[dict[str, Any]]]:
    """Read all pages, so that a damaged one is found. Returns the opened file and its first rows."""
    head: list[dict[str, Any]] = []
    try:
        table = parquet_of(open_parquet(file))
        for batch in table.iter_batches():
            head = head or batch.slice(0, N_ROWS).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: is damaged: {one_line(error)}. Restore it, or make it again") from error
    return table, head


def _figures_of_lists(con: duckdb.DuckDBPyConnection, file: Path, name: str) -> dict[str, Any]:
    """Return the figures of lists of recommendations or similar items. Raises InputError if they break the contract."""
    if name == "recs":
        # Which items are blocked depends on the histories, which only a night knows.
        nothing = pa.schema([("user_id", pa.string()), ("item_ids", pa.list_(pa.string()))]).empty_table()
        con.from_arrow(nothing).create_view("blocked_items")
        (faults,) = rows_of(con, "nightly/recs_faults", recs=literal(file), blanks=BLANKS)
        columns = {"owner_column": "user_id", "item_column": "item_id"}
    else:
        (faults,) = rows_of(con, "similarity/table_faults", similar=literal(file), blanks=BLANKS)
        columns = {"owner_column": "item_id", "item_column": "similar_item_id"}
    broken = [f"{number} {fault.replace('_', ' ')}" for fault, number in faults.items() if number]
    if broken:
        raise InputError(f"{file}: has {', '.join(broken)}; expected none. Make it again")
    (figures,) = rows_of(con, "inspection/lists", path=literal(file), **columns)
    sources = rows_of(con, "inspection/sources", path=literal(file))
    return figures | {"sources": {row["source"]: row["n_rows"] for row in sources}}
