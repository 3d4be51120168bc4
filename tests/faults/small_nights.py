"""Nights in which only the jobs are replaced: their tables are lines of text, and each job takes hardly any time."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchrec.config import RunConfig, ScoringConfig, SequencesConfig, SimilarConfig, TrainingConfig
from batchrec.errors import BatchrecError, ModelError
from batchrec.model.directory import ENCODER, ITEMS, MANIFEST, Manifest, read_manifest, replacing_model
from batchrec.model.graph import WEIGHTS
from batchrec.nightly import night as night_module
from batchrec.nightly import registry
from batchrec.nightly.archive import Archive
from batchrec.nightly.gates.input import HistoriesFigures
from batchrec.nightly.gates.model import MeasuredModel
from batchrec.nightly.gates.output import TableFigures
from batchrec.nightly.jobs import Jobs
from batchrec.nightly.page import NightPages
from batchrec.nightly.registry import ModelRegistry
from batchrec.nightly.report import ModelFigures
from batchrec.nightly.rollback import roll_back
from batchrec.nightly.run import run
from batchrec.similarity.similar import SimilarReport
from batchrec.similarity.table_check import SimilarFigures
from batchrec.system.atomic import replacing
from batchrec.tables.schemas import MODEL_VERSION
from batchrec.targets import open_target
from tests.support.models import SHAPE

FIRST = date(2024, 3, 1)
CONFIG = RunConfig(train_every="2d", keep=2, keep_models=2, similar=True)
# A Parquet file shows by its end whether it is complete. A table here is complete if it has all three lines.
_TABLE = re.compile(r"(table of (\d{4}-\d\d-\d\d) by (\w+) from (\w+)\n)\1\1")


@dataclass(frozen=True)
class Built:
    rows_read: int
    users: int
    items: int
    newest: str
    rejected: dict[str, int]


@dataclass(frozen=True)
class Scored:
    model_id: str
    users: int
    rows: int
    eligible_items: int
    users_carried_over: int = 0
    rule_rows: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    model_id: str


@dataclass(frozen=True)
class Table:
    """The contents of a complete table."""

    night: date
    model_id: str
    log: str


@dataclass
class SmallShop:
    """A folder with three disks: one for the current table, one for the nights, one for the models."""

    root: Path
    config: RunConfig = CONFIG
    log: str = "whole"

    @property
    def settled(self) -> RunConfig:
        places = {"nights": str(self.root / "disk-2/nights"), "models": str(self.root / "disk-3/models")}
        return RunConfig(**asdict(self.config) | places)

    @property
    def out(self) -> Path:
        return self.root / "disk-1/recs.parquet"

    @property
    def similar_out(self) -> Path:
        return self.root / "disk-1/similar.parquet"

    @property
    def archive(self) -> Archive:
        return Archive(Path(self.settled.nights), open_target(str(self.out)), open_target(str(self.similar_out)))

    @property
    def registry(self) -> ModelRegistry:
        return ModelRegistry(Path(self.settled.models))

    def run(self, night: int, log: str = "whole") -> int:
        """Run the night that is `night` days after the first, on a log; return the exit code."""
        self.log = log
        configs = SequencesConfig(), TrainingConfig(), ScoringConfig()
        jobs = Jobs(["no.csv"], *configs, str(self.out), similar_out=str(self.similar_out))
        with the_jobs_of(self):
            try:
                run(jobs, self.settled, FIRST + timedelta(days=night))
            except BatchrecError as error:
                return error.exit_code
        return 0

    def roll_back(self) -> date:
        with the_jobs_of(self):
            return roll_back(self.archive)

    def table_out(self) -> Table | None:
        """Return the current table, None if it does not exist; fail if it is not complete."""
        return table_in(self.out) if self.out.exists() else None

    def similar_table_out(self) -> Table | None:
        """Return the current table of similar items, None if it does not exist; fail if it is not complete."""
        return table_in(self.similar_out) if self.similar_out.exists() else None

    def model_in_use(self) -> str | None:
        """Return the id of the model in use, None if there is none; fail if one of its files has changed."""
        current = self.registry.current
        return None if current is None else digested(current.folder).manifest.model_id

    def leftovers(self) -> list[str]:
        """Return the hidden files that remain, except the lock, and probes, which the next writer removes."""
        return sorted(
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.name.startswith(".") and path.name != ".lock" and path.suffix != ".probe"
        )


def table_in(file: Path) -> Table:
    found = _TABLE.fullmatch(file.read_text(encoding="utf-8"))
    assert found, f"{file}: not a complete table: {file.read_bytes()!r}"
    return Table(date.fromisoformat(found[2]), found[3], found[4])


@dataclass(frozen=True)
class Digested:
    """A model directory whose files were all compared with their digests."""

    manifest: Manifest


def digested(folder: Path) -> Digested:
    """Replace load_model, because these models have no graph that can be loaded."""
    manifest = read_manifest(folder)
    for name, expected in manifest.files.items():
        if not (folder / name).is_file() or sha256((folder / name).read_bytes()).hexdigest() != expected:
            raise ModelError(f"{folder}: {name} has changed")
    return Digested(manifest)


def write_model(folder: Path, seed: str) -> str:
    """Write a model of a few bytes; return its id."""
    contents = {name: f"{name} of {seed}\n".encode() for name in (ENCODER, ITEMS, WEIGHTS)}
    for name, written in contents.items():
        (folder / name).write_bytes(written)
    files = {name: sha256(written).hexdigest() for name, written in contents.items()}
    model_id = sha256((files[WEIGHTS] + files[ITEMS]).encode()).hexdigest()[:12]
    manifest = Manifest(MODEL_VERSION, model_id, 1, asdict(SHAPE), {}, {}, files).sealed()
    (folder / MANIFEST).write_bytes(manifest.to_json())
    return model_id


@contextmanager
def the_jobs_of(shop: SmallShop) -> Iterator[None]:
    """Replace the jobs, which take minutes, by jobs that write lines of text."""

    def build_sequences(_ratings: Any, _config: Any, out: Path, _builder: Any) -> Built:
        with replacing(out) as temporary:
            temporary.write_text(shop.log, encoding="utf-8")
        n_rows = 10 if shop.log == "half" else 100
        return Built(n_rows, n_rows, n_rows, "2024-02-29 00:00:00", {})

    @contextmanager
    def held_out_items(*_: Any) -> Iterator["HeldOut"]:
        yield HeldOut()

    def train(sequences: Path, _config: Any, out: Path, _checkpoint_dir: Path) -> Trained:
        with replacing_model(out) as folder:
            return Trained(write_model(folder, f"{out.parent.name}{sequences.read_text()}"))

    def score_file(sequences: Path, model: Path, config: ScoringConfig, out: Path, *_: Any) -> Scored:
        model_id = digested(model).manifest.model_id
        with replacing(out) as temporary:
            temporary.write_text(f"table of {config.run_date} by {model_id} from {sequences.read_text()}\n" * 3)
        return Scored(model_id, 100, 100, 100)

    def similar(model: Path, config: SimilarConfig, out: Path, sequences: Path) -> SimilarReport:
        model_id = digested(model).manifest.model_id
        with replacing(out) as temporary:
            temporary.write_text(f"table of {config.run_date} by {model_id} from {sequences.read_text()}\n" * 3)
        return SimilarReport(str(out), model_id, "blended", 100, 100, {}, 100, 0, {}, 100, 0.0)

    with pytest.MonkeyPatch.context() as patch:
        # It needs real tables, and is written after everything else.
        patch.setattr(NightPages, "write_next_to_report", lambda *_: None)
        for stand_in in (build_sequences, held_out_items, train, score_file, similar):
            patch.setattr(night_module, stand_in.__name__, stand_in)
        newest = datetime(2024, 2, 29, tzinfo=UTC)
        patch.setattr(night_module, "measure_histories", lambda *_: HistoriesFigures(newest, 0))
        # A figure of 100 passes every minimum.
        figures: dict[str, Any] = dict.fromkeys((figure.name for figure in fields(TableFigures)), 100)
        figures |= {"faults": {}, "broken_rules": [], "overlap": None, "top_items_share": 0.1}
        patch.setattr(night_module, "measure_table", lambda *_: TableFigures(**figures))
        patch.setattr(night_module, "measure_similar", lambda *_: SimilarFigures({}, []))
        patch.setattr(registry, "load_model", digested)
        yield


class HeldOut:
    """Replace the held-out items by ones that every model ranks well."""

    def measure(self, model: Path, *_: object) -> MeasuredModel:
        return MeasuredModel(ModelFigures(digested(model).manifest.model_id, 0.2, 0.1, 0.0), np.empty(0))


def new_shop(root: Path) -> SmallShop:
    for number in (1, 2, 3):
        (root / f"disk-{number}").mkdir(parents=True)
    return SmallShop(root)
