"""A changed bit of a table is detected before any job uses the table, and each table is read from one file."""

import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig
from batchrec.errors import InputError
from batchrec.nightly.gates.output import measure_table
from batchrec.scoring.previous_table import open_previous
from batchrec.scoring.score import score
from batchrec.tables.parquet import write_parquet
from batchrec.tables.queries import select
from batchrec.tables.schemas import sequences_schema
from batchrec.tables.sealed_parquet import parquet_of
from batchrec.tables.sequences_table import Sequences, no_items, open_sequences
from tests.support.damage import flip_a_bit
from tests.support.models import SMALL, run_cli, sequences_table, trained_model, training_histories, write_sequences

SCHEMA = sequences_schema(pa.int64(), pa.int64())
HISTORIES = {user: [1000 + (7 * user + n) % 40 for n in range(user % 9 + 1)] for user in range(1, 40)}


def whole_table(histories: dict[int, list[int]]) -> pa.Table:
    table = sequences_table(histories)
    return table.append_column("also_seen", no_items(len(table), SCHEMA.field("also_seen").type)).cast(SCHEMA)


def write(path: Path, histories: dict[int, list[int]], max_rows: int = 16) -> Path:
    write_parquet(whole_table(histories).to_batches(max_chunksize=max_rows), SCHEMA, path)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "sequences.parquet", HISTORIES)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [row for batch in open_sequences(path).batches(10) for row in batch.to_pylist()]


@pytest.mark.parametrize("name", ["sequences", "previous"])
def test_a_flipped_bit_gives_a_one_line_error(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "sequences.parquet", training_histories())
    out = tmp_path / "recs.parquet"
    command = ["score", "--sequences", tmp_path / "sequences.parquet", "--model", trained_model(), "--device", "cpu"]
    assert run_cli(*command, "--out", out) == 0
    out.rename(tmp_path / "previous.parquet")
    damaged = tmp_path / f"{name}.parquet"
    contents = bytearray(damaged.read_bytes())
    contents[len(contents) // 3] ^= 4
    damaged.write_bytes(contents)
    capsys.readouterr()
    assert run_cli(*command, "--out", out, "--previous", tmp_path / "previous.parquet") == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"{name}.parquet: cannot be read: is not the file that was written" in lines[0]
    assert not out.exists()


@pytest.mark.parametrize("name", ["recs", "previous"])
def test_a_night_does_not_measure_a_table_with_a_flipped_bit(name: str, table: Path, tmp_path: Path) -> None:
    recs, previous = tmp_path / "recs.parquet", tmp_path / "previous.parquet"
    write(table, training_histories())
    for out in (recs, previous):
        score(table, trained_model(), ScoringConfig(device="cpu"), out)
    assert measure_table(recs, table, previous, ScoringConfig()).overlap == 1
    flip_a_bit(tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match=f"{name}.parquet: cannot be read: is not the file that was written"):
        measure_table(recs, table, previous, ScoringConfig())


def test_checksums_are_verified_if_a_table_has_no_seal(table: Path) -> None:
    # As another program would write it.
    pq.write_table(sequences_table(HISTORIES), table, write_page_checksum=True, compression="none")
    contents = bytearray(table.read_bytes())
    column = pq.ParquetFile(table).metadata.row_group(0).column(1)
    # The last byte of the last page.
    contents[(column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1] ^= 1
    table.write_bytes(contents)
    with pytest.raises(InputError, match="CRC checksum"):
        rows_of(table)


@pytest.mark.parametrize("name", [b"user_id", b"item_ids", b"element"])
def test_a_name_that_is_not_utf_8_gives_a_one_line_error(name: bytes, table: Path) -> None:
    pq.write_table(sequences_table(HISTORIES), table, store_schema=False)
    contents = table.read_bytes()
    assert name in contents
    table.write_bytes(contents.replace(name, b"\xff" + name[1:]))
    with pytest.raises(InputError, match="not a Parquet file: a name in the schema is not UTF-8"):
        open_sequences(table)


def test_the_seal_is_the_sha_256_of_the_file_with_zeros_in_its_place(table: Path) -> None:
    seal = pq.ParquetFile(table).metadata.metadata[b"batchrec.seal"]
    contents = table.read_bytes()
    assert contents.count(seal) == 1
    assert sha256(contents.replace(seal, b"0" * 64)).hexdigest().encode() == seal


def test_a_table_of_many_row_groups_is_sealed(tmp_path: Path) -> None:
    path, histories = tmp_path / "sequences.parquet", {user: [1000] for user in range(500)}
    write(path, histories, max_rows=1)
    # Longer than the end of the file in which the seal is searched.
    assert pq.ParquetFile(path).metadata.serialized_size > 1 << 16
    contents = bytearray(path.read_bytes())
    assert rows_of(path) == whole_table(histories).to_pylist()
    contents[10] ^= 1
    path.write_bytes(contents)
    with pytest.raises(InputError, match="is not the file that was written"):
        open_sequences(path)


def test_tables_without_a_seal_are_read(tmp_path: Path) -> None:
    path = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    assert rows_of(path) == whole_table(HISTORIES).to_pylist()


@pytest.mark.slow
def test_folders_named_like_columns_are_not_partitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    partitions = Path("user_id=7/item_id=5/rank=1/item_ids=1/timestamps=2024-01-01/model_id=x")
    for folder in (Path("plain"), partitions):
        folder.mkdir(parents=True)
        write(folder / "sequences.parquet", training_histories())
        # Every job that reads tables with SQL.
        for command in (
            ["train", *SMALL, "--max-epochs", 1, "--out", folder / "model"],
            ["score", "--device", "cpu", "--model", folder / "model", "--out", folder / "recs.parquet"],
            ["evaluate", *SMALL, "--max-epochs", 1, "--out", folder / "evaluation.parquet"],
        ):
            assert run_cli(*command, "--sequences", folder / "sequences.parquet") == 0, capsys.readouterr().err
    for name in ("recs.parquet", "evaluation.parquet"):
        result, expected = (pq.ParquetFile(folder / name).read() for folder in (partitions, Path("plain")))
        assert result.equals(expected)
    nights = [
        measure_table(f / "recs.parquet", f / "sequences.parquet", f / "recs.parquet", ScoringConfig())
        for f in (partitions, Path("plain"))
    ]
    assert nights[0] == nights[1]


def test_a_table_is_read_from_the_file_that_was_opened(table: Path, tmp_path: Path) -> None:
    opened = open_sequences(table)
    write(tmp_path / "other.parquet", {1: [1]}).replace(table)
    assert [row for batch in opened.batches(10) for row in batch.to_pylist()] == whole_table(HISTORIES).to_pylist()


def test_a_table_that_is_replaced_while_sql_reads_it_is_refused(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write(tmp_path / "other.parquet", {1: [1]})

    def replace_and_select(*arguments: Any, **values: Any) -> Any:
        shutil.copy(other, tmp_path / "copy.parquet")
        (tmp_path / "copy.parquet").replace(table)
        return select(*arguments, **values)

    monkeypatch.setattr("batchrec.tables.sequences_table.select", replace_and_select)
    with pytest.raises(InputError, match="was replaced while it was read"):
        open_sequences(table)


def test_an_earlier_table_is_read_from_the_file_that_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", training_histories())
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    for out, histories in ((other, {1: [1001]}), (one, training_histories())):
        write_sequences(sequences, histories)
        score(sequences, trained_model(), ScoringConfig(device="cpu"), out)
    schema, n_rows = pq.read_schema(one), pq.ParquetFile(one).metadata.num_rows
    n_opened = 0

    def opened(file: Any, **options: Any) -> pq.ParquetFile:
        nonlocal n_opened
        n_opened += 1
        # After the metadata and before the rows are read, another night takes the name.
        if n_opened == 2:
            other.replace(one)
        return parquet_of(file, **options)

    monkeypatch.setattr("batchrec.scoring.previous_table.parquet_of", opened)
    previous = open_previous(one, schema)
    assert previous is not None
    assert int(previous.n_rows.sum()) == n_rows
    assert n_opened == 2


@pytest.mark.parametrize("name", ["sequences", "previous"])
def test_a_pipe_is_refused_without_waiting(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for table in ("sequences", "previous"):
        if table == name:
            os.mkfifo(tmp_path / f"{table}.parquet")
        else:
            write(tmp_path / f"{table}.parquet", training_histories())
    options = ("--model", trained_model(), "--device", "cpu", "--out", tmp_path / "recs.parquet")
    tables = ("--sequences", tmp_path / "sequences.parquet", "--previous", tmp_path / "previous.parquet")
    assert run_cli("score", *tables, *options) == 3
    assert f"{name}.parquet" in capsys.readouterr().err


def test_check_same_detects_a_missing_file(table: Path) -> None:
    opened = open_sequences(table)
    assert opened == Sequences(table, opened.schema, len(HISTORIES), opened.columns, pa.OSFile(str(table)))
    opened.check_same()
    table.unlink()
    with pytest.raises(InputError, match="No such file"):
        opened.check_same()
