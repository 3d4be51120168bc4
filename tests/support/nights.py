"""Nights over a small log. Training is replaced by copying a tiny model that exists already."""

import csv
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from batchrec.config import RunConfig, ScoringConfig, SequencesConfig, SimilarConfig, TrainingConfig
from batchrec.model.directory import Manifest, load_model
from batchrec.nightly import night as night_module
from batchrec.nightly.archive import Archive
from batchrec.nightly.gates.model import HeldOutItems, MeasuredModel
from batchrec.nightly.jobs import Jobs
from batchrec.nightly.registry import ModelRegistry
from batchrec.nightly.report import ModelFigures, NightReport
from batchrec.nightly.run import run
from batchrec.targets import open_target
from tests.support.models import OBJECTIVES, model_of, names_in, training_histories

FIRST = date(2024, 3, 1)
# Tiny models rank badly and leave little to recommend. The gates have their own tests.
LENIENT = RunConfig(
    report=False, gate_min_users=0.0, gate_min_full_lists=0.0, gate_max_top_items=1.0, gate_min_overlap=0.0
)


def night(number: int) -> date:
    """Return the run date of a night, counted from 0."""
    return FIRST + timedelta(days=number)


@dataclass(frozen=True)
class Trained:
    """The part of a training's report that a night uses."""

    model_id: str
    seconds: float = 0.0


@dataclass
class Company:
    """A folder with a log, in which nights are run. Trainings return the tiny models of the objectives in turn."""

    folder: Path
    config: RunConfig = LENIENT
    scoring: ScoringConfig = field(default_factory=lambda: ScoringConfig(top_k=3, device="cpu"))
    trainings: list[TrainingConfig] = field(default_factory=list)
    figures: dict[str, ModelFigures] = field(default_factory=dict)
    # Where the table is published; the file recs.parquet in the folder if it is not given.
    target: str | None = None
    # The tiny models store no neighbours.
    similar: SimilarConfig = field(default_factory=lambda: SimilarConfig(method="vectors", top_k=2))
    similar_target: str | None = None

    @property
    def out(self) -> str:
        return self.target or str(self.folder / "recs.parquet")

    @property
    def similar_out(self) -> str:
        return self.similar_target or str(self.folder / "similar.parquet")

    @property
    def jobs(self) -> Jobs:
        ratings = [str(self.folder / "ratings.csv")]
        training = TrainingConfig(n_layers=1)
        return Jobs(ratings, SequencesConfig(), training, self.scoring, self.out, self.similar, self.similar_out)

    @property
    def run_config(self) -> RunConfig:
        """The config with the company's own folders."""
        return replace(self.config, nights=str(self.folder / "nights"), models=str(self.folder / "models"))

    @property
    def archive(self) -> Archive:
        similar = open_target(self.similar_out, "similar") if self.config.similar else None
        return Archive(self.folder / "nights", open_target(self.out, self.scoring.layout), similar)

    @property
    def registry(self) -> ModelRegistry:
        return ModelRegistry(self.folder / "models")

    def write_log(self, histories: Mapping[Any, Sequence[int]]) -> None:
        with (self.folder / "ratings.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["userId", "movieId", "timestamp"])
            for user, items in histories.items():
                writer.writerows([user, item, 1_700_000_000 + place] for place, item in enumerate(items))

    def run(self, night: int = 0, **options: Any) -> NightReport:
        """Run the night that is `night` days after the first."""
        config = replace(self.run_config, **options)
        return run(self.jobs, config, FIRST + timedelta(days=night), self.folder / "metrics.prom")

    def run_killed(
        self, monkeypatch: pytest.MonkeyPatch, home: Any, name: str, *, ends: str = "before", night: int = 0
    ) -> None:
        """Run a night that is killed before or after a step, the attribute `name` of `home`."""
        step = getattr(home, name)

        def killed(*arguments: Any) -> None:
            if ends == "after":
                step(*arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(home, name, killed)
            with pytest.raises(KeyboardInterrupt):
                self.run(night)

    def rows(self, run_date: date | None = None) -> list[dict[str, Any]]:
        """Return the rows of the current table, or of a night's table."""
        return rows_of(self.folder / "recs.parquet" if run_date is None else self.archive.table(run_date))

    def rows_of(self, name: str) -> list[dict[str, Any]]:
        return rows_of(self.folder / name)

    def state(self) -> dict[str, bytes | str]:
        """Return everything that a reader may look at: the tables by night, the current table, and the models."""
        tables: dict[str, bytes | str] = {
            str(night): self.archive.table(night).read_bytes() for night in self.archive.dates()
        }
        out = self.folder / "recs.parquet"
        in_use = self.registry.current
        return tables | {
            "out": out.read_bytes() if out.exists() else b"",
            "models": " ".join(sorted(names_in(self.registry.folder))) if self.registry.folder.exists() else "",
            "in use": in_use.name if in_use else "",
        }

    def manifest(self) -> Manifest:
        in_use = self.registry.current
        assert in_use is not None
        return in_use.manifest

    def train(self, sequences: Path, config: TrainingConfig, out: Path, checkpoint_dir: Path) -> Trained:
        """Replace train: write the causal model first, the masked one next, and so on."""
        assert sequences.is_file()
        assert checkpoint_dir.parent == out.parent
        model = model_of("causal" if len(self.trainings) % 2 == 0 else "masked")
        self.trainings.append(config)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(model, out)
        return Trained(load_model(out).manifest.model_id)

    def measure(self, model: Path) -> ModelFigures:
        """Replace the figures of the tiny models: a little better than popularity, unless `figures` has others."""
        model_id = load_model(model).manifest.model_id
        return self.figures.get(model_id, ModelFigures(model_id, 0.2, 0.1, 0.0))


def rows_of(table: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(table).to_pylist()
    return rows


def ids() -> tuple[str, str]:
    """Return the ids of the models that the first and the second training return."""
    causal, masked = (load_model(model_of(objective)).manifest.model_id for objective in OBJECTIVES)
    return causal, masked


def later(user: int = 5) -> dict[int, list[int]]:
    """Return the log with one more event: an item that is new to the user."""
    history = training_histories()[user]
    new = next(item for item in range(1000, 1040) if item not in history)
    return training_histories() | {user: [*history, new]}


def report_of(shop: Company, number: int) -> Path:
    """Return the file of the report of a published night."""
    return shop.archive.table(night(number)).parent / "report.json"


def metric(shop: Company, name: str) -> float:
    """Return a metric from the file that a monitor reads."""
    lines = (shop.folder / "metrics.prom").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"batchrec_{name} "))


@contextmanager
def company(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    """Set up a company whose log holds the histories that the tiny models were trained on."""
    made = Company(folder)
    made.write_log(training_histories())
    monkeypatch.setattr(night_module, "train", made.train)
    monkeypatch.setattr(HeldOutItems, "measure", lambda _, model, *__: MeasuredModel(made.measure(model), np.empty(0)))
    yield made
