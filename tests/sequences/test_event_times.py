"""Times in the forms in which logs have them: each is read correctly, or refused with a one-line error."""

import pyarrow as pa
import pytest

from tests.conftest import BuildSequences
from tests.support.log_files import DAY, HEADER, T, events, fails, log, write, write_parquet

pytestmark = pytest.mark.usefixtures("detected_unit")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-01-05 10:00:00.000 +0100", 1704445200),
        ("2024-01-05 10:00:00 +01", 1704445200),
        ("2024-01-05 10:00:00+14:00", 1704398400),
        ("2024-01-05 10:00:00-1200", 1704492000),
        ("2024-01-05T10", 1704448800),
        ("2024-01-05 10", 1704448800),
        ("2024-01-05T10:00:00,250Z", 1704448800),
        ("2024-01-05T10:00:00z", 1704448800),
        ("2024-01-05T10:00:00Z[UTC]", 1704448800),
        ("20240105T100000Z", 1704448800),
        ("2024-01-05T10:00:00 Z", 1704448800),
        # As Java and Trino write times with a region.
        ("2024-01-05T10:00:00-05:00[America/New_York]", 1704466800),
        ("2024-01-05T10:00+01:00[Europe/Paris]", 1704445200),
        ("1704448800,5", 1704448800),
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
        # No place is that far from UTC.
        "2024-01-05 10:00:00+25:00",
        "2024-01-05T10:00:00.5 -1530",
        "2024-01-05 10:00:00-99",
        "2024-01-05T10:00:00[Europe/Paris]",
        "2023_12_15",
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
    ("timestamp_format", "expected"),
    [
        ("%H:%M:%S", "a year in it"),
        ("%a %b %d %H:%M:%S CET %Y", "%Z in place of CET"),
        ("%Y-%m-%d %H:%M:%S +0100", "%z in place of +0100"),
        ("%Y-%m-%d %H:%M:%S -05:00", "%z in place of -05:00"),
    ],
)
def test_a_format_without_a_year_or_with_a_zone_of_letters_is_refused(
    build: BuildSequences, timestamp_format: str, expected: str
) -> None:
    log("1,2,2024-01-01")
    assert expected in build("--timestamp-format", timestamp_format).stderr


@pytest.mark.parametrize(
    ("timestamp_format", "text"),
    [
        ("%a %b %d %H:%M:%S %Z %Y", "Fri Dec 01 14:24:41 CET 2023"),
        ("%a %b %d %H:%M:%S UTC %Y", "Fri Dec 01 13:24:41 UTC 2023"),
        ("%Y-%m-%d %H:%M:%S %z CET", "2023-12-01 14:24:41 +0100 CET"),
        ("%d%b%Y:%H:%M:%S", "01DEC2023:13:24:41"),
        ("%Y-%m-%d %H:%M:%S+00:00", "2023-12-01 13:24:41+00:00"),
    ],
)
def test_a_format_may_have_a_zone(build: BuildSequences, timestamp_format: str, text: str) -> None:
    log(f"1,2,{text}")
    assert build("--timestamp-format", timestamp_format).times == [1701437081]


def test_a_zone_that_several_countries_have_is_unreadable_by_a_format_too(build: BuildSequences) -> None:
    log("1,2,2023-07-01 12:00:00 BST")
    fails(build("--timestamp-format", "%Y-%m-%d %H:%M:%S %Z"), "unreadable time: '2023-07-01 12:00:00 BST'")


def test_a_time_of_day_and_a_repeated_header_have_their_own_advice(build: BuildSequences) -> None:
    log("1,2,13:24:41")
    fails(build(), "a date and a time of day in two columns", "concat_ws(' ', date, time)")
    log("1,2,2023-12-01", "userId,movieId,timestamp", "1,3,2023-12-02")
    fails(build(), "line 3", "repeats the header")


def test_days_and_months_in_the_other_order_have_advice_if_most_rows_are_bad(build: BuildSequences) -> None:
    log("1,2,2023-13-12", "1,3,2023-14-12", "1,4,2023-01-12")
    fails(build(), "2 of 3 rows", "--timestamp-format")


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (["20231215", "20240101"], ["--timestamp-format %Y%m%d"]),
        (["20231231235900", "20240101000000"], ["--timestamp-format %Y%m%d%H%M%S"]),
        (["202312312359", "202401010000"], ["--timestamp-format %Y%m%d%H%M"]),
        (["2023121523", "2024010100"], ["--timestamp-format %Y%m%d%H"]),
        (["231231235900", "240101000000"], ["--timestamp-format %y%m%d%H%M%S"]),
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
        (["--timestamp-format", "%Y%m%d"], ["20231215.0", "20240101.0"], [1702598400, 1704067200]),
        (["--timestamp-format", "%y%m%d%H%M%S"], ["231231235900", "240101000000"], [1704067140, 1704067200]),
        (["--timestamp-unit", "days"], ["19723", "19724.5"], [1704067200, 1704067200 + 3 * DAY // 2]),
        (["--timestamp-unit", "days"], ["1", "365"], [DAY, 365 * DAY]),
        (["--timestamp-unit", "excel"], ["45292", "45293.25"], [1704067200, 1704067200 + 5 * DAY // 4]),
        (["--timestamp-unit", "s"], ["1", "2"], [1, 2]),
        (["--timestamp-unit", "us"], ["50000000000", "110000000000"], [50000, 110000]),
    ],
)
def test_ambiguous_numbers_are_read_with_an_explicit_format_or_unit(
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
        (["133470000000000000", "133470000000000001"], "Windows ticks"),
        # No year is 5012 or 2024.5: %Y%m%d and %Y would not help.
        (["05012024", "28012024"], "before March 1973"),
        (["2024.5", "2023.25"], "before March 1973"),
    ],
)
def test_dates_written_as_numbers_are_refused_next_to_other_times(
    build: BuildSequences, times: list[str], words: str
) -> None:
    log(*(f"1,{item},{time}" for item, time in enumerate(times)))
    fails(build(), "line 2", times[0], words)


def test_dates_written_as_floats_are_read_by_the_format_that_the_error_names(build: BuildSequences) -> None:
    log("1,10,20240105.0", "1,20,20240106.0", "2,10,20240107.")
    fails(build(), "line 2", "--timestamp-format %Y%m%d,")
    assert build("--timestamp-format", "%Y%m%d").times == [1704412800, 1704499200, 1704585600]


def test_a_fraction_of_a_number_is_one_of_its_second_or_makes_it_unreadable(build: BuildSequences) -> None:
    log("1,2,20240101000000.5", "1,3,20240101000000.25")
    assert events(build("--timestamp-format", "%Y%m%d%H%M%S")) == {1: [(3, 1704067200), (2, 1704067200)]}
    log("1,2,2023.5")
    fails(build("--timestamp-format", "%Y"), "unreadable time: '2023.5'")


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
    assert build().times == [0, T]
    assert "ratings.csv: line 3: timestamp: '0': 1 time(s) are 0" in build().stderr


def test_a_column_of_zeros_is_a_warning(build: BuildSequences) -> None:
    log("1,2,0", "1,3,0.0")
    outcome = build()
    assert "ratings.csv: line 2: timestamp: '0': all times are in 1970 or before" in outcome.stderr
    assert outcome.times == [0, 0]


@pytest.mark.parametrize(
    ("time", "words"), [("1970-08-22", "1970 or before"), ("1960-08-22", "1970 or before"), ("4821-12-26", "future")]
)
def test_a_log_entirely_in_1970_or_in_the_future_gives_a_warning(build: BuildSequences, time: str, words: str) -> None:
    log(f"1,2,{time}", f"1,3,{time} 12:00:00")
    outcome = build()
    assert f"WARNING ratings.csv: line 2: timestamp: '{time}': all times are in" in outcome.stderr
    assert words in outcome.stderr


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
