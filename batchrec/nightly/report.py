"""What a night did: its stages, its figures, and the gates they passed or did not."""

import json
from dataclasses import dataclass, fields
from datetime import date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from batchrec.system.json_text import to_json
from batchrec.system.logs import redacted_values


@dataclass(frozen=True)
class Check:
    """A figure of a gate and the bounds that it must keep; example: what breaks them, if that can be shown."""

    gate: str
    figure: str
    value: float
    minimum: float | None = None
    maximum: float | None = None
    example: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the value is a number within the bounds."""
        # No comparison holds for a value that is not a number.
        return (self.minimum is None or self.value >= self.minimum) and (
            self.maximum is None or self.value <= self.maximum
        )

    def __str__(self) -> str:
        bounds = [f"at least {self.minimum:.6g}"] if self.minimum is not None else []
        bounds += [f"at most {self.maximum:.6g}"] if self.maximum is not None else []
        example = "" if self.example is None else f" ({self.example})"
        return f"{self.figure} is {self.value:.6g}, expected {' and '.join(bounds)}{example}"


@dataclass(frozen=True)
class ModelFigures:
    """How a model ranks tonight's held-out items, and what of the newest events it does not know."""

    model_id: str
    ndcg_at_10: float
    popularity_ndcg_at_10: float
    unknown_share: float


@dataclass(frozen=True)
class NightReport:
    """A night. `stages` holds each job's own report, with its seconds, in the order of their running.

    failed: why it was not published; None if it was. trained_because: why a new model was trained; None where the one
    in use did. models: the figures of the one in use, then of the new one. recs_sha256: of the table's bytes.
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


_FIELDS = {field.name for field in fields(NightReport)}


def read_report(file: Path, run_date: date) -> dict[str, Any] | None:
    """Read the report of a night; None if it is missing, damaged or another night's, as in a copied folder.

    A report without a seal is of an earlier version.
    """
    try:
        # A pipe would be waited for.
        found: Any = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        seal = found.pop("seal", None)
        if found.keys() != _FIELDS or (seal is not None and seal != _seal(found)):
            return None
        # Refused here, rather than where a gate or a monitor looks for a figure.
        figures = [found["stages"]["build-sequences"][name] for name in ("rows_read", "users", "items")]
        if not all(isinstance(figure, int) for figure in figures):
            return None
        if found["run_date"] != str(run_date):
            return None
        datetime.fromisoformat(found["finished"])
        str.encode(found["recs_sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    report: dict[str, Any] = found
    return report


def report_to_json(report: dict[str, Any]) -> str:
    """Write a report as JSON with its seal, and without its secrets: paths may hold them, and what an error says."""
    shown = json.loads(to_json(redacted_values(report)))
    return to_json(shown | {"seal": _seal(shown)}, indent=2) + "\n"


def _seal(report: dict[str, Any]) -> str:
    """Return the SHA-256 of all that a report says: one changed digit would move a gate."""
    return sha256(to_json(report).encode()).hexdigest()
