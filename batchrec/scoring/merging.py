"""Merge shards: check that they are complete and belong together, and write the table of a single scoring."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from batchrec.config import Shard
from batchrec.errors import InputError, one_line
from batchrec.scoring.report import ScoringReport
from batchrec.scoring.shards import read_metadata
from batchrec.tables.ids import BLANKS
from batchrec.tables.parquet import cast_batches, write_parquet
from batchrec.tables.queries import connect, literal, select
from batchrec.tables.schemas import REASON_COLUMNS, made_by, recs_schema
from batchrec.tables.sealed_parquet import open_parquet, parquet_of

# Rows of a row group of the merged table, and the memory of the sort before it spills to the disk.
_ROWS, _MEMORY = 1 << 17, "1GB"


@dataclass(frozen=True)
class ShardFile:
    """A shard on disk that is as it was written.

    same: what must be the same in all shards, by its name in messages. report: of the shard's scoring.
    """

    path: Path
    shard: Shard
    schema: pa.Schema
    same: dict[str, Any]
    report: ScoringReport


def open_shards(folder: Path) -> list[ShardFile]:
    """Return the shards in a folder, in their order, after all checks. Raises InputError if one fails."""
    paths = sorted(folder.glob("shard-*-of-*.parquet"))
    if not paths:
        raise InputError(f"{folder}: holds no shards; expected files like {Shard(0, 4).file_name}. Run batchrec score")
    files = sorted((_open(path) for path in paths), key=lambda file: file.shard.index)
    _check_same(files)
    _check_complete(files, folder)
    for file in files:
        _check_users(file)
    return files


def merge(files: Sequence[ShardFile], out: Path) -> ScoringReport:
    """Write the rows of all shards to the file `out`, in the order of a table that is not made in shards.

    Returns the report of all shards together; its seconds are those of the merge.
    """
    started = time.monotonic()
    schema = _recs_schema(files[0])
    paths = [literal(file.path) for file in files]
    try:
        with connect(out.absolute().parent, _MEMORY) as con:
            merged = select(con, "scoring/merged_shards", shards=paths)
            write_parquet(cast_batches(merged, schema, _ROWS), schema, out)
    except duckdb.Error as error:
        raise InputError(f"{files[0].path.parent}: {one_line(error)}") from error
    return _sum([file.report for file in files], str(out), round(time.monotonic() - started, 3))


def _open(path: Path) -> ShardFile:
    try:
        file = parquet_of(open_parquet(path))
        metadata = read_metadata(file.metadata.metadata or {})
        report = ScoringReport(**metadata["report"])
        shard = Shard(metadata["shard"], metadata["same"]["n_shards"])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}. Score this shard again") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is not a shard: it lacks their metadata. Remove it, or score it again") from error
    return ShardFile(path, shard, file.schema_arrow, metadata["same"], report)


def _check_same(files: Sequence[ShardFile]) -> None:
    """Raise InputError for the first shard that is not made of what most shards are made of."""
    by_shard = [json.dumps(file.same, sort_keys=True) for file in files]
    usual = files[by_shard.index(Counter(by_shard).most_common(1)[0][0])]
    for file in files:
        # --explain is named only by a shard that has it.
        names = [name for name in usual.same | file.same if file.same.get(name) != usual.same.get(name)]
        if names or file.schema != usual.schema:
            name = names[0] if names else "columns"
            own, expected = file.same.get(name), usual.same.get(name)
            raise InputError(
                f"{file.path}: differs from {usual.path.name} in its {name}: {own!r:.60}; expected {expected!r:.60}. "
                "Score it again with the same input, model and options, or remove it if it is of another run"
            )


def _check_complete(files: Sequence[ShardFile], folder: Path) -> None:
    """Raise InputError for a shard that is missing or there twice, and for users who are in no shard."""
    n_shards = files[0].shard.n_shards
    paths: dict[int, Path] = {}
    for file in files:
        other = paths.setdefault(file.shard.index, file.path)
        if other != file.path:
            raise InputError(f"{file.path}: is shard {file.shard}, like {other.name}. Remove one of them")
    missing = [str(Shard(index, n_shards)) for index in range(n_shards) if index not in paths]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise InputError(
            f"{folder}: lacks {len(missing)} of {n_shards} shards: {', '.join(missing[:5])}{more}. Score them with "
            f"--shard {missing[0]}"
        )
    n_users, expected = sum(file.report.users for file in files), files[0].same["n_users"]
    if n_users != expected:
        raise InputError(f"{folder}: its shards have {n_users} users; expected {expected}. Score all of them again")


def _check_users(file: ShardFile) -> None:
    """Raise InputError if a shard holds a user of another shard."""
    parameters = {"shard": file.shard.index, "n_shards": file.shard.n_shards, "blanks": BLANKS}
    try:
        with connect() as con:
            rows = select(con, "scoring/users_of_other_shards", recs=literal(file.path), **parameters).fetchall()
    except duckdb.Error as error:
        raise InputError(f"{file.path}: cannot be read: {one_line(error)}. Score this shard again") from error
    n_users, example = rows[0]
    if n_users:
        raise InputError(
            f"{file.path}: holds {n_users} users of other shards, such as {example!r}. Score this shard again"
        )


def _recs_schema(file: ShardFile) -> pa.Schema:
    schema = file.schema
    types = (schema.field(name).type for name in ("user_id", "item_id"))
    return recs_schema(
        *types,
        with_titles="title" in schema.names,
        made_by=made_by(schema.metadata),
        with_reasons=REASON_COLUMNS[0] in schema.names,
    )


def _sum(reports: Sequence[ScoringReport], out: str, seconds: float) -> ScoringReport:
    """Add the counts of users and rows; all else is the same in all reports."""
    total = vars(reports[0]).copy()
    for field in fields(ScoringReport):
        if field.name.startswith("users") or field.name in ("unknown_items_in_histories", "rows"):
            total[field.name] = sum(getattr(report, field.name) for report in reports)
    emptied: Counter[str] = Counter()
    for report in reports:
        emptied.update(report.emptied_by)
    return ScoringReport(**{**total, "emptied_by": dict(emptied), "out": out, "seconds": seconds})
