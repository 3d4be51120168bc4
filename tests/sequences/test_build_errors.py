"""Input that build-sequences cannot use: an exit code, a one-line error, and no file changed."""

import gzip
import io
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import BuildSequences

HEADER = "userId,movieId,rating,timestamp\n"
GOOD = f"{HEADER}1,2,3,4\n"
SELECT = "select userId as user_id, movieId as item_id, timestamp from 'ratings.csv'"
LONG = f"{HEADER}" + "".join(f"{user},{user * 7919 % 1000},3,{user * 104729}\n" for user in range(20_000))


def parquet(**columns: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def names_in_folder() -> list[str]:
    return sorted(path.name for path in Path.cwd().iterdir())


def assert_fails_and_touches_nothing(
    build: BuildSequences, arguments: list[str], exit_code: int, words: list[str]
) -> None:
    Path("sequences.parquet").write_bytes(b"last night's")
    Path("sequences.rejects.csv").write_bytes(b"last night's")
    before = snapshot(Path.cwd())
    outcome = build(*arguments)
    assert outcome.exit_code == exit_code
    assert outcome.stderr.startswith("batchrec: error: ")
    assert outcome.stderr.count("\n") == 1
    assert outcome.stderr.endswith("\n")
    assert [word for word in words if word not in outcome.stderr] == []
    assert snapshot(Path.cwd()) == before


# Contents of ratings.csv, and words that the error must contain.
BAD_CSV: dict[str, tuple[str | bytes, list[str]]] = {
    "empty": ("", ["ratings.csv", "empty", "userId"]),
    "empty lines": ("\n\n", ["ratings.csv", "empty"]),
    "a BOM": ("\ufeff", ["ratings.csv", "empty"]),
    "header only": (HEADER, ["ratings.csv", "no event is left", "0 rows"]),
    "header without its end": (HEADER.strip(), ["ratings.csv", "no event is left"]),
    "missing column": (
        "user,movieId,stars\n1,2,3\n",
        ["ratings.csv", "'userId'", "user, movieId, stars", "--user-column"],
    ),
    "name in another case": ("USERID,movieId,timestamp\n1,2,3\n", ["'userId'", "USERID", "--user-column"]),
    "missing column of times": ("userId,movieId\n1,2\n", ["'timestamp'", "userId, movieId", "--timestamp-column"]),
    "no header": ("1,2,3,4\n1,3,3,5\n", ["ratings.csv", "'userId'", "1, 2, 3, 4"]),
    "duplicate name": (f"userId,{HEADER}0,1,2,3,4\n", ["ratings.csv", "2 columns 'userId'"]),
    "text as time": (
        f"{GOOD}1,3,3,yesterday\n",
        ["ratings.csv", "line 3", "unreadable time", "'yesterday'", "--max-bad-rows"],
    ),
    "American time": (f"{HEADER}1,2,3,12/25/2010 8:26\n", ["line 2", "12/25/2010 8:26"]),
    "a day that is not": (f"{HEADER}1,2,3,2010-02-30\n", ["line 2", "2010-02-30"]),
    "an endless time": (f"{HEADER}1,2,3,infinity\n", ["line 2", "infinity"]),
    "nanoseconds": (f"{HEADER}1,2,3,1577836800123456789\n", ["line 2", "1577836800123456789"]),
    "no user": (f"{GOOD}\n,2,3,4\n", ["ratings.csv", "line 4", "no user", "1 of 2 rows"]),
    "no item": (f"{GOOD}1,,3,4\n", ["line 3", "no item", "1,,4"]),
    "no time": (f'{GOOD}1,2,3,""\n', ["line 3", "no time"]),
    "not a number as user": (f"{GOOD}NaN,2,3,4\n", ["line 3", "no user", "NaN"]),
    "short row": (f"{GOOD}1,3,3\n1,4,3,5\n", ["ratings.csv", "line 3", "missing columns", "1,3,3"]),
    "long row": (f"{GOOD}1,3,3,4,5\n", ["ratings.csv", "line 3", "too many columns", "1,3,3,4,5"]),
    "cut within a row": (f"{GOOD}1,3", ["ratings.csv", "line 3", "missing columns"]),
    "cut within quotes": (f'{GOOD}1,3,3,"4', ["ratings.csv", "line 3", "malformed"]),
    "quote that never ends": (f'{GOOD}1,"3,3,4\n1,4,3,5\n', ["ratings.csv", "line 3", "within quotes", "2 of 3 rows"]),
    "short row after lines in quotes": (
        'note,userId,movieId,timestamp\n"a\nb\nc",1,2,3\n"d\r\n",1,3,3\nx,1\n',
        ["ratings.csv", "line 7", "missing columns"],
    ),
    "text as time after lines in quotes": (
        '"no\nte",userId,movieId,timestamp\r\n"a\nb\nc",1,2,3\r\n\r\nx,1,2,z\r\n',
        ["ratings.csv", "line 7", "'z'"],
    ),
    "latin-1": (f"{GOOD}1,café,3,5\n".encode("latin-1"), ["ratings.csv", "line 3", "encoding"]),
    "UTF-16": (GOOD.encode("utf-16"), ["ratings.csv", "UTF-16"]),
    "line ends of two kinds": (
        "userId,movieId,rating,timestamp\r\n1,2,3,4\n1,3,3,5\n",
        ["ratings.csv: line ends are mixed in "],
    ),
    "an image": (bytes(range(256)).replace(b"\n", b"").replace(b"\r", b"") * 1000, ["ratings.csv", "not text"]),
    "a zip": (b"PK\x03\x04" + bytes(100), ["ratings.csv", "zip archive"]),
}


@pytest.mark.parametrize("name", BAD_CSV)
def test_a_bad_csv(build: BuildSequences, name: str) -> None:
    text, words = BAD_CSV[name]
    Path("ratings.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    assert_fails_and_touches_nothing(build, [], 3, words)


@pytest.mark.parametrize(
    ("name", "contents", "words"),
    [
        ("r.csv.gz", gzip.compress(LONG.encode(), mtime=0)[:60_000], ["r.csv.gz"]),
        ("r.csv.gz", gzip.compress(LONG.encode(), mtime=0)[:-4], ["r.csv.gz"]),
        ("r.csv.gz", gzip.compress(LONG.encode(), mtime=0)[:15], ["r.csv.gz"]),
        ("r.csv.gz", b"", ["r.csv.gz", "empty"]),
        ("r.csv.gz", gzip.compress(b"", mtime=0), ["r.csv.gz", "empty"]),
        ("r.csv.gz", gzip.compress(f"{GOOD}1,3,3,x\n".encode(), mtime=0), ["r.csv.gz", "line 3", "'x'"]),
        ("r.parquet", b"", ["r.parquet", "not a Parquet file"]),
        ("r.parquet", GOOD.encode(), ["r.parquet", "not a Parquet file"]),
        ("r.parquet", b"PAR1" + b"x" * 50 + b"PAR1", ["r.parquet", "not a Parquet file"]),
        ("r.parquet", parquet(userId=[1], movieId=[2], timestamp=[4])[:-20], ["r.parquet", "not a Parquet file"]),
        ("r.parquet", parquet(user=[1], movieId=[2], timestamp=[4]), ["'userId'", "user, movieId, timestamp"]),
        ("r.parquet", parquet(userId=[1], movieId=[2], timestamp=["x"]), ["r.parquet", "unreadable time", "'x'"]),
        ("r.parquet", parquet(userId=[1], movieId=[2], timestamp=pa.nulls(1)), ["r.parquet", "no time"]),
        ("r.parquet", parquet(userId=[1], movieId=pa.nulls(1), timestamp=[4]), ["r.parquet", "no item"]),
        ("r.parquet", parquet(userId=pa.array([], pa.int64()), movieId=[], timestamp=[]), ["no event is left"]),
    ],
)
def test_a_bad_file(build: BuildSequences, name: str, contents: bytes, words: list[str]) -> None:
    Path(name).write_bytes(contents)
    assert_fails_and_touches_nothing(build, ["--ratings", name], 3, words)


def test_a_damaged_page_of_a_parquet_file(build: BuildSequences) -> None:
    contents = bytearray(parquet(userId=list(range(1000)), movieId=list(range(1000)), timestamp=list(range(1000))))
    contents[100:2000] = bytes(1900)
    Path("r.parquet").write_bytes(contents)
    assert_fails_and_touches_nothing(build, ["--ratings", "r.parquet"], 3, ["r.parquet"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["ratings.csv", "no file found", "--ratings"]),
        (["--ratings", "nope/*.csv"], ["nope/*.csv", "no file found"]),
        (["--ratings", "good.csv", "--ratings", "nope.parquet"], ["nope.parquet", "no file found"]),
        (["--ratings", "folder"], ["folder", "no file found", ".parquet"]),
        (["--ratings", ""], ["no file found"]),
        (["--ratings", "a" * 300], ["aaa", "too long"]),
        (["--ratings", "good.csv", "--ratings", "bad.csv"], ["bad.csv", "line 2"]),
        (["--ratings", "good.csv", "--ratings", "other.csv"], ["other.csv", "'userId'", "user"]),
        (["--ratings", "good.csv", "--min-rating", "3.5"], ["good.csv", "no event is left", "below --min-rating"]),
        (["--ratings", "good.csv", "--min-item-events", "2"], ["no event is left", "below --min-item-events"]),
        (["--ratings", "good.csv", "--min-user-events", "2"], ["no event is left", "below --min-user-events"]),
        (["--ratings", "good.csv", "--min-rating", "1", "--rating-column", "stars"], ["'stars'", "--rating-column"]),
        (["--ratings", "unrated.csv", "--min-rating", "1"], ["unrated.csv", "line 2", "no rating", "good"]),
        (["--ratings", "bad.csv", "--max-bad-rows", "1"], ["bad.csv", "no event is left", "unreadable time"]),
        (["--ratings", "bad.csv", "--max-bad-rows", "99%"], ["bad.csv", "line 2", "1 of 1 rows", "99%"]),
        (["--query", "nothing.sql"], ["nothing.sql", "no event is left"]),
        (["--query", "null.sql"], ["null.sql", "no user"]),
        (["--query", "gone.sql"], ["gone.sql", "nope.csv"]),
    ],
)
def test_input_that_is_missing_or_leaves_nothing(build: BuildSequences, arguments: list[str], words: list[str]) -> None:
    Path("folder").mkdir()
    Path("folder/notes.txt").write_text(GOOD)
    Path("good.csv").write_text(GOOD.replace(",4", ",1577836800"))
    Path("bad.csv").write_text(f"{HEADER}1,2,3,x\n")
    Path("other.csv").write_text("user,movieId,timestamp\n1,2,3\n")
    Path("unrated.csv").write_text(f"{HEADER}1,2,good,4\n")
    Path("nothing.sql").write_text("select 1 as user_id, 2 as item_id, 3 as timestamp where false")
    Path("null.sql").write_text("select null as user_id, 2 as item_id, 3 as timestamp")
    Path("gone.sql").write_text("select * from 'nope.csv'")
    assert_fails_and_touches_nothing(build, arguments, 3, words)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", ["q.sql", "0 statements", "one SELECT"]),
        ("-- nothing", ["q.sql", "one SELECT"]),
        ("selec 1", ["q.sql", "syntax error", "selec"]),
        (f"{SELECT}; {SELECT}", ["q.sql", "a statement SELECT before the last", "SELECT", "ATTACH"]),
        (f"{SELECT}; drop table events", ["q.sql", "2 statements"]),
        ("create table events as select 1", ["q.sql", "one SELECT"]),
        ("copy (select 1) to 'sequences.parquet'", ["q.sql", "one SELECT"]),
        ("attach 'warehouse.db'", ["q.sql", "one SELECT"]),
        (SELECT.replace("timestamp", "timestamp as moment"), ["q.sql", "'timestamp'", "user_id, item_id, moment"]),
        (SELECT.replace("userId", "nobody"), ["q.sql", "nobody", "movieId"]),
        ("select * from events", ["q.sql", "events", "does not exist"]),
        ("select * from query", ["q.sql", "query", "does not exist"]),
        # Names of Python variables in the code that runs the query.
        ("select * from file", ["q.sql", "file", "does not exist"]),
        ("select * from columns", ["q.sql", "columns", "does not exist"]),
        ("select $x as user_id, 2 as item_id, 3 as timestamp", ["q.sql", "parameters", "x"]),
        ("select 'caf\udce9' as user_id, 2 as item_id, 3 as timestamp", ["q.sql", "utf-8"]),
    ],
)
def test_a_query_that_fails(build: BuildSequences, query: str, words: list[str]) -> None:
    Path("ratings.csv").write_text(GOOD)
    Path("q.sql").write_bytes(os.fsencode(query))
    assert_fails_and_touches_nothing(build, ["--query", "q.sql"], 2, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--query", "nope.sql"], ["nope.sql", "cannot be read"]),
        (["--query", ""], ["cannot be read"]),
        (["--query", "folder"], ["folder", "directory"]),
        (["--query", "q.sql", "--ratings", "ratings.csv"], ["--ratings", "--query"]),
        (["--query", "q.sql", "--min-rating", "1"], ["q.sql", "'rating'", "user_id, item_id, timestamp"]),
        (["--max-bad-rows", "many"], ["--max-bad-rows", "many", "0.5%"]),
        (["--max-bad-rows", "-1"], ["--max-bad-rows", "-1"]),
        (["--max-bad-rows", "1e3"], ["--max-bad-rows", "1e3"]),
        (["--max-bad-rows", "1.5"], ["--max-bad-rows", "1.5"]),
        (["--max-bad-rows", "%"], ["--max-bad-rows", "%"]),
        (["--max-bad-rows", ""], ["--max-bad-rows"]),
        (["--memory-limit", "banana"], ["--memory-limit", "banana"]),
        (["--memory-limit", "5 bananas"], ["--memory-limit", "bananas"]),
        (["--memory-limit", "1KB"], ["--memory-limit 1KB", "not enough memory"]),
        (["--threads", "0"], ["--threads 0", "from 1 to 1024"]),
        (["--threads", "two"], ["--threads", "two"]),
        (["--min-user-events", "0"], ["--min-user-events 0", "1 or more"]),
        (["--min-item-events", "-1"], ["--min-item-events -1"]),
        (["--min-rating", "good"], ["--min-rating", "good"]),
        (["--repeats", "some"], ["--repeats", "last", "first", "all"]),
        (["--timestamp-unit", "weeks"], ["--timestamp-unit", "us"]),
        (["--stars", "5"], ["--stars"]),
        (["ratings.csv"], ["ratings.csv"]),
        (["--out", "nope/h.parquet"], ["nope/h.parquet", "nope", "does not exist"]),
        (["--out", "ratings.csv/h.parquet"], ["ratings.csv/h.parquet", "does not exist"]),
        (["--out", "folder"], ["folder", "--out"]),
        (["--out", "."], ["folder", "--out"]),
        (["--out", "/"], ["/", "folder", "--out"]),
        (["--out", ""], ["folder", "--out"]),
        (["--out", "h" * 300], ["hhh", "too long"]),
        (["--out", "taken.parquet"], ["taken.rejects.csv", "folder"]),
        (["--ratings", "fixed.rejects.csv", "--out", "fixed.parquet"], ["fixed.rejects.csv", "is also an input"]),
    ],
)
def test_wrong_use(build: BuildSequences, arguments: list[str], words: list[str]) -> None:
    Path("folder").mkdir()
    Path("taken.rejects.csv").mkdir()
    for log in ("ratings.csv", "fixed.rejects.csv"):
        Path(log).write_text(GOOD)
    Path("q.sql").write_text(SELECT)
    assert_fails_and_touches_nothing(build, arguments, 2, words)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody can write")
def test_an_output_folder_that_nobody_can_write_to(build: BuildSequences) -> None:
    Path("ratings.csv").write_text(GOOD)
    assert_fails_and_touches_nothing(build, ["--out", "/proc/self/h.parquet"], 2, ["/proc/self/h.parquet", "cannot be"])


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="modes of folders do not stop root")
def test_an_output_folder_that_is_read_only(build: BuildSequences) -> None:
    Path("ratings.csv").write_text(GOOD)
    Path("folder").mkdir(mode=0o555)
    assert_fails_and_touches_nothing(build, ["--out", "folder/h.parquet"], 2, ["folder/h.parquet", "cannot be written"])


def test_names_in_an_error_cannot_break_its_line_or_drive_a_terminal(build: BuildSequences) -> None:
    Path("new\nline\x1b[2J.csv").write_text("a\tb\x1b[31m\n1\n")
    outcome = build("--ratings", "new\nline\x1b[2J.csv", "--user-column", "x\ny\x07")
    assert outcome.exit_code == 3
    assert outcome.stderr.count("\n") == 1
    assert outcome.stderr.strip().isprintable()


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are always Unicode")
def test_a_path_that_is_not_utf_8_is_named(build: BuildSequences) -> None:
    Path("ratings.csv").write_text(GOOD)
    assert_fails_and_touches_nothing(
        build, ["--out", "h\udce9.parquet"], 2, ["h\\udce9.parquet", "not UTF-8. Pass another --out"]
    )
    Path("log").mkdir()
    Path("log/r\udce9.csv").write_text(GOOD)
    outcome = build("--ratings", "log")
    assert outcome.exit_code == 3
    assert "log/r\\udce9.csv': the name has bytes that are not UTF-8. Rename" in outcome.stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are always Unicode")
@pytest.mark.usefixtures("own_duckdb")
def test_a_folder_that_is_not_utf_8_is_named(build: BuildSequences, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("caf\udce9").mkdir()
    monkeypatch.chdir("caf\udce9")
    Path("ratings.csv").write_text(GOOD)
    assert_fails_and_touches_nothing(build, [], 2, ["caf\\udce9", "not UTF-8. Rename"])


def test_a_failed_run_in_a_fresh_folder_leaves_it_as_it_was(build: BuildSequences) -> None:
    Path("ratings.csv").write_text(f"{GOOD}1,3,3,x\n")
    assert build().exit_code == 3
    assert names_in_folder() == ["ratings.csv"]


def test_a_run_leaves_only_its_output_and_a_second_run_replaces_it(build: BuildSequences) -> None:
    Path("ratings.csv").write_text(GOOD)
    Path("sequences.parquet").write_text("last night's")
    assert build().histories == {1: [2]}
    assert names_in_folder() == ["ratings.csv", "sequences.parquet"]
    wanted = Path("sequences.parquet").read_bytes()
    assert build().histories == {1: [2]}
    assert Path("sequences.parquet").read_bytes() == wanted
