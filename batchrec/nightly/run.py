"""run: the whole night as one job, that publishes a table that is right, or leaves last night's as it was."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from batchrec.config import RunConfig
from batchrec.errors import BatchrecError, ConfigError, NothingToDo
from batchrec.nightly.archive import Nights
from batchrec.nightly.journal import Account
from batchrec.nightly.lock import locked
from batchrec.nightly.prometheus import failures_told, write_metrics
from batchrec.nightly.registry import Models
from batchrec.nightly.report import NightReport
from batchrec.nightly.retraining import due_by_age
from batchrec.nightly.separate_paths import check_apart, check_metrics_apart
from batchrec.nightly.stages import Jobs, Night
from batchrec.system.atomic import check_writable_file
from batchrec.system.logs import add_log_fields
from batchrec.system.signals import Terminated, signals_first

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a night would do, and why, as far as that can be told without reading the events."""

    run_date: str
    goes_on: bool
    finishes_first: list[str]
    model_in_use: str | None
    trains: str
    publishes: list[str]


def plan(jobs: Jobs, config: RunConfig, run_date: date | None = None) -> Plan:
    """Say what `run` would do. Reads the folders, and writes nothing."""
    nights, models = Nights(Path(config.nights), jobs.out), Models(Path(config.models))
    tonight = _run_date(run_date, nights)
    in_use = models.current
    return Plan(
        run_date=str(tonight),
        goes_on=nights.work(tonight).exists(),
        finishes_first=[str(night) for night in nights.decisions.dates()],
        model_in_use=None if in_use is None else in_use.name,
        trains=due_by_age(in_use, config, tonight) or "only if the model in use ranks tonight's events badly",
        publishes=[str(nights.table(tonight)), *([str(jobs.out)] if nights.is_newest(tonight) else [])],
    )


def run(jobs: Jobs, config: RunConfig, run_date: date | None = None, metrics_file: Path | None = None) -> NightReport:
    """Make and publish the table of a night: today's (UTC), or that of `run_date`.

    What an earlier, interrupted run of the same night has finished is used again.
    Raises GateError where a gate is not passed, LockedError where another run is at work, NothingToDo where the
    same table is published already, and what the jobs raise: then no table and no model in use has changed.
    """
    nights, models = Nights(Path(config.nights), jobs.out), Models(Path(config.models))
    check_metrics_apart(jobs, metrics_file)
    with ExitStack() as stack:
        with failures_told(metrics_file, nights):
            check_apart(jobs, config)
            stack.enter_context(locked(nights.folder, config.lock))
            tonight = _run_date(run_date, nights)
        account = Account(tonight, resumed=nights.work(tonight).exists())
        add_log_fields(run_id=account.run_id, run_date=str(tonight))
        return _run(Night(jobs, config, nights, models, account), metrics_file)


def _run(night: Night, metrics_file: Path | None) -> NightReport:
    """Run a night, and keep what has become of it."""
    account, nights = night.account, night.nights
    # What is left standing where none of those below happens.
    failed, exit_code = "ended by a bug", 1
    try:
        with signals_first(), _as_config_errors(nights.folder):
            check_writable_file(nights.out)
            if metrics_file is not None:
                check_writable_file(metrics_file, "--metrics-file")
            night.run()
        failed, exit_code = "", 0
    except BatchrecError as error:
        failed, exit_code = str(error), error.exit_code
        error.report = account.report(failed)
        raise
    except Terminated as error:
        failed, exit_code = "ended by a signal", int(str(error.code))
        error.report = account.report(failed)
        raise
    finally:
        report = account.report(failed or None)
        with _only_warning():
            if exit_code in (0, NothingToDo.exit_code):
                nights.prune(night.config.keep, account.run_date)
                night.models.prune(night.config.keep_models)
            else:
                nights.keep_failed(account.run_date, asdict(report))
        if metrics_file is not None:
            with _only_warning():
                write_metrics(metrics_file, report, exit_code, nights)
    return report


@contextmanager
def _as_config_errors(folder: Path) -> Iterator[None]:
    """Raise ConfigError for what the disk refuses in the block. folder: where, if an error has no path."""
    try:
        yield
    except OSError as error:
        raise ConfigError.of(error, folder) from error


@contextmanager
def _only_warning() -> Iterator[None]:
    """Only log what goes wrong once the night has ended: how it ended is what counts."""
    try:
        yield
    except (BatchrecError, OSError) as error:
        _log.warning("%s", error)
    except Exception:
        # A bug, but not one by which a table that is out would fail.
        _log.warning("a bug, after the night had ended", exc_info=True)


def _run_date(given: date | None, nights: Nights) -> date:
    """Return tonight's date.

    Raises ConfigError for one to come, for a clock that is behind a published night, and for a night that is later than
    tomorrow, or later than tonight and damaged: nothing would be put out while it is there.
    """
    today = datetime.now(UTC).date()
    # East of Greenwich it is tomorrow already.
    tomorrow = today + timedelta(days=1)
    if given is not None and given > tomorrow:
        raise ConfigError(
            f"--run-date {given}: the clock says {today}. Nights before {given} could no longer be published"
        )
    for night in [*nights.dates(), *nights.decisions.dates()]:
        if night > tomorrow:
            raise ConfigError(
                f"{nights.folder}: the clock says {today}, but night {night} is published already, or about to be: no "
                "other would be put out. Set the clock right, or move that night's folder away, and start again"
            )
    newest = max(nights.dates(), default=today)
    if given is None and newest > today:
        raise ConfigError(f"the clock says {today}, but night {newest} is published already. Pass --run-date")
    tonight = given or today
    for night in nights.dates():
        if night > tonight and nights.report(night) is None:
            raise ConfigError(
                f"{nights.table(night).parent}: is later than night {tonight}, and its report is missing, damaged or "
                "another night's: nothing would be put out while it is there. Restore it, or move it away"
            )
    return tonight
