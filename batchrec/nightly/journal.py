"""The account of a night: its stages, its checks and its models, from which the report is made."""

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
class Account:
    """What has been done and seen of a night so far. decided: the report of an earlier run, which is only published."""

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

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Run a stage; what the block puts into the dictionary that is given is reported of it."""
        found: dict[str, Any] = {}
        started = time.monotonic()
        with log_fields(stage=name):
            _log.info("%s: begun", name)
            try:
                yield found
            except BaseException:
                _log.warning("%s: broken off after %.1f s", name, time.monotonic() - started)
                raise
            for path in ("out", "rejects_file"):
                found.pop(path, None)  # in the work on the night, which goes
            found["seconds"] = round(time.monotonic() - started, 3)
            self.stages[name] = found
            counts = {key: value for key, value in found.items() if isinstance(value, int)}
            _log.info(
                "%s: done in %.1f s", name, found["seconds"], extra={"counts": counts, "seconds": found["seconds"]}
            )

    def measured(self, figures: ModelFigures) -> ModelFigures:
        """Note the figures of a model, and give them."""
        self.models.append(figures)
        return figures

    def check(self, checks: list[Check]) -> None:
        """Note the checks of a gate. Raises GateError where one is not passed."""
        self.checks += checks
        failed = [check for check in checks if not check.passed]
        if failed:
            raise GateError(f"{failed[0].gate} gate: {'; '.join(map(str, failed))}. Nothing was published")

    def report(self, failed: str | None = None) -> NightReport:
        """Sum up. failed: why the night is not published."""
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
