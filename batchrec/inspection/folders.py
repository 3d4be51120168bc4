"""Inspect the folders that batchrec writes: models, nights, archives of nights, checkpoints and folders of tables."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from batchrec.config import parse_date
from batchrec.errors import InputError
from batchrec.inspection.inspection import N_ROWS, Inspection, n_bytes
from batchrec.inspection.tables import contract_of, inspect_table
from batchrec.model.directory import ITEMS, MANIFEST, load_model
from batchrec.nightly.archive import HISTORIES, RECS, SIMILAR, published_nights, similar_sha256
from batchrec.nightly.decisions import REPORT
from batchrec.nightly.failed_nights import FailedNights
from batchrec.nightly.registry import ModelRegistry
from batchrec.nightly.report import read_report
from batchrec.report_page.night_sections import NIGHT_COLUMNS, night_row
from batchrec.system.checkpoints import broken_checkpoints, checkpoints_in
from batchrec.system.disk import is_intact


def folder_inspector(folder: Path) -> Callable[[Path], Inspection] | None:
    """Return the function that inspects a folder of batchrec's; None for any other folder."""
    if (folder / MANIFEST).exists():
        return _inspect_model
    if _date_of(folder) is not None and ((folder / REPORT).exists() or (folder / RECS).exists()):
        return _inspect_night
    if published_nights(folder):
        return _inspect_archive
    if ModelRegistry(folder).versions():
        return _inspect_registry
    if checkpoints_in(folder):
        return _inspect_checkpoints
    files = _tables_in(folder)
    return _inspect_tables if files and all(map(contract_of, files)) else None


def _inspect_model(folder: Path) -> Inspection:
    model = load_model(folder)
    manifest = asdict(model.manifest)
    figures: dict[str, Any] = {name: manifest[name] for name in ("model_id", "contract_version", "n_items")}
    figures |= {"item ids": str(model.vocabulary.item_ids.type), **manifest["encoder"], **manifest["metrics"]}
    figures |= {"blend": manifest["blend"], "bytes": n_bytes(folder)}
    items = pq.read_table(folder / ITEMS)
    columns = {column.name: str(column.type) for column in items.schema}
    checks = ["SHA-256 of every file", "the parts against each other", "version of the contract"]
    return Inspection(str(folder), "a model", checks, figures, columns, items.slice(0, N_ROWS).to_pylist())


def _inspect_night(folder: Path) -> Inspection:
    night = _date_of(folder)
    report = None if night is None else read_report(folder / REPORT, night)
    if report is None:
        raise InputError(f"{folder / REPORT}: is lost, damaged or another night's. Restore it, or roll back to a night")
    for name, sha256 in ((RECS, report["recs_sha256"]), (SIMILAR, similar_sha256(report))):
        if sha256 is not None and not is_intact(folder / name, sha256):
            raise InputError(f"{folder / name}: is lost, or not the table that was published: its SHA-256 has changed")
    table = inspect_table(folder / RECS, contract_of(folder / RECS) or "recs")
    checks = ["seal of the report", "SHA-256 of the tables, by the report", *table.checks]
    if (folder / HISTORIES).is_file():
        contract_of(folder / HISTORIES)
        checks.append("SHA-256 of the histories")
    figures = dict(zip(NIGHT_COLUMNS, night_row(report), strict=True))
    figures |= {"model": report["model"], **table.figures, "bytes": n_bytes(folder)}
    return Inspection(str(folder), "a published night", checks, figures, table.columns, table.head)


def _inspect_archive(folder: Path) -> Inspection:
    nights = published_nights(folder)
    newest = [_inspect_night(folder / f"run_date={night}") for night in nights][-1]
    failed = FailedNights(folder / "failed")
    for date_of_failed in failed.dates():
        if failed.report(date_of_failed) is None:
            raise InputError(f"{failed.folder / str(date_of_failed)}.json: is damaged. Remove it")
    figures = {
        "nights": list(map(str, nights)),
        "failed nights": list(map(str, failed.dates())),
        "bytes": n_bytes(folder),
    }
    return Inspection(str(folder), "an archive of nights", newest.checks, figures, newest.columns, newest.head)


def _inspect_registry(folder: Path) -> Inspection:
    registry = ModelRegistry(folder)
    models = [_inspect_model(version.folder) for version in registry.versions()]
    figures = {
        "models": [Path(model.path).name for model in models],
        "in use": registry.in_use().name,
        "bytes": n_bytes(folder),
    }
    return Inspection(str(folder), "the models of the nights", models[-1].checks, figures)


def _inspect_checkpoints(folder: Path) -> Inspection:
    broken = broken_checkpoints(folder)
    if broken:
        raise InputError(f"{folder / broken[0]}: is damaged: its seal does not match. The next run computes it again")
    figures = {"checkpoints": checkpoints_in(folder), "bytes": n_bytes(folder)}
    return Inspection(str(folder), "checkpoints of a run that was stopped", ["seals of the checkpoints"], figures)


def _inspect_tables(folder: Path) -> Inspection:
    tables = [inspect_table(file, contract_of(file) or "") for file in _tables_in(folder)]
    named = [f"{Path(table.path).relative_to(folder)} ({table.kind})" for table in tables]
    figures = {"tables": named, "rows": sum(table.figures["rows"] for table in tables), "bytes": n_bytes(folder)}
    last = tables[-1]
    return Inspection(str(folder), "a folder of tables", last.checks, figures, last.columns, last.head)


def _tables_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.parquet")) if path.is_file()]


def _date_of(folder: Path) -> date | None:
    return parse_date(folder.resolve().name.removeprefix("run_date="))
