"""The messages of every engine and the work of its workers, with an engine whose one worker is this process."""

import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from batchrec.config import EngineName, ScoringConfig, SequencesConfig
from batchrec.engines import scoring_engine, sequences_builder
from batchrec.engines.scoring_workers import ScoringWorker, chunks_of, shared_by
from batchrec.engines.shipping import from_bytes, outcome, result_of, to_bytes
from batchrec.errors import ConfigError, GateError, InputError
from batchrec.scoring.engine import ScoredChunks
from batchrec.scoring.inputs import ScoringInputs
from batchrec.scoring.score import score
from batchrec.sequences.build import build_sequences
from tests.support.engines import assert_same, scorings, write_tables
from tests.support.models import sequences_table, trained_model, write_sequences


class OneWorker:
    """Ships everything as bytes, to a worker in this process."""

    def score(self, inputs: ScoringInputs) -> ScoredChunks:
        shared = shared_by(inputs, 2, "cpu")
        worker = ScoringWorker(shared.parts)
        for chunk in chunks_of(shared, "cpu"):
            yield result_of(worker.score(chunk))


@pytest.mark.parametrize(
    "names",
    [(), ("block", "pins", "segments", "items", "block_for_user"), ("users", "pins")],
    ids=["plain", "rules", "users"],
)
def test_workers_make_the_rows_of_plain_score(names: tuple[str, ...], tmp_path: Path) -> None:
    assert_same(scorings(tmp_path, write_tables(tmp_path, *names), "ray", OneWorker()))


def test_workers_score_users_who_could_be_carried_over(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [1000, 1001], 2: [1002]})
    config = ScoringConfig(device="cpu")
    score(sequences, trained_model(), config, tmp_path / "plain.parquet")
    config = replace(config, engine="ray", previous=str(tmp_path / "plain.parquet"))
    report = score(sequences, trained_model(), config, tmp_path / "again.parquet", engine=OneWorker())
    assert report.users_carried_over == 0
    assert_same([tmp_path / "plain.parquet", tmp_path / "again.parquet"])


def test_an_error_of_a_worker_is_the_error_of_score(tmp_path: Path) -> None:
    table = sequences_table({1: [1000, 1001], 2: [1002, 1003]})
    backwards = pa.array([[0, 1], [5, 4]], pa.list_(pa.int64()))
    pa.parquet.write_table(table.set_column(2, "timestamps", backwards), tmp_path / "sequences.parquet")
    config = ScoringConfig(device="cpu", engine="ray")
    with pytest.raises(InputError, match="user 2: the history is not in time order"):
        score(tmp_path / "sequences.parquet", trained_model(), config, tmp_path / "recs.parquet", engine=OneWorker())
    assert not (tmp_path / "recs.parquet").exists()


def test_workers_that_differ_are_refused(tmp_path: Path) -> None:
    class TwoVersions(OneWorker):
        def score(self, inputs: ScoringInputs) -> ScoredChunks:
            for number, chunk in enumerate(super().score(inputs)):
                metadata = chunk.recs.schema.metadata
                made_by = metadata[b"batchrec.made_by"].replace(b'"cpu"', b'"cuda"') if number else None
                changed = metadata | ({b"batchrec.made_by": made_by} if made_by else {})
                yield replace(chunk, recs=chunk.recs.replace_schema_metadata(changed))

    with pytest.raises(ConfigError, match=r"workers differ: .*'device': 'cuda'"):
        scorings(tmp_path, {}, "ray", TwoVersions())
    assert not (tmp_path / "ray.parquet").exists()


def test_a_table_without_the_users_of_a_chunk_is_refused(tmp_path: Path) -> None:
    class LosesAChunk(OneWorker):
        def score(self, inputs: ScoringInputs) -> ScoredChunks:
            yield from list(super().score(inputs))[:-1]

    with pytest.raises(GateError, match="of 702 users were scored"):
        scorings(tmp_path, {}, "ray", LosesAChunk())
    assert not (tmp_path / "ray.parquet").exists()


def test_a_slice_is_shipped_without_the_rest_of_its_batch() -> None:
    batch = sequences_table({user: list(range(100)) for user in range(1000)}).to_batches()[0]
    part = batch.slice(500, 2)
    assert from_bytes(to_bytes(part)).equals(part)
    assert len(to_bytes(part)) < 10_000


def test_a_bug_in_a_worker_is_no_outcome() -> None:
    def broken() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        outcome(broken)


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("spark", "pyspark")])
def test_a_missing_package_is_named_with_its_extra(
    name: EngineName, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"--engine {name}: .*pip install 'batchrec\[{name}\]'"):
        scorings(tmp_path, {}, name, scoring_engine(name))
    assert not (tmp_path / f"{name}.parquet").exists()


def test_an_engine_that_is_named_but_not_given_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--engine ray: no engine is given"):
        scorings(tmp_path, {}, "ray", None)
    (tmp_path / "ratings.csv").write_text("userId,movieId,timestamp\n1,2,1700000000\n")
    with pytest.raises(ConfigError, match="--engine spark: no engine is given"):
        build_sequences([str(tmp_path / "ratings.csv")], SequencesConfig(engine="spark"), tmp_path / "s.parquet")


def test_a_query_is_refused_before_spark_starts(tmp_path: Path) -> None:
    (tmp_path / "log.sql").write_text("select 1 as user_id, 2 as item_id, 3 as timestamp")
    config = SequencesConfig(engine="spark", query=str(tmp_path / "log.sql"))
    with pytest.raises(ConfigError, match="--query runs on one machine"):
        build_sequences([], config, tmp_path / "s.parquet", sequences_builder("spark"))
