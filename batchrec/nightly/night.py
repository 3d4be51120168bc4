"""The stages of a night, in order. Each resumes from what an earlier, interrupted run of the night finished."""

import logging
import os
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from batchrec.config import RunConfig
from batchrec.engines import scoring_engine, sequences_builder
from batchrec.errors import ConfigError, InputError, ModelError, NothingToDo, RefusedError
from batchrec.nightly.archive import HISTORIES, RECS, SIMILAR, Archive
from batchrec.nightly.gates.input import input_checks, measure_histories
from batchrec.nightly.gates.model import HeldOutItems, MeasuredModel, held_out_items, model_checks
from batchrec.nightly.gates.output import measure_table, output_checks
from batchrec.nightly.gates.rules import rule_table_checks
from batchrec.nightly.gates.similar import similar_checks
from batchrec.nightly.jobs import Jobs
from batchrec.nightly.journal import NightJournal
from batchrec.nightly.publish_steps import Publication
from batchrec.nightly.registry import ModelRegistry, ModelVersion
from batchrec.nightly.report import Check, NightReport
from batchrec.nightly.retraining import due_by_age, due_by_figures, due_by_parts, starting_from
from batchrec.scoring.processes import score_file
from batchrec.scoring.report import ScoringReport
from batchrec.sequences.build import build_sequences, rejects_of
from batchrec.similarity.similar import similar
from batchrec.similarity.table_check import measure_similar
from batchrec.sources import find_files, is_table_url, table_columns
from batchrec.system.disk import file_sha256, make_folder, put_on_disk
from batchrec.targets import check_tables
from batchrec.training.train import train

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Night:
    """A night in progress. It works in a folder of its own until every gate has passed."""

    jobs: Jobs
    config: RunConfig
    archive: Archive
    registry: ModelRegistry
    journal: NightJournal

    @property
    def _run_date(self) -> date:
        return self.journal.run_date

    @property
    def _work(self) -> Path:
        return self.archive.work(self._run_date)

    @property
    def _sequences(self) -> Path:
        return self._work / HISTORIES

    @property
    def _recs(self) -> Path:
        return self._work / RECS

    def run(self) -> None:
        """Make the table and publish it.

        Raises GateError if a gate fails, NothingToDo if the same table is published already, and the errors of the
        jobs.
        """
        # A killed run may have renamed files without syncing their folders.
        for target in self.archive.targets:
            target.sync()
        put_on_disk(folder for folder in (self.archive.folder, self.registry.folder) if folder.is_dir())
        finished = [night for night in self._decided() if night.finish()]
        self.journal.finished_first += [night.journal.run_date for night in finished if night is not self]
        if any(night is self for night in finished):
            return
        self.archive.discard_work_before(self._run_date)
        self._check_paths()
        make_folder(self._work, 0o700)
        self._build_sequences()
        histories = file_sha256(self._sequences)
        in_use = self.registry.current
        model = self._choose_model(in_use)
        scored = self._score(model)
        similar = self._find_similar(model)
        if file_sha256(self._sequences) != histories:
            raise InputError(f"{self._sequences}: changed during the run. Run it again")
        self._check(scored)
        self._publish(model, in_use, similar)

    def _decided(self) -> list["Night"]:
        """List the nights, of any date, that a killed run had started to publish: these are finished first."""
        return [
            self if night == self._run_date else replace(self, journal=NightJournal(night, resumed=True))
            for night in self.archive.decisions.dates()
        ]

    def finish(self) -> bool:
        """Finish publishing the night as a killed run had decided. Returns False if that is no longer possible.

        In that case, if the night's own folder is complete, its tables become the current ones, unless a target has
        refused them.
        """
        try:
            if self._publish_decided():
                return True
        except RefusedError as error:
            # Every later run would be refused again.
            self.journal.decided = None
            _log.warning("night %s is not published: %s", self._run_date, error)
        self.archive.decisions.remove(self._run_date)
        return False

    def _publish_decided(self) -> bool:
        decisions, name = self.archive.decisions, f"night {self._run_date}"
        decisions.sync(self._run_date)
        decided = self.archive.decided(self._run_date)
        if decided is not None and decisions.is_rolled_back(self._run_date, decided.report["recs_sha256"]):
            _log.warning("%s was about to be published but was rolled back; it stays rolled back", name)
        elif decided is not None and (version := self.registry.find_intact(decided.report["model"])) is not None:
            _log.warning("%s: an earlier run was killed while publishing it, so it is finished first", name)
            self.journal.decided = NightReport(**decided.report)
            check_tables(self.archive.tables(decided.report, decided.recs, decided.similar))
            self._publication(decided.recs, decided.similar, version).publish(self.archive, self.registry)
            return True
        else:
            _log.warning(
                "%s was about to be published, but its table, report or model is lost or damaged, so it is not", name
            )
            recs_sha256 = self.archive.recs_sha256(self._run_date)
            if self.archive.is_complete(self._run_date) and not self.archive.is_published(
                self._run_date, str(recs_sha256)
            ):
                self.archive.make_current(self._run_date)
        return False

    def _check_paths(self) -> None:
        """Check up front what the end of the night needs, before hours of training."""
        make_folder(self.registry.folder)
        if not os.access(self.registry.folder, os.W_OK):
            raise ConfigError(f"{self.registry.folder}: cannot be written. Pass another --models")
        for option, file in self.jobs.files(self.config):
            if is_table_url(file):
                table_columns(file)
            else:
                find_files([file], f"{option} FILE")

    def _build_sequences(self) -> None:
        """Rebuild the histories, even when resuming: only their bytes show whether the input has changed."""
        with self.journal.stage("build-sequences") as report:
            config = replace(self.jobs.sequences, run_date=str(self._run_date))
            built = build_sequences(self.jobs.ratings, config, self._sequences, sequences_builder(config.engine))
            report.update(asdict(built))
        if not self.archive.dates() and self.archive.current.sha256() is not None:
            _log.warning(
                "%s holds a table, but %s no night, so no gate compares tonight with earlier nights. If they are "
                "elsewhere, as on a disk that is not mounted, restore them, and publish this night again",
                self.archive.current,
                self.archive.folder,
            )
        before = self.archive.dates_before(self._run_date)[-self.config.gate_nights :]
        earlier = [kept["stages"] for kept in self.archive.reports(before)]
        figures = measure_histories(self._sequences, self._run_date, self.archive.last_intact(before))
        report["newest_until_tonight"] = figures.newest.isoformat()
        if before and self.config.gate_min_input > 0:
            self._check_any_intact("input", "reports", len(earlier), "--gate-min-input")
        self.journal.check(input_checks(built, figures, earlier, self.config, self._run_date))

    def _check_any_intact(self, gate: str, kind: str, n_intact: int, option: str) -> None:
        """Check that there is something to compare tonight with: otherwise the gate would pass any table."""
        if not n_intact:
            _log.warning("no %s of earlier nights are intact; pass %s 0 to publish once without them", kind, option)
        self.journal.check([Check(gate, f"intact {kind} of earlier nights", n_intact, minimum=1)])

    def _choose_model(self, in_use: ModelVersion | None) -> Path:
        """Return the model to score with: a new one if training is due, otherwise the one in use."""
        with held_out_items(self._sequences, self.jobs.training, self._run_date) as held_out:
            measured, reason = self._evaluate_current(in_use, held_out)
            if in_use is not None and reason is None:
                return in_use.folder
            self.journal.trained_because = reason
            _log.info("training: %s", reason)
            return self._retrain(in_use, measured, held_out)

    def _evaluate_current(
        self, in_use: ModelVersion | None, held_out: HeldOutItems
    ) -> tuple[MeasuredModel | None, str | None]:
        """Measure the model in use, and check it against its gate if it is kept.

        Returns the measured model, None if it cannot be used, and why a training is due, None if none is.
        """
        due = due_by_age(in_use, self.config, self._run_date)
        if in_use is None:
            return None, due
        try:
            with self.journal.stage("evaluate") as report:
                measured = held_out.measure(in_use.folder, self.jobs.scoring)
                figures = self.journal.add_model(measured.figures)
                report.update(asdict(figures))
        except ModelError as error:
            due = f"the model in use cannot be used: {error}"
            _log.warning("%s", due)
            return None, due
        due = due or due_by_parts(in_use, self.jobs, self.config) or due_by_figures(figures, self.config)
        if due is None:
            self.journal.check(model_checks(figures, None, self.config))
        return measured, due

    def _retrain(self, in_use: ModelVersion | None, measured: MeasuredModel | None, held_out: HeldOutItems) -> Path:
        """Train a new model, and check it against its gate. measured: the model in use; None if it cannot be used."""
        model, figures = self._work / "model", None if measured is None else measured.figures
        with self.journal.stage("train") as report:
            training = starting_from(in_use, figures, self.jobs.training, self.config)
            report.update(asdict(train(self._sequences, training, model, self._work / "training")))
        with self.journal.stage("evaluate-new") as report:
            new_figures = self.journal.add_model(held_out.measure(model, self.jobs.scoring, measured).figures)
            report.update(asdict(new_figures))
        self.journal.check(model_checks(new_figures, figures, self.config))
        return model

    def _score(self, model: Path) -> ScoringReport:
        previous = self.archive.last_intact([night for night in self.archive.dates() if night <= self._run_date])
        with self.journal.stage("score") as report:
            config = replace(
                self.jobs.scoring, previous=None if previous is None else str(previous), run_date=str(self._run_date)
            )
            engine = scoring_engine(config.engine)
            scored = score_file(self._sequences, model, config, self._recs, self._work / "scoring", engine)
            report.update(asdict(scored))
        return scored

    def _find_similar(self, model: Path) -> Path | None:
        """Make and check the table of similar items; None if the night makes none."""
        if not self.config.similar:
            return None
        config = replace(self.jobs.similar, run_date=str(self._run_date))
        table = self._work / SIMILAR
        with self.journal.stage("similar") as report:
            made = similar(model, config, table, self._sequences)
            report.update(asdict(made), sha256=file_sha256(table))
        self.journal.check(similar_checks(made, measure_similar(table, config), self._last_stages() or {}, self.config))
        return table

    def _check(self, scored: ScoringReport) -> None:
        with self.journal.stage("check") as report:
            before = self.archive.dates_before(self._run_date)
            previous = self.archive.last_intact(before)
            # If rules leave fewer than k items, a list of all of them is full.
            full = min(self.jobs.scoring.top_k, scored.eligible_items)
            config = replace(self.jobs.scoring, top_k=max(1, full), run_date=str(self._run_date))
            figures = measure_table(self._recs, self._sequences, previous, config)
            report.update(asdict(figures))
        if before and self.config.gate_min_overlap > 0:
            self._check_any_intact("output", "tables", int(previous is not None), "--gate-min-overlap")
        # Counted in the histories, not taken from the scorer's report, unless --users lists the users to score.
        n_users = figures.histories if self.jobs.scoring.users is None else scored.users
        checks = output_checks(figures, n_users, max(1, scored.eligible_items), self.config)
        self.journal.check(checks + rule_table_checks(scored, self._last_stages(), self.config))

    def _last_stages(self) -> dict[str, Any] | None:
        """Return the stages of last night's report; None without one."""
        last = self.archive.reports(self.archive.dates_before(self._run_date)[-1:])
        return last[0]["stages"] if last else None

    def _publish(self, model: Path, in_use: ModelVersion | None, similar: Path | None) -> None:
        """Decide to publish the night, then publish it. If this run is killed in between, the next one finishes it."""
        is_new = in_use is None or model != in_use.folder
        self.journal.recs_sha256 = recs_sha256 = file_sha256(self._recs)
        is_rolled_back = self.archive.decisions.is_rolled_back(self._run_date, recs_sha256)
        is_same = not self.journal.resumed and not is_new
        is_published = self.archive.is_published(
            self._run_date, recs_sha256, None if similar is None else file_sha256(similar)
        )
        if is_published and (is_same or is_rolled_back):
            self.archive.clean_up(self._run_date)
            state = "was rolled back and stays rolled back" if is_rolled_back else "is published already"
            raise NothingToDo(f"night {self._run_date} {state}, and this run made the same table")
        # Once decided, a night that its target never takes would be tried first by every later run.
        check_tables(self.archive.tables(asdict(self.journal.report()), self._recs, similar))
        version = self.registry.add(model, self._run_date) if is_new else ModelVersion(model)
        self.journal.model = version.name
        with self.journal.stage("publish"):
            self.archive.decisions.add(self._run_date, asdict(self.journal.report()))
            try:
                self._publication(self._recs, similar, version).publish(self.archive, self.registry)
            except RefusedError:
                self.archive.decisions.remove(self._run_date)
                raise

    def _publication(self, recs: Path, similar: Path | None, version: ModelVersion) -> Publication:
        rejects, report = rejects_of(self._sequences), asdict(self.journal.report())
        histories = self._sequences if self.config.report else None
        return Publication(self._run_date, recs, similar, rejects, histories, report, version)
