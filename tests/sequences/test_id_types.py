"""Ids in the forms in which logs have them: integers or text, missing, padded or damaged."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import BuildSequences
from tests.support.log_files import T, events, fails, log, write, write_parquet

pytestmark = pytest.mark.usefixtures("detected_unit")


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
    ("values", "item"),
    [
        ([[10, 20]], "unnest(movieId)"),
        ([{"field": 10}], "movieId.field"),
        (pa.array([[(10, 2)]], pa.map_(pa.int64(), pa.int64())), "unnest(map_keys(movieId))"),
    ],
    ids=["list", "struct", "map"],
)
def test_the_query_that_the_error_about_a_nested_column_suggests_reads_it(
    build: BuildSequences, values: Any, item: str
) -> None:
    write_parquet("r.parquet", movieId=values)
    fails(build("--ratings", "r.parquet"), "r.parquet", "'movieId'", "--item-column", f"{item}\n")
    write("q.sql", f"from 'r.parquet' select userId as user_id, {item} as item_id, timestamp")
    assert 10 in build("--query", "q.sql").histories[1]
    write("q.sql", f"select 1 as user_id, [1, 2] as item_id, {T} as timestamp")
    fails(build("--query", "q.sql"), "q.sql", "'item_id'", "unnest(item_id)")


@pytest.mark.parametrize("value", ["10::variant", "union_value(a := 10)"], ids=["variant", "union"])
def test_the_cast_that_the_error_about_a_value_of_any_type_suggests_reads_it(build: BuildSequences, value: str) -> None:
    rows = f"from (select 1 as user_id, {value} as item_id, {T} as timestamp)"
    write("q.sql", f"select * {rows}")
    fails(build("--query", "q.sql"), "q.sql", "'item_id'", "Pass a query with cast(item_id as varchar)\n")
    write("q.sql", f"select user_id, cast(item_id as varchar) as item_id, timestamp {rows}")
    assert build("--query", "q.sql").histories == {1: ["10"]}


def test_whole_decimals_are_spelled_as_integers_next_to_text(build: BuildSequences) -> None:
    decimals = pa.array(["17850", "2"]).cast(pa.decimal128(38, 10))
    write_parquet("d/r.parquet", userId=decimals, movieId=decimals, timestamp=[T, T])
    assert build("--ratings", "d").histories == {17850: [17850], 2: [2]}
    write_parquet("d/s.parquet", userId=["x"])
    assert set(build("--ratings", "d").histories) == {"17850", "2", "x"}
    log(f"17850.00,1.,{T}")
    assert build().histories == {17850: [1]}


def test_whole_floats_as_java_writes_them_are_integers(build: BuildSequences) -> None:
    log(f"1.2345678E7,-1.0E7,{T}", f"12345678.0,1.23456789012345E14,{T + 1}", f"123456.0,1.234567890123E14,{T}")
    assert build().histories == {12345678: [-(10**7), 123456789012345], 123456: [123456789012300]}


@pytest.mark.parametrize("text", ["1.23E+15", '"1,23E+15"', "1e+05", "1.2345678E15", "1.2345679E14", "1.2345678E18"])
def test_ids_that_a_program_has_rounded_are_bad_rows(build: BuildSequences, text: str) -> None:
    log(f"17,{text},{T}", f"18,x,{T}")
    fails(build(), "line 2", "item id has lost digits")


def test_a_float_beyond_the_exact_ones_is_a_bad_row_also_without_an_exponent(build: BuildSequences) -> None:
    log(f"17,9123456789012346.0,{T}", f"9123456789012346.0,18,{T}", f"17,19,{T}")
    fails(build(), "line 2", "item id has lost digits", "2 of 3 rows")
    assert build("--max-bad-rows", "2").histories == {17: [19]}
    log(f"17,9007199254740991.0,{T}", f"17,9123456789012345,{T + 1}", f"17,9123456789012345.00,{T + 2}")
    assert build().histories == {17: [2**53 - 1, 9123456789012345]}


@pytest.mark.parametrize(
    "text",
    [
        *("[10, 20]", "['a', 'b']", "10,20", "10|20|30", "[]", "{10,20}", "{10}", "(10, 20)", "10 20", "N1 N2-0"),
        *("10:2;20:1", "10:2|20:1", "SKU-10,SKU-20", "B07XJ, B08K2; 85123A"),
    ],
)
def test_lists_that_are_written_as_text_are_refused(build: BuildSequences, text: str) -> None:
    log(f'1,"{text}",{T}', f'2,"{text}",{T}', f"3,30,{T}")
    fails(build(), "ratings.csv: column 'movieId' of --item-column has several ids per row", text, "unnest")
    assert build("--item-id-type", "text").histories == {1: [text], 2: [text], 3: ["30"]}
    write_parquet("r.parquet", userId=[text], movieId=[1], timestamp=[T])
    fails(build("--ratings", "r.parquet"), "r.parquet: column 'userId' of --user-column", "--user-id-type text")


def test_a_warning_names_ids_that_look_like_several_if_others_do_not(build: BuildSequences) -> None:
    log(*(f'{place},"{text}",{T}' for place, text in enumerate(["SKU-10", "SKU-20,SKU-30", "SKU-40"])))
    outcome = build()
    assert outcome.histories[1] == ["SKU-20,SKU-30"]
    assert "some item ids look like several in one, like 'SKU-20,SKU-30'" in outcome.stderr
    assert "look like several" not in build("--item-id-type", "text").stderr


@pytest.mark.parametrize("text", ["auth0|5f7c8ec7", "auth0|5f7c", "spotify:track:4uLU6", "Smith, J2", "a,b", "10-20"])
def test_single_ids_with_marks_are_read_without_a_warning(build: BuildSequences, text: str) -> None:
    log(f'1,"{text}",{T}', f"2,x,{T}")
    outcome = build()
    assert outcome.histories == {1: [text], 2: ["x"]}
    assert "several" not in outcome.stderr


@pytest.mark.parametrize(
    ("texts", "expression"),
    [
        (("1.000.034", "17.850"), r"regexp_replace(movieId, '\D', '', 'g')"),
        (("1'000'034", "17'850"), r"regexp_replace(movieId, '\D', '', 'g')"),
        (("1’000’034", "17’850"), r"regexp_replace(movieId, '\D', '', 'g')"),
        (('"1,000,034"', '"17,850"'), r"regexp_replace(movieId, '\D', '', 'g')"),
        (('"1000034,00"', '"17850,00"'), "regexp_replace(movieId, ',0+$', '')"),
    ],
)
def test_the_query_that_the_error_about_parted_digits_suggests_reads_them(
    build: BuildSequences, texts: tuple[str, str], expression: str
) -> None:
    log(*(f"1,{text},{T + place}" for place, text in enumerate(texts)), f"2,106,{T}")
    fails(build(), "ratings.csv: column 'movieId' of --item-column has several ids per row", expression)
    write("q.sql", f"from 'ratings.csv' select userId as user_id, {expression} as item_id, timestamp")
    assert build("--query", "q.sql").histories == {1: ["1000034", "17850"], 2: ["106"]}


@pytest.mark.parametrize("text", ["1.2.3", "10.20", "0.125", "1234.567", "904.869.12"])
def test_codes_with_points_are_ids(build: BuildSequences, text: str) -> None:
    log(f"1,{text},{T}", f"2,{text},{T}", f"3,A1,{T}")
    assert build().histories == {1: [text], 2: [text], 3: ["A1"]}


def test_the_query_that_the_error_suggests_quotes_the_name_of_the_column(build: BuildSequences) -> None:
    for name in ('="movieId"', "item id", "order"):
        spelled = name.replace('"', '""')
        write("r.csv", f'userId,"{spelled}",timestamp\n1,"=""10""",{T}\n')
        expression = f"""trim("{spelled}", '="')"""
        fails(build("--ratings", "r.csv", "--item-column", name), expression)
        table = "read_csv('r.csv', header = true)"
        write("q.sql", f"from {table} select userId as user_id, {expression} as item_id, timestamp")
        assert build("--query", "q.sql").histories == {1: ["10"]}


def test_ids_that_are_numbers_in_binary_are_refused(build: BuildSequences) -> None:
    # As ClickHouse writes an Int256.
    numbers = pa.array([(number).to_bytes(32, "little") for number in (1000034, 1000005)], pa.binary(32))
    write_parquet("r.parquet", userId=numbers, movieId=[1, 1], timestamp=[T, T])
    fails(
        build("--ratings", "r.parquet"), "r.parquet: column 'userId'", "no text", "hex(userId)", "--user-id-type text"
    )
    write("q.sql", "from 'r.parquet' select hex(userId) as user_id, movieId as item_id, timestamp")
    assert len(build("--query", "q.sql").histories) == 2


def test_a_few_ids_in_brackets_are_ids(build: BuildSequences) -> None:
    log(f"1,[DEMO],{T}", f"1,game,{T + 1}", f"1,other,{T + 2}", f'1,"1,234",{T + 3}', f"1,x,{T + 4}")
    assert build().histories == {1: ["[DEMO]", "game", "other", "1,234", "x"]}


@pytest.mark.parametrize(
    "text",
    [
        "{550E8400-E29B-41D4-A716-446655440000}",
        "{6F9619FF-8B86}",
        "(single)",
        "f(a, b)",
        "Portal 2",
        "FIFA 15",
        "12-34",
        "O'Neil",
    ],
)
def test_an_id_with_braces_blanks_or_an_apostrophe_is_one_id(build: BuildSequences, text: str) -> None:
    unquoted = f'"{text}"' if "," in text else text
    log(f'1,"{text}",{T}', f"2,{unquoted},{T}")
    assert build().histories == {1: [text], 2: [text]}


@pytest.mark.parametrize("text", ["'%s'", "`%s`", '"""%s"""', '="%s"', "'%s", "“%s”"])
def test_ids_within_other_quotes_than_those_of_the_file_are_refused(build: BuildSequences, text: str) -> None:
    log(f"1,{text % 10},{T}", f"2,{text % 20},{T}")
    fails(build(), "ratings.csv: column 'movieId' of --item-column has ids within quotes", "trim(movieId, '")
    assert len(build("--item-id-type", "text").histories) == 2


def test_the_quote_that_the_error_about_quoted_ids_suggests_reads_them(build: BuildSequences) -> None:
    log(f"'1','10',{T}")
    fails(build(), """Pass --quote "'", a query""")
    assert build("--quote", "'").histories == {1: [10]}


def test_a_text_that_others_write_for_a_missing_id_is_a_warning(build: BuildSequences) -> None:
    log(f"undefined,10,{T}", f"u1,10,{T}", f"N/A,10,{T}", f"undefined,20,{T}")
    assert (
        "WARNING user id 'undefined' has 2 event(s). If it means a missing id pass --null 'undefined'" in build().stderr
    )
    outcome = build("--null", "undefined,n/a", "--max-bad-rows", "3")
    assert (outcome.histories, "WARNING" in outcome.stderr) == ({"u1": [10]}, False)


# The last ones are of SAS, Julia and pivot tables of spreadsheets.
@pytest.mark.parametrize("word", ["NA", "#N/A", "#REF!", ".", "missing", "(blank)"])
def test_a_word_that_alone_would_make_integers_text_is_refused(build: BuildSequences, word: str) -> None:
    log(f"17850,10,{T}", f"{word},10,{T}", f"13047,10,{T}", f"{word},20,{T}")
    fails(build(), f"line 3: userId: '{word}'", f"Pass --null '{word}'", "--user-id-type text")
    assert set(build("--null", word, "--max-bad-rows", "2").histories) == {17850, 13047}
    assert set(build("--user-id-type", "text").histories) == {"17850", "13047", word}


def test_whole_floats_as_text_are_refused(build: BuildSequences) -> None:
    # As pandas writes a column of integers with a missing one after astype(str).
    write_parquet("r.parquet", userId=["1", "2"], movieId=["300.0", "400.0"], timestamp=[T, T])
    fails(build("--ratings", "r.parquet"), "'movieId'", "written as floats, like '300.0'", "--item-id-type integer")
    assert build("--ratings", "r.parquet", "--item-id-type", "integer").histories == {"1": [300], "2": [400]}
    assert build("--ratings", "r.parquet", "--item-id-type", "text").histories == {"1": ["300.0"], "2": ["400.0"]}


@pytest.mark.parametrize("text", ["b'u%d'", 'b"u%d"', "ObjectId(u%d)", 'ObjectId("u%d")'])
def test_ids_as_python_and_mongodb_show_them_are_refused(build: BuildSequences, text: str) -> None:
    write_parquet("r.parquet", userId=[text % 10, text % 20], movieId=[1, 2], timestamp=[T, T])
    remove = r"regexp_extract(userId, '\W+(.+?)\W+$', 1)"
    fails(build("--ratings", "r.parquet"), "ids within quotes", remove)
    write("query.sql", f"select {remove} as user_id, movieId as item_id, timestamp from 'r.parquet'")  # noqa: S608
    assert build("--query", "query.sql").histories == {"u10": [1], "u20": [2]}


@pytest.mark.parametrize("blank", ["\u00a0", "\u202f"])
def test_digits_of_integers_apart_by_blanks_are_refused(build: BuildSequences, blank: str) -> None:
    log(f"10{blank}056,2,{T}", f"10{blank}057,2,{T}")
    fails(build(), "separated digits")


@pytest.mark.parametrize("text", ["1E15", "12E45678", "1.23456789E7", "1.5E3"])
def test_other_ids_with_an_e_are_text(build: BuildSequences, text: str) -> None:
    log(f"17,{text},{T}")
    assert build().histories == {17: [text]}


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        (pa.array([2.0**53 - 1]), True),
        # 2**53 + 1 has become this one.
        (pa.array([2.0**53]), False),
        (pa.array([float("inf")]), False),
        (pa.array([1.2345678901234568e18]), False),
        (pa.array([2.0**24 - 1], pa.float32()), True),
        (pa.array([2.0**24], pa.float32()), False),
        (pa.array([np.float16(2**11 - 1)]), True),
        (pa.array([np.float16(2**11)]), False),
        # DuckDB reads decimals of more than 38 digits, as of BigQuery's BIGNUMERIC, as doubles.
        (pa.array([2**53 - 1], pa.decimal256(40, 0)), True),
        (pa.array([2**53 + 1], pa.decimal256(40, 0)), False),
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


def test_times_as_floats_of_32_bits_are_refused(build: BuildSequences) -> None:
    write_parquet("r.parquet", userId=pa.array([1]), timestamp=pa.array([float(T)], pa.float32()))
    fails(build("--ratings", "r.parquet"), "r.parquet", "'timestamp' has times as floats", "lost digits")
    write_parquet("r.parquet", userId=pa.array([1]), timestamp=pa.array([float(T)]))
    assert build("--ratings", "r.parquet").times == [T]


def test_an_id_in_exponent_notation_is_a_bad_row_and_keeps_ids_integers(build: BuildSequences) -> None:
    log(f"1,5,{T}", f"1.2345678901234568e+18,5,{T}")
    fails(build(), "line 3", "user id has lost digits", "1.2345678901234568e+18", "as whole numbers or as text")
    assert set(build("--max-bad-rows", "1").histories) == {1}
    # Hexadecimal ids can look like this.
    log(f"1e18,5,{T}")
    assert set(build().histories) == {"1e18"}


def test_users_items_and_times_need_three_different_columns(build: BuildSequences) -> None:
    log(f"1,2,{T}")
    fails(build("--item-column", "userId"), "--item-column userId", "three different columns")


@pytest.mark.parametrize("blank", ["\v", "\f", "\u3000", "\ufeff", "\0"])
def test_an_id_of_any_single_blank_is_missing(build: BuildSequences, blank: str) -> None:
    log(f"u,A1,{T}", f"u,{blank},{T + 1}", f"u,{blank}NULL{blank},{T + 2}")
    outcome = build("--max-bad-rows", "2")
    assert (outcome.report["rejected"], events(outcome)) == ({"no item": 2}, {"u": [("A1", T)]})


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
