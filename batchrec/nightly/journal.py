"""The journal of a night: its stages, checks and models so far, from which the report is made."""

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from batchrec.errors import GateError
from batchrec.nightly.report import Check, ModelFigures, NightReport
from batchrec.system.logs import log_fields

_log = logging.getLogger(__name__)


@dataclass
class NightJournal:
    """The stages, checks and models of a night so far.

    decided: report of a run killed while publishing; this run only finishes that. finished_first: other nights that
    such runs had left and this run has published.
    """

    run_date: date
    resumed: bool
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.monotonic)
    checks: list[Check] = field(default_factory=list)
    models: list[ModelFigures] = field(default_factory=list)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    trained_because: str | None = None
    model: str | None = None
    recs_sha256: str | None = None
    decided: NightReport | None = None
    finished_first: list[date] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Run a stage. The block fills the yielded dictionary with the stage's report."""
        report: dict[str, Any] = {}
        started = time.monotonic()
        with log_fields(stage=name):
            _log.info("%s: started", name)
            try:
                yield report
            except BaseException:
                _log.warning("%s: stopped after %.1f s", name, time.monotonic() - started)
                raise
            for path in ("out", "rejects_file"):
                report.pop(path, None)  # in the work folder, which is deleted
            report["seconds"] = round(time.monotonic() - started, 3)
            self.stages[name] = report
            counts = {key: value for key, value in report.items() if isinstance(value, int)}
            _log.info(
                "%s: done in %.1f s", name, report["seconds"], extra={"counts": counts, "seconds": report["seconds"]}
            )

    def add_model(self, figures: ModelFigures) -> ModelFigures:
        """Note the figures of a model, and return them."""
        self.models.append(figures)
        return figures

    def check(self, checks: list[Check]) -> None:
        """Note the checks of a gate. Raises GateError if one of them fails."""
        self.checks += checks
        failed = [check for check in checks if not check.passed]
        if failed:
            raise GateError(f"{failed[0].gate} gate: {'; '.join(map(str, failed))}. Nothing was published")

    def report(self, failed: str | None = None) -> NightReport:
        """Return the report so far. failed: why the night is not published; None if it is."""
        times: dict[str, Any] = {
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.clock, 3),
        }
        if self.decided is not None:
            return replace(self.decided, resumed=True, failed=failed, **times)
        scored = self.stages.get("score", {})
        return NightReport(
            run_id=self.run_id,
            run_date=str(self.run_date),
            **times,
            resumed=self.resumed,
            failed=failed,
            trained_because=self.trained_because,
            model=self.model,
            users=scored.get("users"),
            rows=scored.get("rows"),
            users_carried_over=scored.get("users_carried_over"),
            recs_sha256=self.recs_sha256,
            checks=[asdict(check) | {"passed": check.passed} for check in self.checks],
            models=[asdict(figures) for figures in self.models],
            stages=self.stages,
        )
