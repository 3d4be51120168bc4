"""The report of a night: its stages, their figures, and the checks of the gates."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from batchrec.system.json_text import to_json
from batchrec.system.logs import redacted_values
from batchrec.system.terminal import format_table


@dataclass(frozen=True)
class Check:
    """A figure that a gate checks, and its bounds. example: a row that breaks them, if one can be shown."""

    gate: str
    figure: str
    value: float
    minimum: float | None = None
    maximum: float | None = None
    example: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the value is a number within the bounds."""
        # Any comparison with NaN is false, so NaN does not pass.
        return (self.minimum is None or self.value >= self.minimum) and (
            self.maximum is None or self.value <= self.maximum
        )

    @property
    def bounds(self) -> str:
        """The bounds in words."""
        bounds = [f"at least {self.minimum:.6g}"] if self.minimum is not None else []
        bounds += [f"at most {self.maximum:.6g}"] if self.maximum is not None else []
        return " and ".join(bounds)

    def __str__(self) -> str:
        example = "" if self.example is None else f" ({self.example})"
        return f"{self.figure} is {self.value:.6g}, expected {self.bounds}{example}"


@dataclass(frozen=True)
class ModelFigures:
    """How well a model ranks tonight's held-out items, and the share of the newest events with items unknown to it.

    *_margin: what chance may take from NDCG@10 against popularity, and of a new model against the model in use: two
    standard errors of the difference over the held-out users.
    """

    model_id: str
    ndcg_at_10: float
    popularity_ndcg_at_10: float
    unknown_share: float
    popularity_margin: float = 0.0
    in_use_margin: float = 0.0

    @property
    def minimum_ndcg(self) -> float:
        """The NDCG@10 below which the model ranks worse than popularity, and not by chance."""
        return max(0.0, self.popularity_ndcg_at_10 - self.popularity_margin)


@dataclass(frozen=True)
class NightReport:
    """The report of a night.

    stages: the report of each job with its seconds, in the order in which they ran. failed: why the night was not
    published; None if it was. trained_because: why a new model was trained; None if the model in use was kept. models:
    figures of the model in use, then of the new one. recs_sha256: SHA-256 of the table's bytes.
    """

    run_id: str
    run_date: str
    started: str
    finished: str
    seconds: float
    resumed: bool
    failed: str | None
    trained_because: str | None
    model: str | None
    users: int | None
    rows: int | None
    users_carried_over: int | None
    recs_sha256: str | None
    checks: list[dict[str, Any]]
    models: list[dict[str, Any]]
    stages: dict[str, dict[str, Any]]


def format_checks(checks: Sequence[dict[str, Any]]) -> str:
    """Format the checks of a report as a table: each figure with its bounds."""
    named = [Check(**{field.name: check[field.name] for field in fields(Check)}) for check in checks]
    rows = [[check.gate, check.figure, f"{check.value:.6g}", check.bounds] for check in named]
    failed = [number for number, check in enumerate(named) if not check.passed]
    return format_table(["gate", "figure", "value", "expected"], rows, [2], failed)


_FIELDS = {field.name for field in fields(NightReport)}


def read_report(file: Path, run_date: date) -> dict[str, Any] | None:
    """Read the report of a night; None if it is missing, damaged or another night's, as in a copied folder.

    Earlier versions wrote reports without a seal: these are read too.
    """
    report = read_failed_report(file, run_date)
    if report is None:
        return None
    try:
        # Refused here, not later when a gate or a monitor needs a figure.
        figures = [report["stages"]["build-sequences"][name] for name in ("rows_read", "users", "items")]
        if not all(isinstance(figure, int) for figure in figures):
            return None
        datetime.fromisoformat(report["finished"])
        str.encode(report["recs_sha256"])
    except (ValueError, KeyError, TypeError):
        return None
    return report


def read_failed_report(file: Path, run_date: date) -> dict[str, Any] | None:
    """Read the report of a night that may lack any stage; None if it is missing, damaged or another night's."""
    try:
        # Reading a pipe would wait for a writer.
        report: Any = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        seal = report.pop("seal", None)
        is_intact = report.keys() == _FIELDS and seal in {None, _seal(report)} and report["run_date"] == str(run_date)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return cast("dict[str, Any]", report) if is_intact else None


def report_to_json(report: dict[str, Any]) -> str:
    """Return a report as JSON with its seal. Secrets, which paths and error messages may contain, are redacted."""
    shown = json.loads(to_json(redacted_values(report)))
    return to_json(shown | {"seal": _seal(shown)}, indent=2) + "\n"


def _seal(report: dict[str, Any]) -> str:
    """Return the SHA-256 of a report's contents: one changed digit could move a gate."""
    return sha256(to_json(report).encode()).hexdigest()
