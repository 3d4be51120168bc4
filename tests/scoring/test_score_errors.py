import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from batchrec.config import ScoringConfig
from batchrec.errors import ConfigError
from batchrec.model import ranker
from batchrec.scoring.offer import Offer, read_offer
from batchrec.scoring.score import score
from tests.support.models import (
    N_ITEMS,
    names_in,
    run_cli,
    sequences_table,
    trained_model,
    training_histories,
    write_sequences,
)


class Job:
    """`batchrec score` in a folder with an older recs.parquet."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.sequences = write_sequences(folder / "sequences.parquet", {1: [1001, 1002], 2: [1003]})
        self.out = folder / "recs.parquet"
        self.out.write_bytes(b"the older one")

    def assert_fails(self, exit_code: int, *options: object) -> str:
        """Fails with one line, which is given, and touches nothing."""
        before = names_in(self.folder)
        arguments = ("--sequences", self.sequences, "--model", trained_model(), "--out", self.out, "--device", "cpu")
        self.capsys.readouterr()
        assert run_cli("score", *arguments, *options) == exit_code
        printed = self.capsys.readouterr()
        assert printed.out == ""
        assert len(printed.err.splitlines()) == 1
        assert self.out.read_bytes() == b"the older one"
        # The scored chunks are kept for the next run.
        assert names_in(self.folder) - {".recs.parquet.progress"} == before
        return printed.err

    def write(self, **columns: pa.Array) -> None:
        """Write the sequences again, with other columns."""
        table = sequences_table({1: [1001, 1002], 2: [1003]}).to_pydict()
        pq.write_table(pa.table(table | columns), self.sequences)


@pytest.fixture
def job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Job:
    trained_model()
    return Job(tmp_path, capsys)


ids, lists = pa.int64(), pa.list_(pa.int64())
BROKEN_COLUMNS: dict[str, tuple[str, pa.Array]] = {
    "null user": ("user_id", pa.array([1, None], ids)),
    "repeated user": ("user_id", pa.array([7, 7], ids)),
    "float users": ("user_id", pa.array([1.5, 2.5])),
    "dates as users": ("user_id", pa.array([1, 2], pa.date32())),
    "null list": ("item_ids", pa.array([[1001, 1002], None], lists)),
    "null item": ("item_ids", pa.array([[1001, None], [1003]], lists)),
    "ragged lists": ("item_ids", pa.array([[1001], [1003]], lists)),
    "float items": ("item_ids", pa.array([[1.5, 2.5], [1003]], pa.list_(pa.float64()))),
    "items that are no lists": ("item_ids", pa.array([1001, 1003], ids)),
    "null list of times": ("timestamps", pa.array([[1, 2], None], lists)),
    "null time": ("timestamps", pa.array([[1, None], [3]], lists)),
    "times of unequal length": ("timestamps", pa.array([[1, 2, 3], [3]], lists)),
    "backwards time": ("timestamps", pa.array([[2, 1], [3]], lists)),
    "text as times": ("timestamps", pa.array([["a", "b"], ["c"]], pa.list_(pa.string()))),
    "times that are no lists": ("timestamps", pa.array([1, 3], ids)),
    "users beyond int64": ("user_id", pa.array([1, 2**64 - 1], pa.uint64())),
    "everything null": ("item_ids", pa.nulls(2)),
}


@pytest.mark.parametrize(("column", "values"), BROKEN_COLUMNS.values(), ids=BROKEN_COLUMNS.keys())
def test_sequences_that_break_the_contract_are_refused(column: str, values: pa.Array, job: Job) -> None:
    job.write(**{column: values})
    message = job.assert_fails(3)
    assert "sequences.parquet" in message


def test_times_may_decrease_from_one_user_to_the_next(tmp_path: Path) -> None:
    table = sequences_table({1: [1001], 2: [1003]}).set_column(2, "timestamps", [pa.array([[9], [1]], lists)])
    pq.write_table(table, tmp_path / "sequences.parquet")
    config = ScoringConfig(device="cpu")
    assert score(tmp_path / "sequences.parquet", trained_model(), config, tmp_path / "recs.parquet").users == 2


@pytest.mark.parametrize("column", ["user_id", "item_ids", "timestamps"])
def test_a_missing_column_is_named_with_the_existing_ones(column: str, job: Job) -> None:
    pq.write_table(sequences_table({1: [1001]}).drop_columns([column]), job.sequences)
    message = job.assert_fails(3)
    assert column in message
    assert all(name in message for name in ("user_id", "item_ids", "timestamps"))


@pytest.mark.parametrize("column", ["user_id", "item_ids", "timestamps"])
def test_a_duplicate_column_is_refused(column: str, job: Job) -> None:
    table = sequences_table({1: [1001]})
    pq.write_table(table.append_column(column, table[column]), job.sequences)
    assert column in job.assert_fails(3)


def test_a_broken_row_far_into_the_sequences_leaves_no_partial_table(job: Job) -> None:
    histories = {user: [1001, 1002] for user in range(50)}
    table = sequences_table(histories).to_pydict()
    table["timestamps"][49] = [2, 1]
    pq.write_table(pa.table(table), job.sequences)
    assert "49" in job.assert_fails(3, "--chunk-size", 5, "--workers", 2)


@pytest.mark.parametrize("contents", [b"", b"user_id,item_ids\n1,2\n", b"PAR1 and nothing more PAR1"])
def test_a_file_that_is_not_parquet_is_refused(contents: bytes, job: Job) -> None:
    job.sequences.write_bytes(contents)
    assert "sequences.parquet" in job.assert_fails(3)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9, 0.99])
def test_truncated_sequences_are_refused(share: float, job: Job) -> None:
    contents = write_sequences(job.sequences, training_histories()).read_bytes()
    job.sequences.write_bytes(contents[: int(share * len(contents))])
    assert "sequences.parquet" in job.assert_fails(3)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_garbage_pages_are_refused(column: int, job: Job) -> None:
    write_sequences(job.sequences, training_histories())
    chunk = pq.ParquetFile(job.sequences).metadata.row_group(0).column(column)
    contents = bytearray(job.sequences.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    contents[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    job.sequences.write_bytes(contents)
    assert "sequences.parquet" in job.assert_fails(3)


def test_sequences_without_users_are_refused(job: Job) -> None:
    write_sequences(job.sequences, {})
    job.assert_fails(3)


def test_missing_sequences_are_refused(job: Job) -> None:
    job.sequences.unlink()
    assert "build-sequences" in job.assert_fails(3)


def test_a_missing_model_is_refused(job: Job) -> None:
    assert "batchrec train" in job.assert_fails(4, "--model", job.folder / "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--top-k", 0), "--top-k"),
        (("--top-k", -3), "--top-k"),
        (("--top-k", N_ITEMS + 1), str(N_ITEMS)),
        (("--top-k", "ten"), "--top-k"),
        (("--chunk-size", 0), "--chunk-size"),
        (("--batch-tokens", 0), "--batch-tokens"),
        (("--workers", 0), "--workers"),
        (("--device", "tpu"), "--device"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: tuple[object, ...], message: str, job: Job) -> None:
    assert message in job.assert_fails(2, *options)


def test_a_missing_output_folder_is_refused(job: Job) -> None:
    assert "nowhere" in job.assert_fails(2, "--out", job.folder / "nowhere" / "recs.parquet")


def test_a_folder_as_output_is_refused_before_any_work(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrec.scoring.scorer.Scorer.score", lambda *_: pytest.fail("the work has begun"))
    (job.folder / "folder").mkdir()
    assert "folder" in job.assert_fails(2, "--out", job.folder / "folder")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error_before_any_work(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrec.scoring.scorer.Scorer.score", lambda *_: pytest.fail("the work has begun"))
    assert "--device cpu" in job.assert_fails(5, "--device", "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("has_device", [False, True])
def test_auto_logs_once_that_it_scores_on_the_cpu(
    has_device: bool, job: Job, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranker, "has_nvidia_device", lambda: has_device)
    ranker._announce_cpu.cache_clear()
    caplog.set_level("INFO", "batchrec")
    for _ in range(2):
        assert score(job.sequences, trained_model(), ScoringConfig(), job.out).device == "cpu"
    logged = [(record.levelname, record.message) for record in caplog.records if "CPU" in record.message]
    assert [level for level, _ in logged] == ["WARNING" if has_device else "INFO"]
    assert logged[0][1].startswith("no GPU works (" if has_device else "there is no NVIDIA GPU")


@pytest.mark.usefixtures("no_device")
def test_the_output_of_onnxruntime_is_not_in_the_report(
    job: Job,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranker, "has_nvidia_device", lambda: True)
    ranker._announce_cpu.cache_clear()
    assert run_cli("score", "--sequences", job.sequences, "--model", trained_model(), "--out", job.out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["device"] == "cpu"
    assert "CUDA failure 100" in caplog.text


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_run_as_a_program_prints_nothing_superfluous(device: str, job: Job) -> None:
    command = [sys.executable, "-m", "batchrec", "score", "--device", device]
    command += ["--sequences", str(job.sequences), "--model", str(trained_model()), "--out", str(job.out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    n_lines = 1 if device == "auto" and not torch.cuda.is_available() else 0
    assert len(done.stderr.splitlines()) == n_lines, done.stderr


USER_LIST_ERRORS = {
    "no header": "505\n3\n",
    "text for integers": "user_id\n505\nanna\n",
    "fraction": "user_id\n505.5\n",
    "nothing": "",
    "an empty id": "user_id,x\n,1\n3,2\n",
    "other columns": "name,age\nx,3\n",
    "header alone": "user_id\n",
    "ragged": "user_id,x\n3,1\n505,1,7\n",
    "beyond int64": "user_id\n99999999999999999999\n",
    "the column twice": "user_id,user_id\n3,3\n",
}


@pytest.mark.parametrize("text", USER_LIST_ERRORS.values(), ids=USER_LIST_ERRORS.keys())
def test_a_list_of_users_that_cannot_be_read_is_refused(text: str, job: Job) -> None:
    (job.folder / "users.csv").write_text(text, encoding="utf-8")
    assert "users.csv" in job.assert_fails(3, "--users", job.folder / "users.csv")


def test_a_missing_list_of_users_is_refused(job: Job) -> None:
    assert "users.csv" in job.assert_fails(3, "--users", job.folder / "users.csv")


CATALOGUE_ERRORS = {
    "nothing": "",
    "header alone": "movieId,title\n",
    "no title": "movieId,name\n1001,x\n",
    "ragged": "movieId,title\n1001,x\n1002,y,z\n",
    "titles empty": "movieId,title\n1001,\n",
    "twice": "movieId,title,title\n1001,x,y\n",
}


@pytest.mark.parametrize("text", CATALOGUE_ERRORS.values(), ids=CATALOGUE_ERRORS.keys())
def test_a_catalogue_that_cannot_be_read_is_refused(text: str, job: Job) -> None:
    (job.folder / "movies.csv").write_text(text, encoding="utf-8")
    assert "movies.csv" in job.assert_fails(3, "--items", job.folder / "movies.csv")


def test_sequences_replaced_during_the_run_leave_the_old_table(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(*arguments: Any) -> Offer:
        offer = read_offer(*arguments)
        write_sequences(job.folder / "new.parquet", {1: [1001], 9: [1004, 1005]}).replace(job.sequences)
        return offer

    monkeypatch.setattr("batchrec.scoring.inputs.read_offer", replaced)
    assert f"{job.sequences}: was replaced while it was read" in job.assert_fails(3)


def test_an_error_while_writing_leaves_the_old_table(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_batch", fail)
    assert "No space left" in job.assert_fails(2)


def test_no_thread_scores_after_an_error_of_the_writer(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_batch", fail)
    config = ScoringConfig(device="cpu", workers=4, chunk_size=1)
    with pytest.raises(ConfigError, match="No space left") as raised:
        score(job.sequences, trained_model(), config, job.out)
    # The traceback keeps the frames of score alive.
    assert raised.tb is not None
    assert [thread.name for thread in threading.enumerate() if "PoolExecutor" in thread.name] == []


def test_a_bug_keeps_its_traceback_and_leaves_the_old_table(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("batchrec.scoring.scorer.Scorer.score", fail)
    with pytest.raises(ZeroDivisionError):
        run_cli("score", "--sequences", job.sequences, "--model", trained_model(), "--out", job.out, "--device", "cpu")
    assert job.out.read_bytes() == b"the older one"
    assert names_in(job.folder) == {"sequences.parquet", "recs.parquet"}


@pytest.mark.parametrize(
    "name", ["it's; drop table x.parquet", "$path ${x}.parquet", "a*[b]?.parquet", "new\nline.parquet"]
)
def test_special_characters_in_file_names_are_accepted(name: str, tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / name, {1: [1001]})
    write_sequences(tmp_path / "a-b-c.parquet", {2: [1001]})
    assert score(sequences, trained_model(), ScoringConfig(device="cpu"), tmp_path / f"out {name}").users == 1
    assert set(pq.read_table(tmp_path / f"out {name}")["user_id"].to_pylist()) == {1}
