"""Delimiters, quotes and headers of CSV files: each log is read correctly, or refused with a one-line error."""

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import BuildSequences
from tests.support.log_files import HEADER, T, events, fails, log, write

pytestmark = pytest.mark.usefixtures("detected_unit")


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


@pytest.mark.parametrize(
    ("lines", "n_bad"),
    [
        # Never closed, in the last column and in another one.
        ([f'1,x,5,"{T}', f"2,y,6,{T}", f"3,z,7,{T}"], 3),
        ([f'1,"x,5,{T}', f"2,y,6,{T}", f"3,z,7,{T}"], 3),
        # Closed in another column: the record has too few fields, or too many.
        ([f'1,"x,5,{T}', f"2,y,6,{T}", f'"3,z,7,{T}'], 3),
        ([f'1,x,"5,{T}', f"2,y,6,{T}", f'3,z",7,{T}'], 3),
        # The first line has too many fields.
        ([f'1,"a,b,5,{T}', f"2,y,6,{T}", f"3,z,7,{T}"], 3),
        # Only the last line: nothing else is lost.
        ([f"1,x,5,{T}", f"2,y,6,{T}", f'3,"z,7,{T}'], 1),
    ],
)
def test_each_row_within_a_malformed_record_is_a_bad_row(build: BuildSequences, lines: list[str], n_bad: int) -> None:
    write("r.csv", "\n".join(["userId,title,movieId,timestamp", f"8,x,5,{T}", f'9,"two\nlines",5,{T}', *lines, ""]))
    fails(build("--ratings", "r.csv", "--max-bad-rows", n_bad - 1), f"{n_bad} of 5 rows")
    outcome = build("--ratings", "r.csv", "--max-bad-rows", n_bad)
    assert sum(outcome.report["rejected"].values()) == n_bad
    assert (outcome.report["rows_read"], {8, 9} <= set(outcome.histories)) == (5, True)


def test_a_quote_that_swallows_the_rest_of_a_long_file_is_an_error(
    build: BuildSequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchrec.sources.records._MOST_LINES", 50)
    rows = [f"{user},x,5,{T}" for user in range(60)]
    write("r.csv", "\n".join(["userId,title,movieId,timestamp", f"8,x,5,{T}", f'9,"x,5,{T}', *rows]))
    fails(build("--ratings", "r.csv", "--max-bad-rows", "100%"), "r.csv: line 3", "within 50 lines", "--quote none")


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


@pytest.mark.parametrize(
    ("time_format", "time"),
    [
        ("%a %b %d %H:%M:%S %Y", "Tue Nov 14 22:13:20 2023"),
        ("%B %d. %Y %H:%M:%S", "November 14. 2023 22:13:20"),
        ("on %d.%m.%Y %H:%M:%S", "on 14.11.2023 22:13:20"),
        ("%d/%m/%y %H:%M:%S", "14/11/23 22:13:20"),
    ],
)
def test_merged_rows_are_detected_whatever_their_times_begin_with(
    build: BuildSequences, time_format: str, time: str
) -> None:
    write("ratings.csv", MERGED_ROWS.replace('4,"Low",', '4,Low",').replace(str(T), time))
    fails(build("--timestamp-format", time_format), "line 3", "3 of 5 rows", "--quote none")
    outcome = build("--timestamp-format", time_format, "--max-bad-rows", "3")
    assert outcome.histories == {1: [5], 5: [8]}
    reviews = "".join(f'{user},"good, nice\nand cheap, too\n\nyes",{user},{time}\n' for user in range(9))
    write("ratings.csv", f"userId,review,movieId,timestamp\n{reviews}")
    assert build("--timestamp-format", time_format).report["rejected"] == {}


def test_merged_rows_are_counted_if_all_fields_are_quoted(build: BuildSequences) -> None:
    rows = [f'"{user}","{title}","5","2023-11-14 22:13:20"' for user, title in enumerate(["x", '\\""', "y", "z"])]
    write("ratings.csv", "\n".join(['"userId","title","movieId","timestamp"', *rows, ""]))
    outcome = build("--max-bad-rows", "100%")
    assert (outcome.report["rows_read"], sum(outcome.report["rejected"].values())) == (4, 4 - len(outcome.histories))


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


@pytest.mark.parametrize("above", ["\n", "sep=;\n", "# plays\n# of 2024\n", "Plays, by user\n", '"a\nb",c\n'])
def test_a_header_below_other_lines_is_named_by_its_line(build: BuildSequences, above: str) -> None:
    write("ratings.csv", f"{above}userId;movieId;timestamp\n1;2;{T}\n")
    n_lines = above.count("\n")
    fails(build(), f"ratings.csv: the header is on line {n_lines + 1}; expected it on line 1", f"skip = {n_lines}")
    query = "select userId as user_id, movieId as item_id, timestamp from read_csv('ratings.csv', skip = N)"
    write("query.sql", query.replace("N", str(n_lines)))
    assert build("--query", "query.sql").histories == {1: [2]}


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (
            f"userId,movieId,timestamp\n1,1,2,{T}\n2,1,3,{T}\n".encode(),
            ["line 2", "Name every field of the rows with --columns"],
        ),
        (
            f"userId,movieId,timestamp\n1,caf\xe9,{T}\n2,x,{T}\n".encode("latin-1"),
            ["line 2", "from its own encoding to UTF-8"],
        ),
        (
            f"userId,movieId,timestamp\n1,2,{T}\n".encode("utf-16"),
            ["UTF-16", "Convert it to UTF-8", "encoding = 'utf-16'"],
        ),
    ],
)
def test_an_error_about_the_form_of_a_file_says_what_to_do(
    build: BuildSequences, contents: bytes, words: list[str]
) -> None:
    Path("ratings.csv").write_bytes(contents)
    fails(build(), *words)
    Path("r.jsonl").write_bytes('{"userId": 1}'.encode("utf-16"))
    fails(build("--ratings", "r.jsonl"), "UTF-16")


@pytest.mark.parametrize("mark", [",", "\t"])
def test_a_header_without_a_name_for_the_numbers_of_rows_is_completed_by_columns(
    build: BuildSequences, mark: str
) -> None:
    # As write.table of R writes it.
    write("r.csv", f"userId,movieId,timestamp\n1,7,2,{T}\n2,7,3,{T + 1}\n".replace(",", mark))
    fails(build("--ratings", "r.csv"), "line 2", "with --columns")
    outcome = build("--ratings", "r.csv", "--columns", "row,userId,movieId,timestamp")
    assert events(outcome) == {7: [(2, T), (3, T + 1)]}


@pytest.mark.parametrize("time", [str(T), "2023-11-14 22:15:01", '"14.11.2023"'])
def test_a_row_in_place_of_the_header_that_columns_replaces_is_an_error(build: BuildSequences, time: str) -> None:
    write("r.csv", f"1,2,{time}\n1,3,{T + 1}\n")
    options = ("--ratings", "r.csv", "--columns", "userId,movieId,timestamp")
    fails(build(*options), "r.csv: the first line looks like a row", time.strip('"'), "Pass --header no too")
    write("r.csv", f"1,2,{T}\n1,3,{T + 1}\n")
    assert build(*options, "--header", "no").histories == {1: [2, 3]}
    # pandas numbers columns without names.
    for header in ("0,1,2", "who,what,1st_seen"):
        write("r.csv", f"{header}\n1,2,{T}\n1,3,{T + 1}\n")
        assert build(*options).histories == {1: [2, 3]}


@pytest.mark.parametrize(("encoding", "name"), [("utf-16-le", "utf-16le"), ("utf-16-be", "utf-16be")])
def test_the_conversion_that_the_error_about_utf_16_suggests_fits(
    build: BuildSequences, encoding: str, name: str
) -> None:
    Path("r.csv").write_bytes(f"userId,movieId,timestamp\n1,2,{T}\n".encode(encoding))
    fails(build("--ratings", "r.csv"), f"iconv -f {name} -t utf-8")
    Path("r.csv").write_bytes(Path("r.csv").read_bytes().decode(name).encode())
    assert build("--ratings", "r.csv").histories == {1: [2]}


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"\xff" * 4, "a stream of Arrow"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"PARE\x15\x00", "an encrypted Parquet file"),
        (gzip.compress(b"X\n\0\0\0\3"), "a file of R (saveRDS)"),
        (gzip.compress(b"a.csv".ljust(257, b"\0") + b"ustar\0"), "a tar archive"),
        (gzip.compress(b"PAR1"), "a compressed Parquet file"),
        (gzip.compress(b"SQLite format 3\0"), "an SQLite database"),
        (gzip.compress(gzip.compress(b"userId")), "a gzip file within another"),
        (b"<!DOCTYPE html>\n<title>Log in</title>", "HTML or XML, not a table"),
    ],
)
def test_a_file_of_another_format_is_named_also_if_compressed(
    build: BuildSequences, contents: bytes, words: str
) -> None:
    Path("r.csv").write_bytes(contents)
    fails(build("--ratings", "r.csv"), "r.csv: is ", words)


def test_sql_as_a_log_is_refused_with_the_option_for_queries(build: BuildSequences) -> None:
    write("r.sql", "select 1 as user_id, 2 as item_id, 3 as timestamp")
    fails(build("--ratings", "r.sql"), "has statements of SQL", "--query")


def test_a_file_of_pzstd_is_read(build: BuildSequences) -> None:
    # It starts with a frame of sizes, which holds no text.
    frame = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
    Path("r.csv.zst").write_bytes(
        frame + pa.compress(f"userId,movieId,timestamp\n1,2,{T}\n".encode(), "zstd", asbytes=True)
    )
    assert build("--ratings", "r.csv.zst").histories == {1: [2]}


def test_zeros_behind_the_end_of_a_gzip_file_are_named(build: BuildSequences) -> None:
    Path("r.csv.gz").write_bytes(gzip.compress(f"userId,movieId,timestamp\n1,2,{T}\n".encode()) + bytes(500))
    fails(build("--ratings", "r.csv.gz"), "r.csv.gz: a gzip file has bytes behind its end", "gzip -d")


def test_texts_that_backslashes_escape_are_named(build: BuildSequences) -> None:
    write("r.tsv", f"userId\tmovieId\ttimestamp\ttext\n1\t2\t{T}\ta\\\tb\n")
    fails(build("--ratings", "r.tsv"), "line 2", "texts that backslashes escape", "only the columns of users")


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


def test_quotes_within_quoted_fields_are_recognised_in_tab_separated_files(build: BuildSequences) -> None:
    # As pandas and spreadsheets write it: only fields with a quote, a tab or a line end are quoted.
    write("ratings.csv", f'userId\ttitle\tmovieId\ttimestamp\n1\t"The ""Film"""\t2\t{T}\n1\t"A\tB"\t3\t{T + 1}\n')
    assert events(build()) == {1: [(2, T), (3, T + 1)]}


def test_quotes_escaped_by_backslashes_are_read_by_the_query_that_the_error_suggests(build: BuildSequences) -> None:
    titles = [r'"12\" single"', r'"\"Heroes\", live"', "plain"]
    rows = "".join(f"{title},1,{item},{T + item}\n" for item, title in enumerate(titles))
    write("ratings.csv", f"title,userId,movieId,timestamp\n{rows}")
    option = r"escape = '\'"
    fails(build(), "ratings.csv: line 2", f"--query with read_csv and {option}.")
    write("q.sql", f"from read_csv('ratings.csv', {option}) select userId as user_id, movieId as item_id, timestamp")
    assert build("--query", "q.sql").histories == {1: [0, 1, 2]}


def test_a_header_within_quotes_is_shown_with_them(build: BuildSequences) -> None:
    write("ratings.csv", '"userId,movieId,timestamp"\n')
    fails(build(), "no column 'userId'; found 'userId,movieId,timestamp'")
