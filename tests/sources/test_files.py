"""Files and folders of a log: partitions, compression, table formats, and files that are skipped or damaged."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import BuildSequences
from tests.faults import mutated_parquet
from tests.support.log_files import HEADER, T, events, fails, log, write, write_parquet

pytestmark = pytest.mark.usefixtures("detected_unit")


def test_a_date_in_the_path_is_a_column(build: BuildSequences) -> None:
    for day, user in (("2024-01-01", 1), ("2024-01-02", 2)):
        path = f"plays/dt={day}/country=DE%20x"
        Path(path).mkdir(parents=True)
        pq.write_table(pa.table({"movieId": [10 * user]}), f"{path}/p.parquet")
        write(f"{path}/p.csv", f"movieId\n{10 * user + 1}\n")
    outcome = build("--ratings", "plays", "--timestamp-column", "dt", "--user-column", "country")
    assert outcome.histories == {"DE x": [*sorted([10, 11], key=outcome.histories["DE x"].index), 20, 21]} or (
        sorted(outcome.histories["DE x"]) == [10, 11, 20, 21]
    )
    assert sorted(outcome.times) == [1704067200, 1704067200, 1704153600, 1704153600]


def test_a_column_of_the_file_precedes_one_of_its_path(build: BuildSequences) -> None:
    write("plays/userId=7/dt=2024-01-01/p.csv", "userId,movieId\n1,2\n")
    assert build("--ratings", "plays", "--timestamp-column", "dt").histories == {1: [2]}


def test_every_column_of_a_log_may_be_written_in_the_path(build: BuildSequences) -> None:
    write("plays/userId=7/movieId=2/kind=buy/n=3/rating=4/dt=2024-01-01/page=1/p.csv", "other\n1\n")
    columns = "--timestamp-column dt --min-rating 4 --event-column kind --event-weights buy=2 --value-column n"
    assert build("--ratings", "plays", *columns.split()).histories == {7: [2]}


def test_a_partition_without_a_value_is_a_missing_value(build: BuildSequences) -> None:
    write("plays/userId=__HIVE_DEFAULT_PARTITION__/p.csv", f"movieId,timestamp\n1,{T}\n")
    write("plays/userId=5/p.csv", f"movieId,timestamp\n1,{T}\n")
    outcome = build("--ratings", "plays", "--max-bad-rows", "1")
    assert (outcome.histories, outcome.report["rejected"]) == ({5: [1]}, {"no user": 1})


def test_a_name_may_begin_with_a_tilde(build: BuildSequences) -> None:
    write("~plays/~p.csv", f"{HEADER}1,2,{T}\n")
    write("~plays/~p.jsonl", f'{{"userId": 1, "movieId": 3, "timestamp": {T}}}\n')
    write_parquet("~plays/~p.parquet", movieId=[4])
    for ratings in ("~plays", "~plays/*"):
        assert sorted(build("--ratings", ratings, "--out", "~out.parquet").histories[1]) == [2, 3, 4]


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        ("_delta_log/00.json", "Delta Lake"),
        (".hoodie/h", "Apache Hudi"),
        ("metadata/v1.metadata.json", "Apache Iceberg"),
        ("metadata/v1.metadata.json.gz", "Apache Iceberg"),
        ("dt=1/.hoodie_partition_metadata", "Apache Hudi"),
        ("schema/schema-0", "Apache Paimon"),
        ("delta_0000006_0000006/bucket_0", "Apache Hive"),
    ],
)
@pytest.mark.parametrize("where", ["plays", "plays/*/*.csv", "plays/dt=1/p.csv"])
def test_a_folder_of_a_table_format_is_refused_as_path_and_as_glob(
    build: BuildSequences, mark: str, kind: str, where: str
) -> None:
    write("plays/dt=1/p.csv", f"{HEADER}1,2,{T}\n")
    write(f"plays/{mark}", "{}")
    fails(build("--ratings", where), "plays", f"table of {kind}", "export")


def test_the_error_about_a_folder_without_known_suffixes_gives_the_glob_that_reads_it(build: BuildSequences) -> None:
    write("plays/dt=2024-01-01/part-00000", "userId,movieId\n1,2\n")
    write("plays/_SUCCESS", "")
    fails(build("--ratings", "plays"), "plays: no file found", "'part-00000'", "'plays/**/*'")
    assert build("--ratings", "plays/**/*", "--timestamp-column", "dt").histories == {1: [2]}


@pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes in folders")
def test_a_pipe_is_refused_by_that_name(build: BuildSequences) -> None:
    os.mkfifo("log.csv")
    fails(build("--ratings", "log.csv"), "log.csv: is a pipe, a device or a socket; expected a file. Save it")


def test_the_error_about_a_missing_column_lists_those_in_the_path(build: BuildSequences) -> None:
    write("plays/dt=2024-01-01/p.csv", "userId,movieId\n1,2\n")
    fails(build("--ratings", "plays"), "no column 'timestamp'; found userId, movieId, dt")


def test_a_date_in_three_folders_is_read_by_the_query_that_the_error_suggests(build: BuildSequences) -> None:
    for day, item in (("01", 10), ("02", 20)):
        write(f"plays/year=2024/month=01/day={day}/p.csv", f"userId,movieId\n1,{item}\n")
    time = "concat_ws('-', year, month, day) as timestamp"
    fails(build("--ratings", "plays"), "found userId, movieId.", f"--query with {time}", "hive_partitioning = true")
    files = "read_csv('plays/**/*.csv', hive_partitioning = true)"
    write("q.sql", f"from {files} select userId as user_id, movieId as item_id, {time}")
    assert events(build("--query", "q.sql")) == {1: [(10, 1704067200), (20, 1704153600)]}


def test_a_column_of_the_path_is_offered_in_place_of_a_missing_one(build: BuildSequences) -> None:
    write("plays/DT=2024-01-01/p.csv", "userId,movieId\n1,2\n")
    fails(build("--ratings", "plays", "--timestamp-column", "dt"), "did you mean 'DT'? Pass --timestamp-column\n")


def test_a_log_without_times_is_read_by_the_query_that_the_error_suggests(build: BuildSequences) -> None:
    write("ratings.csv", "userId,movieId\n1,30\n1,20\n")
    time = "row_number() over () as timestamp"
    fails(build(), f"--query with {time}")
    write("q.sql", f"from 'ratings.csv' select userId as user_id, movieId as item_id, {time}")
    assert build("--query", "q.sql").histories == {1: [30, 20]}


def test_skipped_files_of_a_folder_are_listed_in_one_warning(build: BuildSequences) -> None:
    for name in ("a.csv", "b.csv.bz2", "c.txt", "_d.csv", ".e.csv"):
        write(f"d/{name}", f"{HEADER}1,2,{T}\n")
    write("elsewhere/f.csv", f"{HEADER}9,2,{T}\n")
    Path("d/link").symlink_to(Path("elsewhere").resolve())
    for name in ("_SUCCESS", ".a.csv.crc", "_temporary/x"):
        write(f"d/{name}", "")
    outcome = build("--ratings", "d")
    assert outcome.histories == {1: [2]}
    assert outcome.stderr.count("\n") == 1
    for name in ("b.csv.bz2", "c.txt", "_d.csv", ".e.csv", "d/link"):
        assert name in outcome.stderr
    assert "_SUCCESS" not in outcome.stderr
    assert "crc" not in outcome.stderr


def test_zstandard_is_read_and_compression_is_detected_from_the_bytes(build: BuildSequences) -> None:
    with pa.output_stream("a.csv.zst", compression="zstd") as file:
        file.write(f"{HEADER}1,2,{T}\n".encode())
    write("b.csv", gzip.compress(f"{HEADER}1,3,{T + 1}\n".encode()))
    write("c.csv.gz", f"{HEADER}1,4,{T + 2}\n")
    write_parquet("d.csv", movieId=[5], timestamp=[T + 3])
    assert build("--ratings", "*.csv*").histories == {1: [2, 3, 4, 5]}


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("b.csv.gz", gzip.compress(b"", mtime=0)),
        ("b.csv.zst", pa.Codec("zstd").compress(b"\n", asbytes=True)),
        ("b.csv", b"\xef\xbb\xbf\r\n"),
        ("b.jsonl", b"\n \n"),
    ],
)
def test_a_part_without_text_is_empty_too(build: BuildSequences, name: str, contents: bytes) -> None:
    write("d/a.csv", f"{HEADER}1,2,{T}\n")
    write(f"d/{name}", contents)
    outcome = build("--ratings", "d")
    assert outcome.histories == {1: [2]}
    assert f"empty files are skipped: d/{name}" in outcome.stderr


def test_an_empty_file_among_others_is_skipped_with_a_warning(build: BuildSequences) -> None:
    write("d/a.csv", f"{HEADER}1,2,{T}\n")
    write("d/b.csv", "")
    write("d/_SUCCESS", "")
    for where in ("d", "d/*"):
        outcome = build("--ratings", where)
        assert outcome.histories == {1: [2]}
        assert "empty files are skipped" in outcome.stderr
        assert "b.csv" in outcome.stderr
    fails(build("--ratings", "d/b.csv"), "b.csv", "empty")


def test_a_file_of_another_format_is_refused_by_its_name_for_it(build: BuildSequences) -> None:
    with duckdb.connect("shop.duckdb") as con:
        con.execute("create table t as select 1 as userId")
    write("a.zip", b"PK\x03\x04" + bytes(range(256)))
    write("b.csv", b"SQLite format 3\0" + bytes(1000))
    write("c.csv", bytes(range(1, 256)).replace(b"\n", b"").replace(b"\r", b"") + b"\0\n")
    for name, kind in (("shop.duckdb", "DuckDB"), ("a.zip", "zip"), ("b.csv", "SQLite"), ("c.csv", "not text")):
        outcome = build("--ratings", name)
        fails(outcome, name, kind)
        assert len(outcome.stderr) < 300


def test_a_long_value_in_an_error_is_shortened(build: BuildSequences) -> None:
    log(f"1,2,{'x' * 100_000}")
    outcome = build()
    fails(outcome, "unreadable time")
    assert len(outcome.stderr) < 600


def test_a_damaged_parquet_footer_does_not_crash_the_process() -> None:
    # pyarrow crashes if such a column is read; all values exist.
    _, _, contents = mutated_parquet.mutation(174)
    write("ratings.parquet", contents)
    command = [sys.executable, "-m", "batchrec", "build-sequences", "--ratings", "ratings.parquet"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert sum(map(len, pq.read_table("sequences.parquet")["item_ids"].to_pylist())) == 12


def test_a_damaged_parquet_page_gives_a_one_line_error(build: BuildSequences) -> None:
    # DuckDB reports it as an internal error with a stack trace.
    _, _, contents = mutated_parquet.mutation(3348)
    write("ratings.parquet", contents)
    outcome = build("--ratings", "ratings.parquet")
    fails(outcome, "ratings.parquet", "damaged", "Information loss on integer cast")
    assert "Stack Trace" not in outcome.stderr


@pytest.mark.parametrize("quote", ["auto", "none"])
def test_a_flipped_bit_of_gzip_gives_a_one_line_error(build: BuildSequences, quote: str) -> None:
    # Far from the beginning, which is read to find the columns; stored uncompressed, so that any bit changes a row.
    text = HEADER + "".join(f"{n},{n % 9},{T + n}\n" for n in range(5000))
    contents = bytearray(gzip.compress(text.encode(), compresslevel=0))
    place = contents.index(b"\n4000,") + 1
    contents[place : place + 1] = b"5"
    write("ratings.csv.gz", bytes(contents))
    fails(build("--ratings", "ratings.csv.gz", "--quote", quote), "ratings.csv.gz", "damaged or cut off")
    write("ratings.csv.gz", gzip.compress(text.encode())[:-2000])
    fails(build("--ratings", "ratings.csv.gz", "--quote", quote), "ratings.csv.gz", "damaged or cut off")
