"""run: the whole night as one job. It publishes a table that passes the gates, or leaves last night's in place."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from batchrec.config import RunConfig, latest_run_date
from batchrec.errors import BatchrecError, ConfigError, NothingToDo
from batchrec.nightly.archive import Archive
from batchrec.nightly.jobs import Jobs
from batchrec.nightly.journal import NightJournal
from batchrec.nightly.lock import locked
from batchrec.nightly.night import Night
from batchrec.nightly.output_paths import check_metrics_path, check_output_paths
from batchrec.nightly.page import NightPages
from batchrec.nightly.prometheus import reporting_failures, write_metrics
from batchrec.nightly.registry import ModelRegistry
from batchrec.nightly.report import NightReport
from batchrec.nightly.retraining import due_by_age, due_by_parts
from batchrec.system.atomic import check_writable_file
from batchrec.system.logs import add_log_fields
from batchrec.system.signals import Terminated, signals_first
from batchrec.targets import open_target

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """The steps that a night would take, and why, as far as this can be known without reading the events."""

    run_date: str
    resumes: bool
    finishes_first: list[str]
    model_in_use: str | None
    trains: str
    publishes: list[str]


def plan(jobs: Jobs, config: RunConfig, run_date: date | None = None) -> Plan:
    """Return what `run` would do. Reads the folders and writes nothing."""
    archive, registry = _archive(jobs, config), ModelRegistry(Path(config.models))
    tonight = _run_date(run_date, archive)
    in_use = registry.current
    return Plan(
        run_date=str(tonight),
        resumes=archive.work(tonight).exists(),
        finishes_first=[str(night) for night in archive.decisions.dates()],
        model_in_use=None if in_use is None else in_use.name,
        trains=due_by_age(in_use, config, tonight)
        or due_by_parts(in_use, jobs, config)
        or "only if the model in use ranks tonight's events badly",
        publishes=[
            str(archive.table(tonight)),
            *(str(place) for place in archive.targets if archive.switches(place, tonight)),
        ],
    )


def run(jobs: Jobs, config: RunConfig, run_date: date | None = None, metrics_file: Path | None = None) -> NightReport:
    """Make and publish the table of a night: today's (UTC), or that of `run_date`.

    Resumes an earlier, interrupted run of the same night.
    Raises GateError if a gate fails, LockedError if another run is in progress, NothingToDo if the same table is
    published already, and the errors of the jobs. Then neither the current table nor the model in use has changed.
    """
    archive, registry = _archive(jobs, config), ModelRegistry(Path(config.models))
    check_metrics_path(jobs, config, metrics_file)
    with ExitStack() as stack:
        with reporting_failures(metrics_file, archive):
            check_output_paths(jobs, config)
            _check_jobs(jobs, config)
            stack.enter_context(locked(archive.folder, config.lock))
            tonight = _run_date(run_date, archive)
        journal = NightJournal(tonight, resumed=archive.work(tonight).exists())
        add_log_fields(run_id=journal.run_id, run_date=str(tonight))
        return _run(Night(jobs, config, archive, registry, journal), metrics_file)


def _archive(jobs: Jobs, config: RunConfig) -> Archive:
    similar = open_target(jobs.similar_out, "similar") if config.similar else None
    return Archive(Path(config.nights), open_target(jobs.out, jobs.scoring.layout), similar)


def _check_jobs(jobs: Jobs, config: RunConfig) -> None:
    """Raise ConfigError if the models that a night trains lack what its tables need, before hours of training.

    Also warns of item lists that only recommendations keep: similar items have rules of their own.
    """
    training = jobs.training
    lacks = jobs.lacks(config, has_embeddings=training.max_epochs > 0, has_neighbours=training.blend != "none")
    if lacks is not None:
        needed_by, left_out_by = lacks
        raise ConfigError(
            f"{needed_by}: a model of train {left_out_by} does not store what it needs. Leave one of the two out"
        )
    missing = sorted({"--allow", "--block"} & jobs.scoring.files.keys() - jobs.similar.files.keys())
    if config.similar and missing:
        _log.warning("%s of [score] is not in [similar], so similar items do not keep it", " and ".join(missing))


def _run(night: Night, metrics_file: Path | None) -> NightReport:
    """Run a night, then write its report if it failed, delete old nights and models, write the metrics and its page."""
    journal, archive = night.journal, night.archive
    # Holds if none of the cases below does.
    failed, exit_code = "ended by a bug", 1
    try:
        with signals_first(), _as_config_errors(archive.folder):
            for target in archive.targets:
                target.check_writable()
            if metrics_file is not None:
                check_writable_file(metrics_file, "--metrics-file")
            night.run()
        failed, exit_code = "", 0
    except BatchrecError as error:
        failed, exit_code = str(error), error.exit_code
        error.report = journal.report(failed)
        raise
    except Terminated as error:
        failed, exit_code = "ended by a signal", int(str(error.code))
        error.report = journal.report(failed)
        raise
    finally:
        report = journal.report(failed or None)
        with _only_warning():
            if exit_code in (0, NothingToDo.exit_code):
                archive.prune(night.config.keep, journal.run_date)
                night.registry.prune(night.config.keep_models)
            else:
                archive.failed.write_report(journal.run_date, asdict(report))
        if metrics_file is not None:
            with _only_warning():
                write_metrics(metrics_file, report, exit_code, archive)
        pages = NightPages(archive, night.registry, night.jobs.scoring)
        for run_date in _shown_nights(night, pages, exit_code) if night.config.report else []:
            with _only_warning():
                pages.write_next_to_report(run_date)
    return report


def _shown_nights(night: Night, pages: NightPages, exit_code: int) -> list[date]:
    """Return the nights whose page is due; none if a signal asked the run to stop."""
    if exit_code > NothingToDo.exit_code:
        return []
    kept = set(night.archive.dates())
    finished = [run_date for run_date in night.journal.finished_first if run_date in kept]
    tonight = night.journal.run_date
    # If the same table is published already, so is its page, unless that run was killed before it.
    is_due = exit_code != NothingToDo.exit_code or not pages.is_written(tonight)
    return [*finished, tonight] if is_due else finished


@contextmanager
def _as_config_errors(folder: Path) -> Iterator[None]:
    """Raise ConfigError for an OSError in the block. folder: named in the message if the error has no path."""
    try:
        yield
    except OSError as error:
        raise ConfigError.of(error, folder) from error


@contextmanager
def _only_warning() -> Iterator[None]:
    """Only log errors and signals after the night has ended: they must not change its outcome."""
    try:
        yield
    except (BatchrecError, OSError) as error:
        _log.warning("%s", error)
    except Terminated:
        _log.warning("a signal arrived after the night had ended: what was left to do is left out")
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException:
        # A bug, but the published table is right. A panic of a library in Rust is not an Exception.
        _log.warning("a bug after the night had ended", exc_info=True)


def _run_date(given: date | None, archive: Archive) -> date:
    """Return tonight's date.

    Raises ConfigError if it lies in the future, or if a published night is later than the clock says. It also raises
    ConfigError if a night is later than tomorrow, or later than tonight and damaged: while it exists, no other night
    would become current.
    """
    today = datetime.now(UTC).date()
    latest = latest_run_date()
    if given is not None and given > latest:
        raise ConfigError(
            f"--run-date {given}: the clock says {today}. Nights before {given} could no longer be published"
        )
    for night in [*archive.dates(), *archive.decisions.dates()]:
        if night > latest:
            raise ConfigError(
                f"{archive.folder}: the clock says {today}, but night {night} is published already, or about to be, "
                "so no other night would be published at score --out. Correct the clock, or move that night's folder "
                "away, and run it again"
            )
    newest = max(archive.dates(), default=today)
    if given is None and newest > today:
        raise ConfigError(f"the clock says {today}, but night {newest} is published already. Pass --run-date")
    tonight = given or today
    for night in archive.dates():
        if night > tonight and archive.report(night) is None:
            raise ConfigError(
                f"{archive.table(night).parent}: is later than night {tonight}, and its report is missing, damaged or "
                "another night's, so no other night would be published at score --out. Restore it, or move it away"
            )
    return tonight
