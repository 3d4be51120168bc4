"""run: the whole night as one job, that publishes a table that is right, or leaves last night's as it was."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from batchrec.artifact import file_sha256, load_model
from batchrec.config import RunConfig, ScoringConfig, SequencesConfig, TrainingConfig
from batchrec.errors import BatchrecError, ConfigError, InputError, ModelError, NothingToDo
from batchrec.logs import stamp
from batchrec.nightly.account import Account
from batchrec.nightly.gates import input_checks, model_checks, table_checks
from batchrec.nightly.measuring import held_out_items, measure_histories, measure_table
from batchrec.nightly.metrics_file import write_metrics
from batchrec.nightly.models import Models, Version
from batchrec.nightly.nights import Nights, locked
from batchrec.nightly.report import NightReport
from batchrec.nightly.training_due import due_by_age, due_by_figures, starting_from
from batchrec.scoring import ScoringReport, score
from batchrec.sequences import build_sequences, rejects_of
from batchrec.sources import find_files
from batchrec.stopping import Terminated, signals_first
from batchrec.tables import check_no_input, check_writable, check_writable_file
from batchrec.training.train import train

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Jobs:
    """The jobs of a night: what they read, their options, and where the table is published."""

    ratings: Sequence[str]
    sequences: SequencesConfig
    training: TrainingConfig
    scoring: ScoringConfig
    out: Path


@dataclass(frozen=True)
class Plan:
    """What a night would do, and why, as far as that can be told without reading the events."""

    run_date: str
    goes_on: bool
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
    inputs = [*jobs.ratings, *jobs.scoring.files.values()]
    check_no_input(jobs.out, inputs, "score --out")
    if metrics_file is not None:
        check_no_input(metrics_file, [jobs.out, *inputs], "--metrics-file")
    with locked(nights.folder, config.lock):
        tonight = _run_date(run_date, nights)
        account = Account(tonight, resumed=nights.work(tonight).exists())
        # What is left standing where none of those below happens.
        failed, exit_code = "ended by a bug", 1
        stamp(run_id=account.run_id, run_date=str(tonight))
        try:
            with signals_first(), _as_config_errors(nights.folder):
                check_writable_file(jobs.out)
                if metrics_file is not None:
                    check_writable_file(metrics_file, "--metrics-file")
                _Night(jobs, config, nights, models, account).run()
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
                    nights.prune(config.keep, tonight)
                    models.prune(config.keep_models)
                else:
                    nights.keep_failed(tonight, asdict(report))
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
        raise ConfigError(f"{error.filename or folder}: cannot be used: {error.strerror or error}") from error


@contextmanager
def _only_warning() -> Iterator[None]:
    """Only log what goes wrong once the night has ended: how it ended is what counts."""
    try:
        yield
    except (BatchrecError, OSError) as error:
        _log.warning("%s", error)


def _run_date(given: date | None, nights: Nights) -> date:
    """Give tonight's date. Raises ConfigError for one to come, and for a clock that is behind a published night."""
    today = datetime.now(UTC).date()
    # East of Greenwich it is tomorrow already.
    if given is not None and given > today + timedelta(days=1):
        raise ConfigError(f"--run-date {given}: the clock says {today}. No night before {given} would be out any more")
    newest = max(nights.dates(), default=today)
    if given is None and newest > today:
        raise ConfigError(f"the clock says {today}, but night {newest} is published already. Pass --run-date")
    return given or today


@dataclass(frozen=True)
class _Night:
    """A night in the making, in a folder of its own until all of it is right."""

    jobs: Jobs
    config: RunConfig
    nights: Nights
    models: Models
    account: Account

    @property
    def run_date(self) -> date:
        return self.account.run_date

    @property
    def work(self) -> Path:
        return self.nights.work(self.run_date)

    @property
    def sequences(self) -> Path:
        return self.work / "sequences.parquet"

    @property
    def recs(self) -> Path:
        return self.work / "recs.parquet"

    def run(self) -> None:
        self.nights.give_up_before(self.run_date)
        decided = self._decided()
        if decided is not None:
            _log.warning("an earlier run was killed while it published: that is done first, and alone")
            self.account.decided = decided
            self._put_in_place(asdict(decided))
            return
        self._check_paths()
        self.work.mkdir(mode=0o700, exist_ok=True)
        self._build_sequences()
        histories = file_sha256(self.sequences)
        in_use = self.models.current
        model = self._model(in_use)
        scored = self._score(model)
        if file_sha256(self.sequences) != histories:
            raise InputError(f"{self.sequences}: was changed while the night was made. Start it again")
        self._check(scored)
        self._publish(model, in_use)

    def _decided(self) -> NightReport | None:
        """Give the report of a run that was killed while it published; None where what it made is not whole any more."""
        report = self.nights.decided(self.run_date)
        if report is None:
            return None
        try:
            load_model(self.models.find(report["model"]).folder)
            return NightReport(**report)
        except (ConfigError, ModelError, KeyError, TypeError) as error:
            _log.warning("an earlier run was killed while it published, and all is made again: %s", error)
            return None

    def _check_paths(self) -> None:
        """Look for what a night needs at its end, before it spends hours on a training."""
        self.models.folder.mkdir(parents=True, exist_ok=True)
        check_writable(self.models.folder / "current", "--models")
        for option, file in self.jobs.scoring.files.items():
            find_files([file], f"{option} FILE")

    def _build_sequences(self) -> None:
        """Build the histories: again in a run that goes on, for only their bytes tell whether the input is the same."""
        with self.account.stage("build-sequences") as found:
            built = build_sequences(self.jobs.ratings, self.jobs.sequences, self.sequences)
            found.update(asdict(built))
        before = self.nights.before(self.run_date)[-self.config.gate_nights :]
        earlier = [report["stages"] for report in self.nights.reports(before)]
        figures = measure_histories(self.sequences, self.run_date, self.nights.last_whole(before))
        self.account.check(input_checks(built, figures, earlier, self.config, self.run_date))

    def _model(self, in_use: Version | None) -> Path:
        """Give the model to score with: the one in use, or a new one where that is due."""
        account, figures = self.account, None
        reason = due_by_age(in_use, self.config, self.run_date)
        with held_out_items(self.sequences, self.jobs.training) as held_out:
            if in_use is not None:
                try:
                    with account.stage("evaluate") as found:
                        figures = account.measured(held_out.measure(in_use.folder, self.jobs.scoring))
                        found.update(asdict(figures))
                except ModelError as error:
                    reason = f"the model in use cannot be used: {error}"
                    _log.warning("%s", reason)
            if in_use is not None and figures is not None:
                reason = reason or due_by_figures(figures, self.config)
                if reason is None:
                    account.check(model_checks(figures, None, self.config))
                    return in_use.folder
            account.trained_because = reason
            _log.info("training: %s", reason)
            new = self.work / "model"
            with account.stage("train") as found:
                training = starting_from(in_use, figures, self.jobs.training, self.config)
                found.update(asdict(train(self.sequences, training, new, self.work / "training")))
            with account.stage("evaluate-new") as found:
                new_figures = account.measured(held_out.measure(new, self.jobs.scoring))
                found.update(asdict(new_figures))
        account.check(model_checks(new_figures, figures, self.config))
        return new

    def _score(self, model: Path) -> ScoringReport:
        previous = self.nights.last_whole([night for night in self.nights.dates() if night <= self.run_date])
        with self.account.stage("score") as found:
            config = replace(
                self.jobs.scoring, previous=None if previous is None else str(previous), run_date=str(self.run_date)
            )
            scored = score(self.sequences, model, config, self.recs, self.work / "scoring")
            found.update(asdict(scored))
        return scored

    def _check(self, scored: ScoringReport) -> None:
        with self.account.stage("check") as found:
            previous = self.nights.last_whole(self.nights.before(self.run_date))
            # Whom rules leave fewer than k items has a full list with those.
            full = min(self.jobs.scoring.top_k, scored.eligible_items)
            figures = measure_table(self.recs, self.sequences, previous, replace(self.jobs.scoring, top_k=max(1, full)))
            found.update(asdict(figures))
        # Of the users in the histories, whatever the scorer says; only with --users is it they whom it was to score.
        n_users = figures.histories if self.jobs.scoring.users is None else scored.users
        self.account.check(table_checks(figures, n_users, max(1, scored.eligible_items), self.config))

    def _publish(self, model: Path, in_use: Version | None) -> None:
        """Switch the model, then the table: each by a rename, and by the next run if this one is killed in between."""
        is_new = in_use is None or model != in_use.folder
        self.account.recs_sha256 = recs_sha256 = file_sha256(self.recs)
        if not self.account.resumed and not is_new and self.nights.is_published(self.run_date, recs_sha256):
            self.nights.settle(self.run_date)
            raise NothingToDo(f"night {self.run_date} is published, and would come out the same")
        version = self.models.add(model, self.run_date) if is_new else Version(model)
        self.account.model = version.name
        with self.account.stage("publish"):
            report = asdict(self.account.report())
            self.nights.decide(self.run_date, report)
            self._put_in_place(report)

    def _put_in_place(self, report: dict[str, Any]) -> None:
        version = self.models.find(report["model"])
        rejects = rejects_of(self.sequences)
        self.nights.publish(self.run_date, self.recs, rejects, report, lambda: self.models.use(version))
