"""JSON lines: an object per line, read as the same text in a CSV would be."""

import gzip
import json
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batchrec.errors import InputError
from batchrec.sources.text_tables import read_text_table
from tests.conftest import BuildSequences
from tests.support.log_files import HEADER, T, fails, write

pytestmark = pytest.mark.usefixtures("detected_unit")


def event(user: Any, item: Any, time: Any, **more: Any) -> str:
    return json.dumps({"userId": user, "movieId": item, "timestamp": time} | more) + "\n"


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json"])
def test_json_lines_are_read_with_any_suffix_and_compression(build: BuildSequences, suffix: str) -> None:
    write(f"log/a{suffix}", event(1, 2, T))
    write(f"log/b{suffix}.gz", gzip.compress(event(1, 3, T + 1).encode()))
    write(f"log/c{suffix}.zst", pa.compress(event(1, 4, T + 2).encode(), "zstd", asbytes=True))
    assert build("--ratings", "log").histories == {1: [2, 3, 4]}


def test_json_lines_are_recognised_by_their_bytes(build: BuildSequences) -> None:
    write("a.csv", b"\xef\xbb\xbf" + event(1, 2, T).encode())
    write("b.log", gzip.compress(event(1, 3, T + 1).encode()))
    # A GUID in braces begins a CSV file without a header.
    write("c.csv", "{3F25},7,1700000000\n")
    assert build("--ratings", "a.csv", "--ratings", "b.log").histories == {1: [2, 3]}
    outcome = build("--ratings", "c.csv", "--header", "no", "--columns", "userId,movieId,timestamp")
    assert outcome.histories == {"{3F25}": [7]}


def test_ids_of_64_bits_are_exact_and_values_are_text_as_in_a_csv(build: BuildSequences) -> None:
    ids = [2**63 - 1, -(2**63), 2**53 + 1, 0]
    write("a.jsonl", "".join(event(user, item, "2024-01-01T00:00:00Z") for user in ids for item in ids))
    outcome = build("--ratings", "a.jsonl")
    assert {user: sorted(items) for user, items in outcome.histories.items()} == {user: sorted(ids) for user in ids}
    write("b.jsonl", event("A1", 1.0, T) + event("A1", "2", str(T + 1)) + event("A1", 3, T + 2.5) + event(None, 3, T))
    outcome = build("--ratings", "b.jsonl", "--max-bad-rows", "1")
    assert (outcome.histories, outcome.report["rejected"]) == ({"A1": [1, 2, 3]}, {"no user": 1})
    write("c.jsonl", '{"userId": 1e+18, "movieId": 2, "timestamp": 1700000000}\n')
    fails(build("--ratings", "c.jsonl"), "c.jsonl: line 1: user id has lost digits")


def test_a_missing_key_and_null_and_an_empty_text_are_missing_values(build: BuildSequences) -> None:
    rows = [{"movieId": 2, "timestamp": T}, {"userId": None, "movieId": 2, "timestamp": T}]
    rows += [{"userId": "", "movieId": 2, "timestamp": T}, {"userId": 1, "movieId": 2, "timestamp": T, "x": [1, {}]}]
    write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    outcome = build("--ratings", "a.jsonl", "--max-bad-rows", "3")
    assert (outcome.histories, outcome.report["rejected"]) == ({1: [2]}, {"no user": 3})
    lines = [line.split(",")[:3] for line in Path("sequences.rejects.csv").read_text(encoding="utf-8").splitlines()]
    assert lines[1:] == [["a.jsonl", str(line), "no user"] for line in (1, 2, 3)]


def test_a_key_that_begins_late_in_a_file_is_found(build: BuildSequences) -> None:
    unrated = "".join(event(1, item, T + item) for item in range(2000))
    write("a.jsonl", unrated + event(1, 3000, T + 3000, rating=5))
    outcome = build("--ratings", "a.jsonl", "--min-rating", "4", "--max-bad-rows", "2000", "--seen", "kept")
    assert (outcome.histories, outcome.report["rejected"]) == ({1: [3000]}, {"no rating": 2000})


def test_lines_that_are_no_object_are_bad_rows_with_their_lines(build: BuildSequences) -> None:
    bad = ["{bad", "[1, 2]", "7", '"text"', '{"userId": 1, "movieId": 2', "{bad"]
    text = event(1, 2, T) + bad[0] + "\r\n\r\n  \n" + "\n".join(bad[1:5]) + "\n" + event(1, 3, T + 1) + bad[5] + "\n"
    write("a.jsonl", text.encode() + b'{"userId": "\xff", "movieId": 1, "timestamp": 1700000000}\n')
    outcome = build("--ratings", "a.jsonl", "--max-bad-rows", "7")
    assert outcome.histories == {1: [2, 3]}, outcome.stderr
    assert outcome.report["rejected"] == {"malformed (no JSON object)": 6, "malformed (invalid encoding)": 1}
    assert outcome.report["rows_read"] == 9
    rejects = Path("sequences.rejects.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert sorted(int(line.split(",")[1]) for line in rejects) == [2, 5, 6, 7, 8, 10, 11]
    fails(build("--ratings", "a.jsonl", "--max-bad-rows", "6"), "a.jsonl: line 2: malformed", "{bad", "7 of 9 rows")


@pytest.mark.parametrize(
    ("value", "type_", "expression"), [([1], "list", "unnest(movieId)"), ({"a": 1}, "struct", "movieId.field")]
)
def test_nested_values_of_a_wanted_key_are_refused(
    build: BuildSequences, value: Any, type_: str, expression: str
) -> None:
    write("a.jsonl", event(1, 2, T, other=[1]) + event(1, value, T))
    fails(build("--ratings", "a.jsonl"), "a.jsonl: column 'movieId' of --item-column", f"type {type_}", expression)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("\n  \n", "the file is empty"),
        (
            json.dumps([{"userId": 1}, {"userId": 2}]),
            "a list of objects; expected one object per line. Convert it with jq",
        ),
        # As DuckDB, SQLite and Postgres write lists.
        ('[\n{"userId":1},\n{"userId":2}\n]\n', "has a list of objects"),
        (json.dumps({"userId": 1}, indent=2), "Convert it with jq -c ., or pass --query"),
        (
            json.dumps({"after": {"userId": 1}}),
            "For a field of an object, like object.field, pass --query with read_json(",
        ),
        (json.dumps({"userId": 1, "film": 2, "timestamp": T}), "no column 'movieId'; found userId, film, timestamp"),
        (HEADER, "has no line that is a JSON object"),
        # As ClickHouse writes JSONCompactEachRow, and as JSON text sequences begin each object.
        (
            f'[1, "a", {T}]\n[2, "b", {T}]\n',
            """jq -c '{"userId": .[0], "movieId": .[1], "timestamp": .[2]}', with the place of each value from 0""",
        ),
        ('{"userId": 1},\n{"userId": 2},\n', "Remove the commas between the lines, as with sed 's/,$//'"),
        ("\x1e" + json.dumps({"userId": 1}) + "\n", r"Remove the separators, as with tr -d '\036'"),
    ],
)
def test_json_without_objects_or_without_a_key_is_refused(build: BuildSequences, text: str, words: str) -> None:
    write("a.json", text)
    fails(build("--ratings", "a.json"), "a.json: ", words)


def test_the_reader_that_the_error_about_a_list_suggests_reads_it(build: BuildSequences) -> None:
    write(
        "a.json", json.dumps([{"after": {"u": 1, "i": 2}, "t": T}, {"after": {"u": 1, "i": 3}, "t": T + 1}], indent=1)
    )
    write("query.sql", "select after.u as user_id, after.i as item_id, t as timestamp from read_json('a.json')")
    assert build("--query", "query.sql").histories == {1: [2, 3]}


def test_objects_whose_backslashes_are_doubled_are_named(build: BuildSequences) -> None:
    # As COPY of Postgres writes a column of JSON.
    row = r'{"userId": 1, "title": "say \\"a\\""}'
    write("a.jsonl", f'{{"userId": 1, "movieId": 2, "timestamp": {T}}}\n{row}\n')
    fails(build("--ratings", "a.jsonl"), "line 2", "without doubled backslashes")


def test_files_with_other_keys_and_partitions_are_read_together(build: BuildSequences) -> None:
    for number in range(5):
        row = {f"k{number}": number, "movieId": number, "userId": 1, "ti/me~": T + number}
        write(f"log/{number}.jsonl", json.dumps(row) + "\n")
    assert build("--ratings", "log", "--timestamp-column", "ti/me~").histories == {1: [0, 1, 2, 3, 4]}
    write("days/dt=2024-01-01/a.jsonl", json.dumps({"userId": 1, "movieId": 2}) + "\n")
    outcome = build("--ratings", "days", "--timestamp-column", "dt")
    assert (outcome.histories, outcome.times) == ({1: [2]}, [1704067200])


def test_any_values_are_read_as_python_reads_them(build: BuildSequences) -> None:
    values = [2**63 - 1, -5, 0, 17, "ü", 'a"b', "a\\b", "\U0001f600", "x/y", "true", "1.5", " a"]
    rows = [(user, item, T + number) for number, (user, item) in enumerate(product(values, values))]
    write("a.jsonl", "".join(event(*row) for row in rows))
    expected: defaultdict[str, list[str]] = defaultdict(list)
    for user, item, _ in rows:
        expected[str(user)].append(str(item))
    outcome = build("--ratings", "a.jsonl", "--user-id-type", "text", "--item-id-type", "text")
    assert outcome.histories == expected


def test_rule_tables_are_read_from_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"ITEM_ID": 7, "extra": [1]}\n{"ITEM_ID": "A", "segment": true}\n', encoding="utf-8")
    table = read_text_table(str(file), "--allow", {"item_id": "--allow"}, ("segment", "valid_from"))
    assert table.rows.to_pylist() == [
        {"item_id": "7", "segment": None, "valid_from": None},
        {"item_id": "A", "segment": "true", "valid_from": None},
    ]
    assert table.names == ("ITEM_ID", "extra", "segment")
    file.write_text('{"item_id": 7}\n{"item_id" 8}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"x\.jsonl: line 2: malformed"):
        read_text_table(str(file), "--allow", {"item_id": "--allow"})
