"""Input of build-sequences: times, ids, files, queries, and rows that cannot be used."""

import csv
import gzip
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import BuildSequences

HEADER = "userId,movieId,rating,timestamp\n"
NEW_YEAR = 1577836800  # 2020-01-01 00:00:00 UTC


def write_parquet(name: str, **columns: Any) -> None:
    """Write ratings of one event, with the given columns replaced."""
    ratings = {"userId": [1], "movieId": [2], "rating": [3.0], "timestamp": [4]} | columns
    with Path(name).open("wb") as file:
        pq.write_table(pa.table(ratings), file)


def rejects(name: str = "sequences.rejects.csv") -> list[list[str]]:
    with Path(name).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# Times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1577836800", NEW_YEAR),
        ("1577836800.75", NEW_YEAR),
        ("1577836800.0", NEW_YEAR),
        ("1.5778368E9", NEW_YEAR),
        ("1577836800123", NEW_YEAR),
        ("1577836800123456", NEW_YEAR),
        ("1577836800123456.0", NEW_YEAR),
        ("0", 0),
        ("-1", -1),
        ("-0.5", -1),
        ("2020-01-01", NEW_YEAR),
        ("2020-01-01 00:00", NEW_YEAR),
        ("2020-01-01 00:00:00", NEW_YEAR),
        ("2020-01-01T00:00:00.999999", NEW_YEAR),
        ("2020-01-01T00:00:00Z", NEW_YEAR),
        ("2020-01-01T02:00:00+02:00", NEW_YEAR),
        ("2019-12-31 18:30:00-05:30", NEW_YEAR),
        ("2020-01-01 02:00:00+02", NEW_YEAR),
        ("1969-12-31 23:59:59.5", -1),
        ("9999-12-31 23:59:59.999999", 253402300799),
    ],
)
def test_a_time_in_a_csv_is_read_as_utc_seconds(build: BuildSequences, text: str, seconds: int) -> None:
    Path("ratings.csv").write_text(f"{HEADER}1,2,3,{text}\n1,3,3,2000-01-01\n")
    unit = "auto" if len(text) > 4 else "s"
    assert build("--timestamp-unit", unit).times == sorted([seconds, 946684800])


@pytest.mark.parametrize(
    ("unit", "number"), [("s", NEW_YEAR), ("ms", NEW_YEAR * 1000), ("us", NEW_YEAR * 10**6), ("s", 1), ("us", 5)]
)
def test_a_unit_that_is_given_is_not_guessed(build: BuildSequences, unit: str, number: int) -> None:
    Path("ratings.csv").write_text(f"{HEADER}1,2,3,{number}\n")
    divisor = {"s": 1, "ms": 1000, "us": 10**6}[unit]
    assert build("--timestamp-unit", unit).times == [number // divisor]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([NEW_YEAR], pa.int32()),
        pa.array([NEW_YEAR], pa.int64()),
        pa.array([NEW_YEAR + 0.5], pa.float64()),
        pa.array([NEW_YEAR * 1000.0], pa.float64()),
        pa.array([str(NEW_YEAR)]),
        pa.array(["2020-01-01T01:00:00+01:00"]),
        pa.array([date(2020, 1, 1)]),
        *(pa.array([datetime(2020, 1, 1)], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")),
        pa.array([datetime(2020, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        pa.array([datetime(2020, 1, 1, 9, tzinfo=timezone(timedelta(hours=9)))], pa.timestamp("ms", "Asia/Tokyo")),
    ],
    ids=lambda values: str(values.type),
)
def test_a_time_in_parquet_is_read_as_utc_seconds(build: BuildSequences, values: pa.Array) -> None:
    write_parquet("r.parquet", timestamp=values)
    assert build("--ratings", "r.parquet", "--timestamp-unit", "auto").times == [NEW_YEAR]


def test_times_do_not_depend_on_the_machines_zone(build: BuildSequences, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    Path("ratings.csv").write_text(f"{HEADER}1,2,3,2020-01-01 00:00:00\n")
    outcome = build()
    assert outcome.times == [NEW_YEAR]
    assert outcome.report["oldest"] == "2020-01-01 00:00:00"


# Ids


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["17850", "-3", "0"], [17850, -3, 0]),
        (["9223372036854775807"], [2**63 - 1]),
        (["9223372036854775808"], ["9223372036854775808"]),
        (["17850.0", "5.0", "5"], [17850, 5]),
        (["007", "8"], ["007", "8"]),
        (["71053", "85123A"], ["71053", "85123A"]),
        (["1.5", "2"], ["1.5", "2"]),
        (["+5", "5"], ["+5", "5"]),
        ([" 5", "5", "5.00", "-0"], [5, 0]),
        (["A03   ", "A03", "A03", "\u00a0b"], ["A03", "\u00a0b"]),
        (["1e3"], ["1e3"]),
        (["NULLE", "true"], ["NULLE", "true"]),
        (["a\0b"], ["a\0b"]),
        (["#1", "--"], ["#1", "--"]),
        (["'; drop table events; --"], ["'; drop table events; --"]),
    ],
)
def test_ids_of_a_csv_are_integers_only_if_all_are_written_as_integers(
    build: BuildSequences, written: list[str], read: list[Any]
) -> None:
    Path("ratings.csv").write_text(HEADER + "".join(f"{text},{text},3,4\n" for text in written))
    histories = build().histories
    assert set(histories) == set(read)
    assert {item for items in histories.values() for item in items} == set(read)


@pytest.mark.parametrize(
    ("values", "read"),
    [
        (pa.array([17850, 2], pa.int32()), {17850, 2}),
        (pa.array([17850.0, 2.0], pa.float64()), {17850, 2}),
        (pa.array([2.0**53 - 1, 2.0], pa.float64()), {2**53 - 1, 2}),
        (pa.array(["123", "4"]), {"123", "4"}),
        (pa.array(["123", "4"]).dictionary_encode(), {"123", "4"}),
        (pa.array([17850, 2]).dictionary_encode(), {17850, 2}),
        (pa.array(["17850.0", "4"]), {"17850.0", "4"}),
        (pa.array([2**63, 1], pa.uint64()), {"9223372036854775808", "1"}),
    ],
    ids=lambda values: str(values.type) if isinstance(values, pa.Array) else "",
)
def test_ids_of_parquet_keep_their_type(build: BuildSequences, values: pa.Array, read: set[Any]) -> None:
    write_parquet("r.parquet", userId=values, movieId=values, rating=[3, 3], timestamp=[4, 4])
    assert set(build("--ratings", "r.parquet").histories) == read


def test_a_gap_in_a_column_of_floats_is_an_event_without_a_user(build: BuildSequences) -> None:
    write_parquet("r.parquet", userId=[1.0, None, float("nan")], movieId=[2] * 3, rating=[3] * 3, timestamp=[4] * 3)
    outcome = build("--ratings", "r.parquet", "--max-bad-rows", "2")
    assert outcome.report["rejected"] == {"no user": 2}
    assert outcome.histories == {1: [2]}


# Files


@pytest.mark.parametrize(
    "text",
    [
        "userId,movieId,rating,timestamp\n1,2,3,4\n1,3,3,5",
        "userId,movieId,rating,timestamp\r\n1,2,3,4\r\n1,3,3,5\r\n",
        "userId,movieId,rating,timestamp\r1,2,3,4\r1,3,3,5\r",
        "\ufeffuserId,movieId,rating,timestamp\n1,2,3,4\n1,3,3,5\n",
        '\ufeff"userId","movieId","rating","timestamp"\n"1","2","3","4"\n1,3,3,5\n',
        "timestamp,rating,movieId,userId\n4,3,2,1\n5,3,3,1\n",
        "userId;movieId;rating;timestamp\n1;2;3,5;4\n1;3;3,5;5\n",
        "userId\tmovieId\trating\ttimestamp\n1\t2\t3\t4\n1\t3\t3\t5\n",
        "userId|movieId|rating|timestamp\n1|2|3|4\n1|3|3|5\n",
        "userId\x1fmovieId\x1frating\x1ftimestamp\n1\x1f2\x1f3\x1f4\n1\x1f3\x1f3\x1f5\n",
        "userId,movieId,rating,timestamp\n1,2,3,4\n\n1,3,3,5\n\n",
        'title,userId,movieId,timestamp\r\n"Avengers, The\r\n""1""",1,2,4\r\n"a\nb",1,3,5\r\n',
        'title,userId,movieId,timestamp\n"Avengers, The\r\n""1""",1,2,4\n"a\nb",1,3,5\n',
        '"ti\ntle",userId,movieId,timestamp\r\nx,1,2,4\r\nx,1,3,5\r\n',
        '"ti\r\ntle",userId,movieId,timestamp\nx,1,2,4\nx,1,3,5\n',
        '"a\nb,c",userId,movieId,timestamp\nx,1,2,4\nx,1,3,5\n',
        'title,userId,movieId,timestamp\n5" pipe,1,2,4\nx,1,3,5\n',
        "x,x,,userId,movieId,timestamp\n0,0,0,1,2,4\n0,0,0,1,3,5\n",
        "USERID,userId,movieId,timestamp\n9,1,2,4\n9,1,3,5\n",
        "source_0,column_3,userId,movieId,timestamp\n9,9,1,2,4\n9,9,1,3,5\n",
    ],
)
def test_csv_files_are_read_in_every_style(build: BuildSequences, text: str) -> None:
    Path("ratings.csv").write_bytes(text.encode())
    assert build().histories == {1: [2, 3]}


def test_a_gzip_of_several_members_is_read_to_its_end(build: BuildSequences) -> None:
    Path("r.csv.gz").write_bytes(gzip.compress(f"\ufeff{HEADER}1,2,3,4\n".encode()) + gzip.compress(b"1,3,3,5\n"))
    assert build("--ratings", "r.csv.gz").histories == {1: [2, 3]}


def _many_files() -> None:
    """Write four events of user 1 to files of four layouts: items 2, 3, 4, 5 at times 4, 5, 6, 7."""
    Path("d/deep").mkdir(parents=True)
    Path("d/a.csv").write_text(f"{HEADER}1,2,3,4\n")
    Path("d/b.CSV").write_text("timestamp;movieId;userId\n5;3;1\n")
    Path("d/deep/c.tsv.gz").write_bytes(gzip.compress(b"userId\ttimestamp\tmovieId\n1\t6\t4\n"))
    write_parquet("d/deep/d.parquet", movieId=[5], timestamp=[7])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--ratings", "d"],
        ["--ratings", "d/**"],
        ["--ratings", "d/a.csv", "--ratings", "d/b.CSV", "--ratings", "d/deep"],
        ["--ratings", "d/deep/*.parquet", "--ratings", "d/?.[cC]*", "--ratings", "d/deep/c.tsv.gz"],
        ["--ratings", "d", "--ratings", "./d/a.csv", "--ratings", "d/../d/b.CSV", "--repeats", "all"],
    ],
)
def test_files_folders_and_globs_of_any_layout_are_read_together_each_once(
    build: BuildSequences, arguments: list[str]
) -> None:
    _many_files()
    assert build(*arguments).histories == {1: [2, 3, 4, 5]}


def test_hidden_files_of_a_folder_are_not_read(build: BuildSequences) -> None:
    _many_files()
    for name in ("d/.a.csv", "d/_b.csv", "d/.ipynb_checkpoints/a.csv", "d/_temporary/c.csv", "d/notes.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("not,ratings\n")
    assert build("--ratings", "d").histories == {1: [2, 3, 4, 5]}


@pytest.mark.parametrize(
    ("one", "other", "histories"),
    [
        ({"userId": [1]}, {"userId": ["x"]}, {"1": [2], "x": [2]}),
        ({"userId": [1]}, {"userId": ["12"]}, {"1": [2], "12": [2]}),
        ({"userId": pa.array([1], pa.int32())}, {"userId": [10**12]}, {1: [2], 10**12: [2]}),
        ({"timestamp": [date(2020, 1, 2)]}, {"timestamp": [datetime(2020, 1, 2, 3)], "movieId": [3]}, {1: [2, 3]}),
        ({"timestamp": [date(2020, 1, 2)]}, {"timestamp": [5], "movieId": [3]}, {1: [3, 2]}),
        ({"rating": [2]}, {"rating": [1.5], "movieId": [3]}, {1: [2]}),
    ],
)
def test_parquet_files_with_different_types_are_read_together(
    build: BuildSequences, one: dict[str, Any], other: dict[str, Any], histories: dict[Any, list[int]]
) -> None:
    for first, second in (("a", "b"), ("b", "a")):
        write_parquet(f"{first}.parquet", **one)
        write_parquet(f"{second}.parquet", **other)
        # A rating of 1.5 is below the minimum; rounded to a whole number it would not be.
        assert build("--ratings", "[ab].parquet", "--min-rating", "1.6").histories == histories


@pytest.mark.parametrize("names", [["userId", "USERID"], ["USERID", "userId"], ["userId_1", "USERID", "userId"]])
def test_a_parquet_column_is_found_by_its_exact_name(build: BuildSequences, names: list[str]) -> None:
    columns = {name: [1 if name == "userId" else 9] for name in names}
    with Path("r.parquet").open("wb") as file:
        pq.write_table(pa.table(columns | {"movieId": [2], "timestamp": [4]}), file)
    assert build("--ratings", "r.parquet").histories == {1: [2]}


HOSTILE = [
    "it's",
    'say "x"',
    "x; drop table events; --",
    "$x",
    "$user_column",
    "?",
    "new\nline",
    "*",
    "x.*",
    "br[ack]et*s?",
    "{a,b}",
    "a,b;c\td|e",
    "back\\slash",
    "columns(*)",
    "select",
    "%s {0}",
    "ü \N{GRINNING FACE}",
    "-- comment",
    "a:b",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_column_name_is_only_a_name(build: BuildSequences, name: str) -> None:
    with Path("r.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["movieId", "other", name, "timestamp"], [2, 9, 1, 4]])
    with Path("r.parquet").open("wb") as parquet:
        pq.write_table(pa.table({"movieId": [3], "other": [9], name: [1], "timestamp": [5]}), parquet)
    assert build("--user-column", name, "--ratings", "r.*").histories == {1: [2, 3]}


@pytest.mark.parametrize(
    "name",
    [
        *HOSTILE,
        # These fail with an error: the file is reported as missing.
        pytest.param("~", marks=pytest.mark.xfail(reason="DuckDB takes a tilde at the start for a home folder")),
        pytest.param("a\\b[1]", marks=pytest.mark.xfail(reason="DuckDB takes a backslash in a glob for a separator")),
    ],
)
def test_a_hostile_file_name_is_only_a_name(build: BuildSequences, name: str) -> None:
    Path(name).mkdir()
    Path(name, f"{name}.csv").write_text(f"{HEADER}1,2,3,4\n")
    write_parquet(f"{name}/{name}.parquet", movieId=[3], timestamp=[5])
    out = f"{name}/{name}"
    assert build("--ratings", name, "--ratings", f"{name}/{name}.csv", "--out", out).histories == {1: [2, 3]}
    assert sorted(file.name for file in Path(name).iterdir()) == sorted([name, f"{name}.csv", f"{name}.parquet"])


def test_the_rating_is_read_only_if_it_is_needed(build: BuildSequences) -> None:
    Path("ratings.csv").write_text("userId,movieId,timestamp\n1,2,4\n")
    assert build().histories == {1: [2]}
    Path("stars.csv").write_text("userId,movieId,timestamp,stars\n1,2,4,2.5\n1,3,5,4\n1,4,6,3.9\n")
    outcome = build("--ratings", "stars.csv", "--min-rating", "3.9", "--rating-column", "stars")
    assert outcome.histories == {1: [3, 4]}


# Queries

JOIN = """-- purchases without returns
with bought as (
    select * from 'orders.csv' where invoice not like 'C%' and quantity > 0
)

select
    customers.key as user_id,
    bought.code as item_id,
    bought."when" as "timestamp"
from bought
inner join 'customers.csv' as customers on bought.customer = customers.name
"""


def test_a_query_filters_renames_and_joins(build: BuildSequences) -> None:
    Path("orders.csv").write_text(
        "invoice,customer,code,quantity,when\n"
        "1,ann,85123A,1,2020-01-01 00:00:00\nC2,ann,71053,1,2020-01-02 00:00:00\n"
        "3,ann,71053,-1,2020-01-03 00:00:00\n4,bob,71053,2,2020-01-04 00:00:00\n5,eve,71053,2,2020-01-05 00:00:00\n"
    )
    Path("customers.csv").write_text("name,key\nann,17850.0\nbob,5\n")
    Path("q.sql").write_text(JOIN)
    outcome = build("--query", "q.sql")
    assert outcome.histories == {17850: ["85123A"], 5: ["71053"]}
    assert outcome.times == [NEW_YEAR + 3 * 86400, NEW_YEAR]


@pytest.mark.parametrize(
    "query",
    [
        "select 1 as user_id, 2 as item_id, 1577836804 as timestamp",
        "select 1 as user_id, 2 as item_id, 1577836804 as timestamp;",
        "\ufeffselect 1 as user_id, 2 as item_id, 1577836804 as timestamp ;\n\n",
        "-- of one user\nselect 1 as user_id, 2 as item_id, 1577836804 as timestamp;\n-- end; of the query\n",
        "select 1 as USER_ID, 2 as Item_Id, 1577836804 as TIMESTAMP",
        "from (values (9, 1577836804, 2, 1)) as t(x, timestamp, item_id, user_id)",
        "with query as (select 1 as user_id, 2 as item_id) select *, 1577836804 as timestamp from query",
        "select 1.0::double as user_id, 2::hugeint as item_id, timestamptz '2020-01-01 01:00:04+01' as timestamp",
        "select 1 as user_id, 2 as item_id, 1577836804 as timestamp, '; drop' as \"a;'$x\"",
    ],
)
def test_a_query_is_one_select_in_upper_or_lower_case(build: BuildSequences, query: str) -> None:
    Path("q.sql").write_text(query, encoding="utf-8")
    outcome = build("--query", "q.sql")
    assert outcome.stderr == ""
    assert (outcome.histories, outcome.times) == ({1: [2]}, [NEW_YEAR + 4])


def test_text_columns_of_a_query_are_read_as_text(build: BuildSequences) -> None:
    Path("q.sql").write_text("select '1' as user_id, '2' as item_id, '4' as timestamp")
    assert build("--query", "q.sql").histories == {"1": ["2"]}


def test_a_query_needs_a_rating_only_with_min_rating(build: BuildSequences) -> None:
    Path("q.sql").write_text(
        "select 1 as user_id, x as item_id, 1577836804 as timestamp, x as RATING from range(5) as t(x)"
    )
    assert build("--query", "q.sql", "--min-rating", "4").histories == {1: [4]}


def test_unusable_rows_of_a_query_are_rejected(build: BuildSequences) -> None:
    Path("q.sql").write_text("from (values (1, 2, '4'), (1, null, '5'), (1, 3, 'x')) as t(user_id, item_id, timestamp)")
    outcome = build("--query", "q.sql", "--max-bad-rows", "2")
    assert outcome.histories == {1: [2]}
    assert sorted(rejects()[1:]) == [["q.sql", "", "no item", "1,,5"], ["q.sql", "", "unreadable time", "x"]]


# Rows that cannot be used

BAD = (
    'userId,movieId,rating,timestamp,note\n1,2,3,4,"two\nlines"\n'  # lines 1, 2 and 3
    ",2,3,4,\n"  # 4
    "1,,3,5,\n"
    "1,3,3,,\n"
    "1,4,3,yesterday,\n"
    "1,5,3\n"  # 8
    "1,6,3,4,x,y\n"
    "1,7,good,6,\n"  # 10
    "1,8,3,7,\n"
    '1,9,3,yesterday,"b\r\n\n"\n'  # 12 to 14
    "1,7,,6,\n"
    ",,,,\n"
)
BAD_ROWS = [
    [4, "no user", ",2,4"],
    [5, "no item", "1,,5"],
    [6, "no time", "1,3,"],
    [7, "unreadable time", "yesterday"],
    [8, "malformed (missing columns)", "1,5,3"],
    [9, "malformed (too many columns)", "1,6,3,4,x,y"],
    [10, "no rating", "good"],
    [12, "unreadable time", "yesterday"],
    [15, "no rating", "1,7,6,"],
    [16, "no user", ",,"],
]


def test_rejects_name_file_line_reason_and_value(build: BuildSequences) -> None:
    Path("a.csv").write_text(f"{HEADER}2,2,3,4\n")
    Path("b.csv").write_text(BAD)
    outcome = build("--ratings", "?.csv", "--min-rating", "1", "--max-bad-rows", "10")
    assert outcome.histories == {1: [2, 8], 2: [2]}
    header, *rows = rejects()
    assert header == ["file", "line", "reason", "value"]
    assert sorted(rows, key=lambda row: int(row[1])) == [["b.csv", str(line), *rest] for line, *rest in BAD_ROWS]
    assert outcome.report["rejects_file"] == "sequences.rejects.csv"
    assert outcome.report["rejected"] == {
        "no user": 2,
        "no item": 1,
        "no time": 1,
        "unreadable time": 2,
        "no rating": 2,
        "malformed (missing columns)": 1,
        "malformed (too many columns)": 1,
    }
    assert outcome.report["rows_read"] == outcome.report["events"] + 10


def test_a_row_that_is_not_utf_8_is_rejected(build: BuildSequences) -> None:
    Path("ratings.csv").write_bytes(f"{HEADER}1,a,3,4\n1,café,3,5\n1,b,3,6\n".encode("latin-1"))
    outcome = build("--max-bad-rows", "1")
    assert outcome.histories == {1: ["a", "b"]}
    assert [row[:3] for row in rejects()[1:]] == [["ratings.csv", "3", "malformed (invalid encoding)"]]


def test_a_bad_row_is_counted_once_if_ids_are_reloaded_as_text(build: BuildSequences) -> None:
    Path("ratings.csv").write_text(f"{HEADER}1,2,3,4\n1,3\n1,a,3,5\n1,4,3,x\n")
    outcome = build("--max-bad-rows", "2")
    assert outcome.histories == {1: ["2", "a"]}
    assert outcome.report["rows_read"] == 4
    assert [row[1] for row in rejects()[1:]] == ["3", "5"]


def test_the_rejects_file_is_removed_if_there_are_no_rejects(build: BuildSequences) -> None:
    Path("ratings.csv").write_text(f"{HEADER}1,2,3,4\n,2,3,4\n")
    assert build("--max-bad-rows", "1", "--out", "h.parquet").report["rejects_file"] == "h.rejects.csv"
    assert len(rejects("h.rejects.csv")) == 2
    Path("ratings.csv").write_text(f"{HEADER}1,2,3,4\n")
    assert build("--out", "h.parquet").report["rejects_file"] is None
    assert not Path("h.rejects.csv").exists()


@pytest.mark.parametrize(
    ("allowed", "n_bad", "n_rows", "exit_code"),
    [
        ("0", 1, 10, 3),
        ("1", 1, 10, 0),
        ("1", 2, 10, 3),
        ("0%", 1, 10, 3),
        ("10%", 1, 10, 0),
        ("9.9%", 1, 10, 3),
        ("100%", 9, 10, 0),
        ("0.57%", 57, 10_000, 0),
        ("0.57%", 58, 10_000, 3),
    ],
)
def test_max_bad_rows_is_a_number_or_a_share_of_the_rows_read(
    build: BuildSequences, allowed: str, n_bad: int, n_rows: int, exit_code: int
) -> None:
    Path("ratings.csv").write_text(HEADER + "1,2,3,4\n" * (n_rows - n_bad) + ",2,3,4\n" * n_bad)
    outcome = build("--max-bad-rows", allowed)
    assert outcome.exit_code == exit_code
    if exit_code:
        assert f"{n_bad} of {n_rows} rows cannot be used" in outcome.stderr


def test_a_bad_row_may_have_a_long_text_next_to_it(build: BuildSequences) -> None:
    Path("ratings.csv").write_text(f"userId,movieId,review,timestamp\n1,2,{'x' * 200_000},4\n1,3,x,y\n")
    assert build("--max-bad-rows", "1").histories == {1: [2]}
    assert rejects()[1:] == [["ratings.csv", "3", "unreadable time", "y"]]
