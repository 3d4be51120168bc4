"""The stages of a night, one after another; each takes up what an earlier, interrupted run of it has finished."""

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from batchrec.artifact import file_sha256, load_model
from batchrec.config import RunConfig, ScoringConfig, SequencesConfig, TrainingConfig
from batchrec.errors import ConfigError, InputError, ModelError, NothingToDo
from batchrec.nightly.account import Account
from batchrec.nightly.gates import input_checks, model_checks, rule_checks, table_checks
from batchrec.nightly.measuring import held_out_items, measure_histories, measure_table
from batchrec.nightly.models import Models, Version
from batchrec.nightly.nights import Nights
from batchrec.nightly.report import NightReport
from batchrec.nightly.training_due import due_by_age, due_by_figures, starting_from
from batchrec.scoring import ScoringReport, score
from batchrec.sequences import build_sequences, rejects_of
from batchrec.sources import find_files
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

        Raises GateError where a gate is not passed, NothingToDo where the same table is published already, and what the
        jobs raise.
        """
        self.nights.give_up_before(self._run_date)
        decided = self._decided()
        if decided is not None:
            _log.warning("an earlier run was killed while it published: that is done first, and alone")
            self.account.decided = decided
            self._put_in_place(asdict(decided))
            return
        self._check_paths()
        self._work.mkdir(mode=0o700, exist_ok=True)
        self._build_sequences()
        histories = file_sha256(self._sequences)
        in_use = self.models.current
        model = self._model(in_use)
        scored = self._score(model)
        if file_sha256(self._sequences) != histories:
            raise InputError(f"{self._sequences}: was changed while the night was made. Start it again")
        self._check(scored)
        self._publish(model, in_use)

    def _decided(self) -> NightReport | None:
        """Give the report of a run that was killed while it published; None where what it made is not whole."""
        report = self.nights.decided(self._run_date)
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
        if not os.access(self.models.folder, os.W_OK):
            raise ConfigError(f"{self.models.folder}: cannot be written. Pass another --models")
        for option, file in self.jobs.scoring.files.items():
            find_files([file], f"{option} FILE")

    def _build_sequences(self) -> None:
        """Build the histories: again in a run that goes on, for only their bytes tell whether the input is the same."""
        with self.account.stage("build-sequences") as found:
            built = build_sequences(self.jobs.ratings, self.jobs.sequences, self._sequences)
            found.update(asdict(built))
        before = self.nights.before(self._run_date)[-self.config.gate_nights :]
        earlier = [report["stages"] for report in self.nights.reports(before)]
        figures = measure_histories(self._sequences, self._run_date, self.nights.last_whole(before))
        self.account.check(input_checks(built, figures, earlier, self.config, self._run_date))

    def _model(self, in_use: Version | None) -> Path:
        """Give the model to score with: the one in use, or a new one where that is due."""
        account, figures = self.account, None
        reason = due_by_age(in_use, self.config, self._run_date)
        with held_out_items(self._sequences, self.jobs.training) as held_out:
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
            previous = self.nights.last_whole(self.nights.before(self._run_date))
            # Whom rules leave fewer than k items has a full list with those.
            full = min(self.jobs.scoring.top_k, scored.eligible_items)
            config = replace(self.jobs.scoring, top_k=max(1, full), run_date=str(self._run_date))
            figures = measure_table(self._recs, self._sequences, previous, config)
            found.update(asdict(figures))
        # Of the users in the histories, whatever the scorer says; only with --users is it they whom it was to score.
        n_users = figures.histories if self.jobs.scoring.users is None else scored.users
        checks = table_checks(figures, n_users, max(1, scored.eligible_items), self.config)
        last = self.nights.reports(self.nights.before(self._run_date)[-1:])
        self.account.check(checks + rule_checks(scored, last[0]["stages"] if last else None, self.config))

    def _publish(self, model: Path, in_use: Version | None) -> None:
        """Switch the model, then the table: each by a rename, and by the next run if this one is killed in between."""
        is_new = in_use is None or model != in_use.folder
        self.account.recs_sha256 = recs_sha256 = file_sha256(self._recs)
        if not self.account.resumed and not is_new and self.nights.is_published(self._run_date, recs_sha256):
            self.nights.settle(self._run_date)
            raise NothingToDo(f"night {self._run_date} is published, and would come out the same")
        version = self.models.add(model, self._run_date) if is_new else Version(model)
        self.account.model = version.name
        with self.account.stage("publish"):
            report = asdict(self.account.report())
            self.nights.decide(self._run_date, report)
            self._put_in_place(report)

    def _put_in_place(self, report: dict[str, Any]) -> None:
        version = self.models.find(report["model"])
        rejects = rejects_of(self._sequences)
        self.nights.publish(self._run_date, self._recs, rejects, report, lambda: self.models.use(version))
