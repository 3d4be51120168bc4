"""Logs in the forms in which people have them: each is read correctly, or refused with a one-line error."""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import BuildSequences, Outcome
from tests.faults import mutated_parquet

HEADER = "userId,movieId,timestamp\n"
T = 1_700_000_000
DAY = 86_400


@pytest.fixture(autouse=True)
def no_unit(build: BuildSequences, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command detect the unit of times, as it does for a user."""
    monkeypatch.delenv("BATCHREC_BUILD_SEQUENCES_TIMESTAMP_UNIT")


def write(name: str, text: str | bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)


def write_parquet(name: str, **columns: Any) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"userId": [1], "movieId": [2], "timestamp": [T]} | columns), name)


def log(*rows: str) -> None:
    write("ratings.csv", HEADER + "".join(f"{row}\n" for row in rows))


def events(outcome: Outcome) -> dict[Any, list[tuple[Any, int]]]:
    return {row["user_id"]: list(zip(row["item_ids"], row["timestamps"], strict=True)) for row in outcome.rows}


def fails(outcome: Outcome, *words: str) -> None:
    assert outcome.exit_code in (2, 3), outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert [word for word in words if word not in outcome.stderr] == []


# Ids


def test_positive_and_negative_float_zero_are_the_same_id(build: BuildSequences) -> None:
    write_parquet("ratings.parquet", userId=[0.0, -0.0, 0.5], movieId=[-0.0, 2.0, 0.0], timestamp=[T, T + 1, T])
    outcome = build("--ratings", "ratings.parquet")
    assert events(outcome) == {"0": [(0, T), (2, T + 1)], "0.5": [(0, T)]}


def test_ids_that_differ_in_blanks_get_the_most_frequent_spelling(build: BuildSequences) -> None:
    log(f"u,A03   ,{T}", f"u,A04,{T + 1}", f"v,A03   ,{T}", f"v,A03,{T + 1}", f"v,A04\t,{T + 2}", f"w,A04,{T}")
    outcome = build("--repeats", "all")
    assert events(outcome)["v"] == [("A03   ", T), ("A03   ", T + 1), ("A04", T + 2)]


@pytest.mark.parametrize("word", ["\\N", "NULL", "null", "None", "NaN", "nan", "<NA>", " NULL "])
def test_a_null_word_is_a_missing_user_and_keeps_ids_integers(build: BuildSequences, word: str) -> None:
    log(f"17850,1,{T}", f"{word},2,{T + 1}", f"13047,3,{T + 2}")
    fails(build(), "line 3", "no user")
    outcome = build("--max-bad-rows", "1")
    assert (outcome.report["rejected"], set(events(outcome))) == ({"no user": 1}, {17850, 13047})


def test_the_null_option_adds_null_words(build: BuildSequences) -> None:
    log(f"17850,1,{T}", f"-1,2,{T + 1}", f"n/a,2,{T + 1}")
    outcome = build("--null", "-1, N/A", "--max-bad-rows", "2")
    assert (outcome.report["rejected"], set(events(outcome))) == ({"no user": 2}, {17850})
    log(f"a,1,{T}", f"n/a,2,{T + 1}")
    assert set(events(build("--null", "n/a", "--max-bad-rows", "1"))) == {"a"}


def test_one_id_that_is_not_an_integer_makes_all_text_with_a_warning(build: BuildSequences) -> None:
    log(f"1,5,{T}", f"2,5,{T}", f"guest,6,{T}")
    outcome = build()
    assert set(events(outcome)) == {"1", "2", "guest"}
    for words in ("WARNING", "ratings.csv: line 4", "'guest'", "1 of 3 user ids", "--user-id-type integer"):
        assert words in outcome.stderr
    assert "item ids" not in outcome.stderr


def test_a_text_id_is_a_bad_row_if_the_option_says_integer(build: BuildSequences) -> None:
    log(f"1,5,{T}", f"2,5,{T}", f"guest,6,{T}")
    fails(build("--user-id-type", "integer"), "line 4", "user id is not an integer", "'guest'")
    outcome = build("--user-id-type", "integer", "--max-bad-rows", "1")
    assert (set(events(outcome)), outcome.stderr) == ({1, 2}, "")


def test_text_ids_give_no_warning_if_expected(build: BuildSequences) -> None:
    log(f"1,a,{T}", f"guest,b,{T}")
    outcome = build("--user-id-type", "text")
    assert (set(events(outcome)), outcome.stderr) == ({"1", "guest"}, "")


def test_ids_that_are_text_in_one_file_and_numbers_in_another_give_a_warning(build: BuildSequences) -> None:
    write_parquet("d/a.parquet")
    write_parquet("d/b.parquet", userId=["x"])
    outcome = build("--ratings", "d")
    assert set(events(outcome)) == {"1", "x"}
    assert "text in d/b.parquet and a number in d/a.parquet" in outcome.stderr.replace(str(Path.cwd()) + "/", "")


@pytest.mark.parametrize("kind", [pa.null(), pa.string()])
@pytest.mark.parametrize("n_rows", [0, 2])
def test_a_file_or_column_without_values_does_not_change_id_types(
    build: BuildSequences, kind: pa.DataType, n_rows: int
) -> None:
    write_parquet("d/a.parquet")
    write_parquet("d/b.parquet", userId=pa.nulls(n_rows, kind), movieId=[3] * n_rows, timestamp=[T] * n_rows)
    outcome = build("--ratings", "d", "--max-bad-rows", "2")
    assert outcome.histories == {1: [2]}
    assert outcome.report["user_id_type"] == "int64"


def test_bytes_in_parquet_are_read_as_utf_8(build: BuildSequences) -> None:
    write_parquet("r.parquet", userId=[1, 1], movieId=[b"caf\xc3\xa9", b"zo\xc3\xab"], timestamp=[T, T + 1])
    assert build("--ratings", "r.parquet").histories == {1: ["café", "zoë"]}
    write_parquet("r.parquet", movieId=[bytes(range(128, 144))])
    fails(build("--ratings", "r.parquet"), "r.parquet", "not UTF-8")


@pytest.mark.parametrize(
    "values",
    [[[10, 20]], [{"id": 1}], pa.array([[(1, 2)]], pa.map_(pa.int64(), pa.int64()))],
    ids=["list", "struct", "map"],
)
def test_the_error_about_a_nested_column_suggests_unnest(build: BuildSequences, values: Any) -> None:
    write_parquet("r.parquet", movieId=values)
    fails(build("--ratings", "r.parquet"), "r.parquet", "'movieId'", "--item-column", "unnest(movieId)")
    write("q.sql", f"select 1 as user_id, [1, 2] as item_id, {T} as timestamp")
    fails(build("--query", "q.sql"), "q.sql", "'item_id'", "unnest(item_id)")


def test_whole_decimals_are_spelled_as_integers_next_to_text(build: BuildSequences) -> None:
    decimals = pa.array(["17850", "2"]).cast(pa.decimal128(38, 10))
    write_parquet("d/r.parquet", userId=decimals, movieId=decimals, timestamp=[T, T])
    assert build("--ratings", "d").histories == {17850: [17850], 2: [2]}
    write_parquet("d/s.parquet", userId=["x"])
    assert set(build("--ratings", "d").histories) == {"17850", "2", "x"}
    log(f"17850.00,1.,{T}")
    assert build().histories == {17850: [1]}


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        (pa.array([2.0**53]), True),
        (pa.array([2.0**53 + 2]), False),
        (pa.array([1.2345678901234568e18]), False),
        (pa.array([2.0**24], pa.float32()), True),
        (pa.array([2.0**24 + 2], pa.float32()), False),
    ],
    ids=str,
)
def test_floats_too_large_to_be_exact_are_refused_as_ids(build: BuildSequences, values: pa.Array, fits: bool) -> None:
    write_parquet("r.parquet", userId=values)
    outcome = build("--ratings", "r.parquet")
    if fits:
        assert set(outcome.histories) == {int(values[0].as_py())}
    else:
        fails(outcome, "r.parquet", "'userId'", "lost digits")


def test_an_id_in_exponent_notation_is_a_bad_row_and_keeps_ids_integers(build: BuildSequences) -> None:
    log(f"1,5,{T}", f"1.2345678901234568e+18,5,{T}")
    fails(build(), "line 3", "user id has lost digits", "1.2345678901234568e+18")
    assert set(build("--max-bad-rows", "1").histories) == {1}
    # Hexadecimal ids can look like this.
    log(f"1e18,5,{T}")
    assert set(build().histories) == {"1e18"}


def test_users_items_and_times_need_three_different_columns(build: BuildSequences) -> None:
    log(f"1,2,{T}")
    fails(build("--item-column", "userId"), "--item-column userId", "three different columns")


# Quotes, delimiters, headers


def test_quotes_in_tab_separated_titles_are_ordinary_characters(build: BuildSequences) -> None:
    rows = [f"{user}\t{'x' if user % 7 else chr(34) + 'Heroes'}\t{user}\t{T}" for user in range(1, 41)]
    write("ratings.tsv", "userId\ttitle\tmovieId\ttimestamp\n" + "\n".join(rows))
    assert set(build("--ratings", "ratings.tsv").histories) == set(range(1, 41))


def test_quoted_fields_of_a_tab_separated_file_are_read_without_their_quotes(build: BuildSequences) -> None:
    write("ratings.tsv", f'userId\tmovieId\ttitle\ttimestamp\n"1"\t"2"\t"a\tb"\t"{T}"\n')
    assert build("--ratings", "ratings.tsv").histories == {1: [2]}


def test_a_quoted_id_late_in_a_tab_separated_file_is_an_error(build: BuildSequences) -> None:
    rows = [f"u{user}\ti\t{T}" for user in range(200)]
    write("ratings.tsv", "\n".join(["userId\tmovieId\ttimestamp", *rows, f'"u7"\tj\t{T}']))
    fails(build("--ratings", "ratings.tsv"), "ratings.tsv", "'\"u7\"' is quoted", "--quote none")
    assert sorted(build("--ratings", "ratings.tsv", "--quote", '"').histories["u7"]) == ["i", "j"]
    assert build("--ratings", "ratings.tsv", "--quote", "none").histories['"u7"'] == ["j"]


MERGED_ROWS = f'userId,title,movieId,timestamp\n1,x,5,{T}\n2,"Heroes,5,{T}\n3,y,6,{T}\n4,"Low",7,{T}\n5,z,8,{T}\n'


@pytest.mark.parametrize("compressed", [False, True])
def test_rows_merged_by_a_stray_quote_are_bad_rows(build: BuildSequences, compressed: bool) -> None:
    # Line 3 opens a quote that line 5 closes: one record, whose title spans three lines.
    text = MERGED_ROWS.replace('4,"Low",', '4,Low",')
    write("r.csv.gz" if compressed else "r.csv", gzip.compress(text.encode()) if compressed else text)
    fails(build("--ratings", "r.csv*"), "line 3", "a row within quotes", '2,"Heroes', "3 of 5 rows", "--quote none")
    outcome = build("--ratings", "r.csv*", "--max-bad-rows", "3")
    assert outcome.histories == {1: [5], 5: [8]}
    assert [outcome.report[name] for name in ("rows_read", "events")] == [5, 2]
    assert outcome.report["rejected"] == {"a row within quotes that another row opens": 3}
    assert set(build("--ratings", "r.csv*", "--quote", "none").histories) == {1, 2, 3, 4, 5}


def test_rows_lost_after_a_misplaced_quote_are_an_error_whatever_max_bad_rows(build: BuildSequences) -> None:
    rows = [f'"{user}","{item}","{T + item}"\r\n' for user in range(4) for item in range(3)]
    text = '"userId","movieId","timestamp"\r\n' + "".join(rows)
    sound = text.encode()
    write("ratings.csv", sound)
    assert build("--max-bad-rows", 9).report["rows_read"] == 12
    line_end = sound.index(b"\r\n", sound.index(rows[6].encode()))
    write("ratings.csv", sound[:line_end] + b"\xff" + sound[line_end + 1 :])
    fails(build("--max-bad-rows", 9), "ratings.csv", "near line 7", "1 more of the file's 12 rows", "--quote none")


def test_merged_rows_are_detected_with_any_line_end(build: BuildSequences) -> None:
    for end in ("\n", "\r\n", "\r"):
        write("ratings.csv", MERGED_ROWS.replace('4,"Low",', '4,Low",').replace("\n", end))
        fails(build(), "line 3", "3 of 5 rows")


def test_a_row_that_equals_a_merged_record_is_kept(build: BuildSequences) -> None:
    # Line 2 opens a quote that line 4 closes. The wanted values of this record equal those of line 5.
    text = f'userId,title,movieId,timestamp\n1,"a,5,{T}\n2,b,5,{T}\n1,c",5,{T}\n1,d,5,{T}\n'
    write("ratings.csv", text)
    outcome = build("--max-bad-rows", "3", "--repeats", "all")
    assert (outcome.report["rows_read"], outcome.histories) == (4, {1: [5]})


def test_a_merged_record_is_removed_from_a_partitioned_folder(build: BuildSequences) -> None:
    write("d/dt=2024-01-01/p.csv", MERGED_ROWS.replace('4,"Low",', '4,Low",').replace("timestamp", "other"))
    outcome = build("--ratings", "d", "--timestamp-column", "dt", "--max-bad-rows", "3")
    assert outcome.histories == {1: [5], 5: [8]}


def test_a_review_with_as_many_commas_as_a_row_is_not_split(build: BuildSequences) -> None:
    write("ratings.csv", f'userId,review,movieId,timestamp\n1,"fine\na, b, c, d\ne, f, g, h\n",2,{T}\n2,x,2,{T}\n')
    assert set(build().histories) == {1, 2}


def test_quoted_text_of_several_lines_is_read(build: BuildSequences) -> None:
    reviews = "".join(f'{user},"good, nice\nand cheap, too\n\nyes",{user},{T}\n' for user in range(9))
    write("ratings.csv", f"userId,review,movieId,timestamp\n{reviews}")
    outcome = build()
    assert (len(outcome.histories), outcome.report["rejected"]) == (9, {})


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (f"1::2::5::{T}\n1::3::5::{T + 1}\n", ["--header", "no", "--columns", "userId,movieId,rating,timestamp"]),
        (f"1,2,{T}\n1,3,{T + 1}\n", ["--header", "no", "--columns", "userId, movieId, timestamp"]),
        (f"a,b,c\n1,2,{T}\n1,3,{T + 1}\n", ["--columns", "userId,movieId,timestamp"]),
        (f"userId#movieId#timestamp\n1#2#{T}\n1#3#{T + 1}\n", ["--delimiter", "#"]),
        (f"userId movieId timestamp\n1 2 {T}\n1 3 {T + 1}\n", ["--delimiter", "space"]),
        (f"userId\x01movieId\x01timestamp\n1\x012\x01{T}\n1\x013\x01{T + 1}\n", []),
        (f"userId\x02movieId\x02timestamp\n1\x022\x02{T}\n1\x023\x02{T + 1}\n", ["--delimiter", "\\x02"]),
        (f"userId,movieId,timestamp\n'1','2',{T}\n1,3,{T + 1}\n", ["--quote", "'"]),
    ],
)
def test_delimiter_quote_and_column_names_can_be_set(build: BuildSequences, text: str, options: list[str]) -> None:
    write("ratings.csv", text)
    assert build(*options).histories == {1: [2, 3]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--header", "no"], ["--header no", "--columns"]),
        (["--columns", "userId,movieId"], ["--columns names 2", "3"]),
        (["--delimiter", "12345"], ["--delimiter '12345'"]),
        (["--delimiter", ""], ["--delimiter"]),
        (["--quote", "ab"], ["--quote ab"]),
        (["--quote", ",", "--delimiter", ","], ["--quote ,"]),
    ],
)
def test_impossible_delimiters_quotes_and_names_are_refused(
    build: BuildSequences, options: list[str], words: list[str]
) -> None:
    log(f"1,2,{T}")
    fails(build(*options), *words)


def test_the_error_about_a_missing_header_names_the_options(build: BuildSequences) -> None:
    write("ratings.csv", f"1,1193,5,{T}\n")
    fails(build(), "no column 'userId'", "--header no --columns", "--delimiter", "--query")


def test_errors_quote_column_names_with_blanks(build: BuildSequences) -> None:
    write("ratings.csv", f"userId ,movieId,timestamp\n1,2,{T}\n")
    fails(build(), "no column 'userId'; found 'userId ', movieId, timestamp")


def test_a_repeated_header_is_reported_with_its_line(build: BuildSequences) -> None:
    log(f"1,2,{T}", f"2,2,{T}", HEADER.strip(), f"3,2,{T}")
    fails(build(), "line 4", "unreadable time: 'timestamp'", "1 of 4 rows")


def test_a_decimal_comma_is_read_if_it_is_not_the_delimiter(build: BuildSequences) -> None:
    write("ratings.csv", f"userId;movieId;timestamp;rating\n1;10;{T};4,5\n1;20;{T};2,5\n2;10;{T};3\n")
    assert build("--min-rating", "3").histories == {1: [10], 2: [10]}
    write("ratings.csv", f"userId;movieId;timestamp;rating\n1;10;{T};1,234,5\n")
    fails(build("--min-rating", "3"), "line 2", "no rating: '1,234,5'", "decimal comma")


# Times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-01-05 10:00:00.000 +0100", 1704445200),
        ("2024-01-05 10:00:00 +01", 1704445200),
        ("2024-01-05T10", 1704448800),
        ("2024-01-05 10", 1704448800),
        ("2024-01-05T10:00:00,250Z", 1704448800),
        ("2024-01-05T10:00:00z", 1704448800),
        ("2024-01-05T10:00:00Z[UTC]", 1704448800),
        ("20240105T100000Z", 1704448800),
        ("2024-01-05 10:00:00 UTC", 1704448800),
        ("2024-01-05 10:00:00 GMT", 1704448800),
        ("2024-07-05 10:00:00 Europe/London", 1720170000),
        ("1704448800000000000", 1704448800),
        ("1704448801000000000", 1704448801),
    ],
)
def test_an_unambiguous_time_is_read(build: BuildSequences, text: str, seconds: int) -> None:
    write("ratings.csv", f'{HEADER}1,2,"{text}"\n')
    assert build().times == [seconds]


@pytest.mark.parametrize(
    "text",
    [
        "28/01/10 09:00",
        "28-01-10",
        "1/2/10",
        "0028-01-10",
        "0999-12-31",
        "12/25/2010 8:26",
        # BST: Bangladesh or British summer; IST: India, Israel or Ireland; EST: New York or Panama.
        "2020-07-01 12:00:00 BST",
        "2020-07-01 12:00:00 IST",
        "2020-07-01 12:00:00 EST",
        "-99999999999",
    ],
)
def test_an_ambiguous_time_is_refused(build: BuildSequences, text: str) -> None:
    log(f"1,2,{text}", f"1,3,{T}")
    fails(build(), "line 2", f"unreadable time: '{text}'")


def test_a_timestamp_format_is_applied_exactly(build: BuildSequences) -> None:
    days = ["28/01/10 09:00", "05/02/10 09:00", "11/03/10 09:00", "02/04/11 09:00"]
    log(*(f"1,{item},{day}" for item, day in zip((10, 20, 30, 40), days, strict=True)))
    wanted = [(10, 1264669200), (20, 1265360400), (30, 1268298000), (40, 1301734800)]
    assert events(build("--timestamp-format", "%d/%m/%y %H:%M")) == {1: wanted}
    log("1,2,2010-28-01", "1,3,2010-01-28 ")
    fails(build("--timestamp-format", "%Y-%d-%m"), "line 3", "unreadable time")
    fails(build("--timestamp-format", "%Q"), "%Q")


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (["20231215", "20240101"], ["--timestamp-format %Y%m%d"]),
        (["20231231235900", "20240101000000"], ["--timestamp-format %Y%m%d%H%M%S"]),
        (["202312312359", "202401010000"], ["--timestamp-format %Y%m%d%H%M"]),
        (["2023121523", "2024010100"], ["--timestamp-format %Y%m%d%H"]),
        (["202312", "202401"], ["--timestamp-format %Y%m"]),
        (["2019", "2020"], ["--timestamp-format %Y"]),
        (["45275", "45292.5"], ["--timestamp-unit", "excel"]),
        (["1", "365"], ["--timestamp-unit", "days"]),
        (["50000000000", "110000000000"], ["look like s and ms", "--timestamp-unit"]),
        (["1700000000", "1700000000000"], ["look like s and ms"]),
        (["1700000000000", "1700000000000000", "1700000000000000000"], ["look like ms and us and ns"]),
    ],
)
def test_numbers_that_might_not_be_seconds_are_refused(
    build: BuildSequences, numbers: list[str], words: list[str]
) -> None:
    log(*(f"1,{item},{number}" for item, number in enumerate(numbers)))
    fails(build(), "ratings.csv: line 2", numbers[0], *words)
    write_parquet(
        "r.parquet", userId=[1] * len(numbers), movieId=range(len(numbers)), timestamp=list(map(float, numbers))
    )
    fails(build("--ratings", "r.parquet"), "r.parquet", *words)


@pytest.mark.parametrize(
    ("options", "numbers", "seconds"),
    [
        (["--timestamp-format", "%Y%m%d"], ["20231215", "20240101"], [1702598400, 1704067200]),
        (["--timestamp-format", "%Y%m%d%H%M%S"], ["20231231235900", "20240101000000"], [1704067140, 1704067200]),
        (["--timestamp-unit", "days"], ["19723", "19724.5"], [1704067200, 1704067200 + 3 * DAY // 2]),
        (["--timestamp-unit", "days"], ["1", "365"], [DAY, 365 * DAY]),
        (["--timestamp-unit", "excel"], ["45292", "45293.25"], [1704067200, 1704067200 + 5 * DAY // 4]),
        (["--timestamp-unit", "s"], ["1", "2"], [1, 2]),
        (["--timestamp-unit", "us"], ["50000000000", "110000000000"], [50000, 110000]),
    ],
)
def test_such_numbers_are_read_with_an_explicit_format_or_unit(
    build: BuildSequences, options: list[str], numbers: list[str], seconds: list[int]
) -> None:
    log(*(f"1,{item},{number}" for item, number in enumerate(numbers)))
    assert build(*options).times == seconds
    write_parquet("r.parquet", userId=[1, 1], movieId=[0, 1], timestamp=list(map(float, numbers)))
    assert build("--ratings", "r.parquet", *options).times == seconds


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (["20231231235900", "20240101000000", "2024-01-05"], "%Y%m%d%H%M%S"),
        (["20231231235900", "99991231235959"], "%Y%m%d%H%M%S"),
        (["20231231235900123", "20240101000000000"], "%Y%m%d%H%M%S%g"),
        (["20231215", "20240101", "2024-01-05"], "%Y%m%d"),
        (["20231215", "99991231"], "%Y%m%d"),
        (["20231215", "20231216", "1700000000"], "%Y%m%d"),
        (["1", "2", "3", "2024-01-05"], "--timestamp-unit days"),
        (["1", "2", "3", "1700000000000"], "--timestamp-unit days"),
        (["638000000000000000", "638400000000000000"], ".NET ticks"),
    ],
)
def test_dates_written_as_numbers_are_refused_next_to_other_times(
    build: BuildSequences, times: list[str], words: str
) -> None:
    log(*(f"1,{item},{time}" for item, time in enumerate(times)))
    fails(build(), "line 2", times[0], words)


def test_durations_are_refused_as_times(build: BuildSequences) -> None:
    write_parquet("r.parquet", timestamp=pa.array([T], pa.duration("s")))
    fails(build("--ratings", "r.parquet"), "'timestamp'", "durations")


def test_a_number_too_small_for_its_unit_is_read_like_the_others_with_a_warning(build: BuildSequences) -> None:
    log(f"1,2,{T * 1000}", f"1,3,{T * 1000 + 1000}", "1,4,81000")
    outcome = build()
    assert outcome.times == [81, T, T + 1]
    assert "ratings.csv: line 4: timestamp: '81000': 1 numbers are too small" in outcome.stderr
    log("1,2,2020-01-01 00:00:00", "1,3,81")
    assert "line 3: timestamp: '81'" in build().stderr
    # Zero is the same time in every unit.
    log(f"1,2,{T * 1000}", "1,3,0")
    assert (build().times, build().stderr) == ([0, T], "")


@pytest.mark.parametrize(
    ("time", "words"), [("1970-08-22", "1970 or before"), ("1960-08-22", "1970 or before"), ("4821-12-26", "future")]
)
def test_a_log_entirely_in_1970_or_in_the_future_gives_a_warning(build: BuildSequences, time: str, words: str) -> None:
    log(f"1,2,{time}", f"1,3,{time} 12:00:00")
    outcome = build()
    assert f"WARNING ratings.csv: line 2: timestamp: '{time}': all times are in" in outcome.stderr
    assert words in outcome.stderr


# Files


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


def test_a_partition_without_a_value_is_a_missing_value(build: BuildSequences) -> None:
    write("plays/userId=__HIVE_DEFAULT_PARTITION__/p.csv", f"movieId,timestamp\n1,{T}\n")
    write("plays/userId=5/p.csv", f"movieId,timestamp\n1,{T}\n")
    outcome = build("--ratings", "plays", "--max-bad-rows", "1")
    assert (outcome.histories, outcome.report["rejected"]) == ({5: [1]}, {"no user": 1})


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        ("_delta_log/00.json", "Delta Lake"),
        (".hoodie/h", "Apache Hudi"),
        ("metadata/v1.metadata.json", "Apache Iceberg"),
    ],
)
@pytest.mark.parametrize("where", ["plays", "plays/*/*.csv", "plays/dt=1/p.csv"])
def test_a_folder_of_a_table_format_is_refused_as_path_and_as_glob(
    build: BuildSequences, mark: str, kind: str, where: str
) -> None:
    write("plays/dt=1/p.csv", f"{HEADER}1,2,{T}\n")
    write(f"plays/{mark}", "{}")
    fails(build("--ratings", where), "plays", f"table of {kind}", "export")


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


# Queries


def test_a_query_attaches_databases_read_only(build: BuildSequences) -> None:
    with duckdb.connect("shop.duckdb") as con:
        con.execute(f"create table plays as select 1 as u, 2 as i, {T} as t")
    before = Path("shop.duckdb").read_bytes()
    select = "select u as user_id, i as item_id, t as timestamp from shop.plays"
    for attach in (
        "attach 'shop.duckdb'",
        "attach 'shop.duckdb' as shop (read_only)",
        "attach 'shop.duckdb' as shop (type duckdb)",
    ):
        write("q.sql", f"-- of the shop\n{attach}; set variable start = 0;\n{select} where t > getvariable('start');\n")
        assert build("--query", "q.sql").histories == {1: [2]}
    assert Path("shop.duckdb").read_bytes() == before
    write("q.sql", f"attach 'new.duckdb' as shop; {select}")
    fails(build("--query", "q.sql"), "q.sql", "new.duckdb")
    assert not Path("new.duckdb").exists()


@pytest.mark.parametrize(
    "statement",
    ["copy (select 1) to 'x.csv'", "create table shop.x as select 1", "insert into shop.plays values (1)", "select 1"],
)
def test_a_query_cannot_write(build: BuildSequences, statement: str) -> None:
    with duckdb.connect("shop.duckdb") as con:
        con.execute("create table plays as select 1 as u")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    write("q.sql", f"attach 'shop.duckdb'; {statement}; select 1 as user_id, 2 as item_id, {T} as timestamp")
    fails(build("--query", "q.sql"), "q.sql")
    del before[Path("shop.duckdb")]
    assert set(Path().iterdir()) == {*before, Path("shop.duckdb"), Path("q.sql")}


def test_a_query_that_sets_the_time_zone_does_not_change_times(build: BuildSequences) -> None:
    write("q.sql", "set timezone = 'Asia/Tokyo'; select 1 as user_id, 2 as item_id, '2024-01-01 00:00:00' as timestamp")
    assert build("--query", "q.sql").times == [1704067200]


@pytest.mark.parametrize(
    "statement",
    [
        "set default_order = 'desc'",
        "set default_null_order = 'nulls_first'",
        "create macro epoch_us(x) as 5",
        "create table events as select 1 as x",
        "create view records as select 1 as x",
        "create table query as select 1 as x",
        "attach ':memory:' as m; use m; create table loaded_events as select 1 as x",
    ],
)
def test_settings_and_names_of_a_query_do_not_affect_the_job(build: BuildSequences, statement: str) -> None:
    write("q.sql", f"{statement}; select 1 as user_id, unnest(range(5)) as item_id, item_id + {T} as timestamp")
    assert events(build("--query", "q.sql")) == {1: [(item, T + item) for item in range(5)]}


@pytest.mark.parametrize("attach", ["attach 'new.db' as read_only", "attach 'new.db' as x (read_only false)"])
def test_a_query_cannot_create_a_database(build: BuildSequences, attach: str) -> None:
    write("q.sql", f"{attach}; select 1 as user_id, 2 as item_id, {T} as timestamp")
    fails(build("--query", "q.sql"), "q.sql")
    assert not Path("new.db").exists()
    write("q.sql", f"create persistent secret s (type s3); select 1 as user_id, 2 as item_id, {T} as timestamp")
    fails(build("--query", "q.sql"), "q.sql", "CREATE")


def test_a_query_sees_the_run_date(build: BuildSequences) -> None:
    write("q.sql", "select 1 as user_id, 2 as item_id, getvariable('run_date') as timestamp")
    assert build("--query", "q.sql", "--run-date", "2024-01-01").times == [1704067200]


def test_a_query_may_use_a_counter_as_time_with_a_warning(build: BuildSequences) -> None:
    write("ratings.csv", "userId,movieId\n1,2\n1,3\n")
    write("q.sql", "select userId as user_id, movieId as item_id, row_number() over () as timestamp from 'ratings.csv'")
    outcome = build("--query", "q.sql")
    assert outcome.histories == {1: [2, 3]}
    assert "all times are in 1970" in outcome.stderr


# Faults that mutated bytes revealed (tests/faults/test_faults_logs.py)


@pytest.mark.parametrize("blank", ["\v", "\f", "\u3000", "\ufeff", "\0"])
def test_an_id_of_any_single_blank_is_missing(build: BuildSequences, blank: str) -> None:
    log(f"u,A1,{T}", f"u,{blank},{T + 1}", f"u,{blank}NULL{blank},{T + 2}")
    outcome = build("--max-bad-rows", "2")
    assert (outcome.report["rejected"], events(outcome)) == ({"no item": 2}, {"u": [("A1", T)]})


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


def test_quotes_within_quoted_fields_are_recognised_in_tab_separated_files(build: BuildSequences) -> None:
    # As pandas and spreadsheets write it: only fields with a quote, a tab or a line end are quoted.
    write("ratings.csv", f'userId\ttitle\tmovieId\ttimestamp\n1\t"The ""Film"""\t2\t{T}\n1\t"A\tB"\t3\t{T + 1}\n')
    assert events(build()) == {1: [(2, T), (3, T + 1)]}


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


def test_times_without_their_last_digits_give_a_warning(build: BuildSequences) -> None:
    # A spreadsheet shows and saves 1,700,000,000 to 1,749,999,999 like this.
    log("1,2,1.7E+09", "1,3,1.7E+09", f"1,4,{T + 5}")
    outcome = build()
    assert events(outcome)[1][2] == (4, T + 5)
    for words in ("WARNING", "line 2", "'1.7E+09'", "2 numbers of 3", "without their last digits"):
        assert words in outcome.stderr
    log("1,2,1.700000000123456e+09", "1,3,1.70000000012e+12")
    fails(build(), "look like", "1.700000000123456e+09")
    log("1,2,1.700000000123456e+09")
    assert "WARNING" not in build().stderr


def test_an_id_with_a_line_end_is_a_bad_row(build: BuildSequences) -> None:
    log(f'u,"A1\nu",{T}', f'"v\r\nw",A2,{T + 1}', f"u,A3,{T + 2}", f'u,"A4\n",{T + 3}')
    fails(build(), "line 2", "item id holds a line end", "2 of 4 rows")
    outcome = build("--max-bad-rows", "2")
    assert outcome.report["rejected"] == {"item id holds a line end": 1, "user id holds a line end": 1}
    assert events(outcome) == {"u": [("A3", T + 2), ("A4\n", T + 3)]}
    # They do not make integers text either.
    log(f'1,"10\n20",{T}', f"2,30,{T}")
    outcome = build("--max-bad-rows", "1")
    assert (events(outcome), "WARNING" in outcome.stderr) == ({2: [(30, T)]}, False)
