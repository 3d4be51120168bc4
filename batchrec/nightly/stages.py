"""The stages of a night, one after another; each takes up what an earlier, interrupted run of it has finished."""

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

from batchrec.config import RunConfig, ScoringConfig, SequencesConfig, TrainingConfig
from batchrec.errors import ConfigError, InputError, ModelError, NothingToDo
from batchrec.model.directory import load_model
from batchrec.nightly.archive import Nights
from batchrec.nightly.figures import held_out_items, measure_histories, measure_table
from batchrec.nightly.gates import input_checks, model_checks, rule_checks, table_checks
from batchrec.nightly.journal import Account
from batchrec.nightly.registry import Models, Version
from batchrec.nightly.report import Check, NightReport
from batchrec.nightly.retraining import due_by_age, due_by_figures, starting_from
from batchrec.scoring.score import ScoringReport, score
from batchrec.sequences.build import build_sequences, rejects_of
from batchrec.sources import find_files
from batchrec.system.disk import file_sha256, make_folder, put_on_disk
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
class Night:
    """A night in the making, in a folder of its own until all of it is right."""

    jobs: Jobs
    config: RunConfig
    nights: Nights
    models: Models
    account: Account

    @property
    def _run_date(self) -> date:
        return self.account.run_date

    @property
    def _work(self) -> Path:
        return self.nights.work(self._run_date)

    @property
    def _sequences(self) -> Path:
        return self._work / "sequences.parquet"

    @property
    def _recs(self) -> Path:
        return self._work / "recs.parquet"

    def run(self) -> None:
        """Make the table and publish it.

        Raises GateError if a gate is not passed, NothingToDo if the same table is published already, and what the jobs
        raise.
        """
        # What a run that was killed has renamed may not be on the disk yet; from here on it is.
        folders = (Path(os.path.realpath(self.nights.out)).parent, self.nights.folder, self.models.folder)
        put_on_disk(folder for folder in folders if folder.is_dir())
        finished = [night for night in self._decided() if night.finish()]
        if any(night is self for night in finished):
            return
        self.nights.give_up_before(self._run_date)
        self._check_paths()
        make_folder(self._work, 0o700)
        self._build_sequences()
        histories = file_sha256(self._sequences)
        in_use = self.models.current
        model = self._model(in_use)
        scored = self._score(model)
        if file_sha256(self._sequences) != histories:
            raise InputError(f"{self._sequences}: was changed while the night was made. Start it again")
        self._check(scored)
        self._publish(model, in_use)

    def _decided(self) -> list["Night"]:
        """List the nights, of whatever dates, whose publishing a run had begun that was killed: those go first."""
        return [
            self if date == self._run_date else replace(self, account=Account(date, resumed=True))
            for date in self.nights.decisions.dates()
        ]

    def finish(self) -> bool:
        """Publish the night as an earlier run, which was killed meanwhile, had decided; False if it cannot be any more.

        Then no more of it is published than was already: that is put out.
        """
        decisions, name = self.nights.decisions, f"night {self._run_date}"
        decisions.keep(self._run_date)
        found = self.nights.decided(self._run_date)
        if found is not None and decisions.is_rolled_back(self._run_date, found[0]["recs_sha256"]):
            _log.warning("%s was about to be published but was rolled back; it stays rolled back", name)
        elif found is not None and (version := self._whole_model(found[0]["model"])) is not None:
            _log.warning("%s: an earlier run was killed while it published: that is done first", name)
            self.account.decided = NightReport(**found[0])
            self._put_in_place(found[1], version)
            return True
        else:
            _log.warning("%s was to be published: its table, report or model is lost or damaged, and it is not", name)
            recs_sha256 = self.nights.recs_sha256(self._run_date)
            if self.nights.is_whole(self._run_date) and not self.nights.is_published(self._run_date, str(recs_sha256)):
                self.nights.put_out(self._run_date)
        decisions.drop(self._run_date)
        return False

    def _whole_model(self, name: str) -> Version | None:
        """Find a version; None if it is lost or damaged."""
        try:
            version = self.models.find(name)
            load_model(version.folder)
        except (ConfigError, ModelError) as error:
            _log.warning("%s", error)
            return None
        return version

    def _check_paths(self) -> None:
        """Look for what a night needs at its end, before it spends hours on a training."""
        make_folder(self.models.folder)
        if not os.access(self.models.folder, os.W_OK):
            raise ConfigError(f"{self.models.folder}: cannot be written. Pass another --models")
        for option, file in self.jobs.scoring.files.items():
            find_files([file], f"{option} FILE")

    def _build_sequences(self) -> None:
        """Build the histories: again in a run that goes on, for only their bytes tell whether the input is the same."""
        with self.account.stage("build-sequences") as found:
            config = replace(self.jobs.sequences, run_date=str(self._run_date))
            built = build_sequences(self.jobs.ratings, config, self._sequences)
            found.update(asdict(built))
        before = self.nights.before(self._run_date)[-self.config.gate_nights :]
        earlier = [report["stages"] for report in self.nights.reports(before)]
        figures = measure_histories(self._sequences, self._run_date, self.nights.last_whole(before))
        found["newest_until_tonight"] = figures.newest.isoformat()
        if before and self.config.gate_min_input > 0:
            self._check_whole("input", "reports", len(earlier), "--gate-min-input")
        self.account.check(input_checks(built, figures, earlier, self.config, self._run_date))

    def _check_whole(self, gate: str, what: str, n_whole: int, option: str) -> None:
        """Check that there is something to compare tonight with: where all is damaged a gate would pass anything."""
        if not n_whole:
            _log.warning("no %s of the nights before are whole; to do without them once, pass %s 0", what, option)
        self.account.check([Check(gate, f"whole {what} of the nights before", n_whole, least=1)])

    def _model(self, in_use: Version | None) -> Path:
        """Give the model to score with: the one in use, or a new one where that is due."""
        account, figures = self.account, None
        reason = due_by_age(in_use, self.config, self._run_date)
        with held_out_items(self._sequences, self.jobs.training, self._run_date) as held_out:
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
            new = self._work / "model"
            with account.stage("train") as found:
                training = starting_from(in_use, figures, self.jobs.training, self.config)
                found.update(asdict(train(self._sequences, training, new, self._work / "training")))
            with account.stage("evaluate-new") as found:
                new_figures = account.measured(held_out.measure(new, self.jobs.scoring))
                found.update(asdict(new_figures))
        account.check(model_checks(new_figures, figures, self.config))
        return new

    def _score(self, model: Path) -> ScoringReport:
        previous = self.nights.last_whole([night for night in self.nights.dates() if night <= self._run_date])
        with self.account.stage("score") as found:
            config = replace(
                self.jobs.scoring, previous=None if previous is None else str(previous), run_date=str(self._run_date)
            )
            scored = score(self._sequences, model, config, self._recs, self._work / "scoring")
            found.update(asdict(scored))
        return scored

    def _check(self, scored: ScoringReport) -> None:
        with self.account.stage("check") as found:
            before = self.nights.before(self._run_date)
            previous = self.nights.last_whole(before)
            # Whom rules leave fewer than k items has a full list with those.
            full = min(self.jobs.scoring.top_k, scored.eligible_items)
            config = replace(self.jobs.scoring, top_k=max(1, full), run_date=str(self._run_date))
            figures = measure_table(self._recs, self._sequences, previous, config)
            found.update(asdict(figures))
        if before and self.config.gate_min_overlap > 0:
            self._check_whole("output", "tables", int(previous is not None), "--gate-min-overlap")
        # Of the users in the histories, whatever the scorer says; only with --users is it they whom it was to score.
        n_users = figures.histories if self.jobs.scoring.users is None else scored.users
        checks = table_checks(figures, n_users, max(1, scored.eligible_items), self.config)
        last = self.nights.reports(self.nights.before(self._run_date)[-1:])
        self.account.check(checks + rule_checks(scored, last[0]["stages"] if last else None, self.config))

    def _publish(self, model: Path, in_use: Version | None) -> None:
        """Switch the model, then the table: each by a rename, and by the next run if this one is killed in between."""
        is_new = in_use is None or model != in_use.folder
        self.account.recs_sha256 = recs_sha256 = file_sha256(self._recs)
        is_rolled_back = self.nights.decisions.is_rolled_back(self._run_date, recs_sha256)
        is_same = not self.account.resumed and not is_new
        if self.nights.is_published(self._run_date, recs_sha256) and (is_same or is_rolled_back):
            self.nights.settle(self._run_date)
            state = "was rolled back, and stays so" if is_rolled_back else "is published"
            raise NothingToDo(f"night {self._run_date} {state}, and would come out the same")
        version = self.models.add(model, self._run_date) if is_new else Version(model)
        self.account.model = version.name
        with self.account.stage("publish"):
            self.nights.decisions.publish(self._run_date, asdict(self.account.report()))
            self._put_in_place(self._recs, version)

    def _put_in_place(self, recs: Path, version: Version) -> None:
        rejects = rejects_of(self._sequences)
        report = asdict(self.account.report())
        self.nights.publish(self._run_date, recs, rejects, report, lambda: self.models.use(version))
