"""score --engine on a cluster of two workers: the table of plain score, row for row."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchrec.config import EngineName, ScoringConfig
from batchrec.engines import scoring_engine
from batchrec.errors import EngineError, InputError
from batchrec.scoring.score import score
from tests.support.engines import HISTORIES, assert_same, kill_workers, scorings, write_tables
from tests.support.models import trained_model, write_sequences

# pyspark 4 warns of pandas 3 whenever it is used.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


# Of the session, to start before a test has a temporary folder of its own: its path is too long for sockets of Ray.
@pytest.fixture(scope="session", params=["ray", "spark"])
def engine(request: pytest.FixtureRequest) -> EngineName:
    """Return an engine whose cluster runs."""
    name: EngineName = request.param
    request.getfixturevalue(name)
    return name


@pytest.mark.parametrize(
    "names", [("block", "pins", "segments", "items", "block_for_user"), ("users", "pins")], ids=["rules", "users"]
)
def test_the_table_equals_that_of_plain_score(engine: EngineName, names: tuple[str, ...], tmp_path: Path) -> None:
    assert_same(scorings(tmp_path, write_tables(tmp_path, *names), engine, scoring_engine(engine)))


def test_a_killed_worker_is_replaced(engine: EngineName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = scorings(tmp_path, {}, "local", None)
    kill_workers(monkeypatch, tmp_path / "killed")
    config = ScoringConfig(device="cpu", workers=2, engine=engine)
    out = tmp_path / "recs.parquet"
    score(tmp_path / "sequences.parquet", trained_model(), config, out, engine=scoring_engine(engine))
    assert (tmp_path / "killed").exists()
    assert_same([plain, out])


def test_a_worker_that_dies_again_and_again_ends_the_job(
    engine: EngineName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [1000], 801: [7, 8]})
    kill_workers(monkeypatch, None)
    config = ScoringConfig(device="cpu", workers=1, engine=engine)
    with pytest.raises(EngineError, match=f"--engine {engine}: "):
        score(sequences, trained_model(), config, tmp_path / "recs.parquet", engine=scoring_engine(engine))


def test_a_broken_history_is_one_error_and_leaves_the_table(engine: EngineName, tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    table = pq.read_table(sequences)
    times = table["timestamps"].to_pylist()
    times[600] = times[600][::-1]
    pq.write_table(table.set_column(2, table.schema.field(2), [times]), sequences)
    (tmp_path / "recs.parquet").write_text("the earlier table")
    config = ScoringConfig(device="cpu", engine=engine)
    with pytest.raises(InputError, match="user 601: the history is not in time order"):
        score(sequences, trained_model(), config, tmp_path / "recs.parquet", engine=scoring_engine(engine))
    assert (tmp_path / "recs.parquet").read_text() == "the earlier table"
