"""JSON lines: one object per line, whose keys are the columns. Values are read as the text that spells them."""

import json
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import duckdb

from batchrec.config import CsvOptions
from batchrec.errors import InputError
from batchrec.sources.compressed import DAMAGE_ERRORS, compression_of, open_bytes, open_text
from batchrec.sources.file_format import Format, Layout, RowError, partitions_of, value_of_nested
from batchrec.sources.input_files import InputFile
from batchrec.tables.queries import in_file_order, literal, select

# A GUID in braces can begin a CSV file; a quote after the brace cannot.
_START = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*["}]')
_LIST = re.compile(r"\s*\[\s*(\{|$)")
# Lines whose keys are the columns if all columns are asked for.
_HEAD = 1000
NO_JSON_OBJECT = "malformed (no JSON object)"
_TYPES = {"ARRAY": "list", "OBJECT": "struct"}


class JsonLinesFormat(Format):
    """JSON lines, recognised by the first bytes or the suffix."""

    name = "json lines"
    suffixes = tuple(f"{kind}{end}" for kind in (".jsonl", ".ndjson", ".json") for end in ("", ".gz", ".zst"))
    values_are_text = True

    def recognises(self, file: InputFile, start: bytes) -> bool:
        """Return whether a file begins as an object, or is named like JSON."""
        try:
            with open_bytes(file) as opened:
                is_object = _START.match(opened.read(64)) is not None
        except (*DAMAGE_ERRORS, OSError):
            is_object = False
        return is_object or str(file).lower().endswith(self.suffixes)

    def layout(self, file: InputFile, wanted: dict[str, str], options: CsvOptions) -> Layout:
        """Return the wanted keys; all keys if no key is wanted or one of them is missing."""
        in_file = set(wanted) - {key for key, _ in partitions_of(str(file))}
        keys: dict[str, None] = {}
        n_lines, first = 0, ""
        try:
            with open_text(file) as text:
                for line in text:
                    if not line.strip():
                        continue
                    n_lines += 1
                    first = first or line.strip(" \t\r\n")
                    keys |= dict.fromkeys(_object(line) or {})
                    if keys and in_file <= keys.keys() and (wanted or n_lines >= _HEAD):
                        break
        except (*DAMAGE_ERRORS, OSError) as error:
            raise InputError(f"{file}: cannot be read: {error}") from error
        if not n_lines:
            raise InputError(f"{file}: the file is empty; expected a JSON object per line")
        is_list = _LIST.match(first) is not None
        if not keys or is_list:
            found = "a list of objects" if is_list else "no line that is a JSON object"
            raise InputError(f"{file}: has {found}; expected one object per line. {_conversion(file, first, wanted)}")
        columns = sorted(keys.keys() & wanted.keys()) if wanted and in_file <= keys.keys() else keys
        return Layout(tuple(columns), compression=compression_of(file), format_name=self.name)

    def read(
        self, con: duckdb.DuckDBPyConnection, files: Sequence[InputFile], layout: Layout
    ) -> duckdb.DuckDBPyRelation:
        """Return every value as text."""
        return select(
            con,
            "sources/read_json_lines",
            columns={"line": "VARCHAR"},
            paths=[literal(file.path) for file in files],
            structure=json.dumps(dict.fromkeys(layout.columns, "VARCHAR")),
            compression=layout.compression,
        )

    def row_errors(
        self, con: duckdb.DuckDBPyConnection, files: Sequence[InputFile], layout: Layout, wanted: dict[str, str]
    ) -> list[RowError]:
        """Return the lines that are not objects. Raises InputError if a value is a list or an object."""
        pointers = ["/" + name.replace("~", "~0").replace("/", "~1") for name in layout.columns]
        with in_file_order(con):
            rows = select(
                con,
                "sources/json_lines_errors",
                columns={"line": "VARCHAR"},
                paths=[literal(file.path) for file in files],
                pointers=pointers,
                compression=layout.compression,
            ).fetchall()
        by_path = {str(file.path): file for file in files}
        lines: defaultdict[InputFile, list[str]] = defaultdict(list)
        for path, line, types in rows:
            if types is None:
                lines[by_path[path]].append(line)
                continue
            column, type_ = next(pair for pair in zip(layout.columns, types, strict=True) if pair[1] in _TYPES)
            raise InputError(
                f"{by_path[path]}: column {column!r} of {wanted.get(column, 'the table')} has values of type "
                f"{_TYPES[type_]}; expected one value per row. Pass a query with "
                f"{value_of_nested(column, _TYPES[type_])}"
            )
        return [error for file, texts in lines.items() for error in _located(file, texts)]


def json_records(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Yield the line of each object, from 1, and the texts of its values, as DuckDB writes them; empty if missing."""
    for number, line in enumerate(lines, start=1):
        record = _object(line)
        if record is not None:
            yield number, [_text(record.get(column)) for column in layout.columns]


def _conversion(file: InputFile, first: str, wanted: Iterable[str]) -> str:
    """Return how to make an object per line of a file, given its first line that is not empty."""
    if first.startswith("\x1e"):
        return r"Remove the separators, as with tr -d '\036'"
    if first.startswith("[") and first.endswith("]") and not _LIST.match(first):
        places = ", ".join(f"{json.dumps(key)}: .[{place}]" for place, key in enumerate(wanted))
        return f"Convert its lists with jq -c '{{{places}}}', with the place of each value from 0"
    if _object(first.removesuffix(",")) is not None:
        return "Remove the commas between the lines, as with sed 's/,$//'"
    convert = "jq -c '.[]'" if _LIST.match(first) else "jq -c ."
    return f"Convert it with {convert}, or pass --query with a SELECT from read_json('{file}')"


def _object(line: str) -> dict[str, Any] | None:
    """Return the object of a line, its numbers as text; None if the line is not an object."""
    try:
        value = json.loads(line, parse_int=str, parse_float=lambda text: repr(float(text)))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _located(file: InputFile, texts: Sequence[str]) -> Iterator[RowError]:
    """Yield lines of a file, given by their texts in file order, with their numbers."""
    waiting = deque(texts)
    with open_text(file) as text:
        for number, line in enumerate(text, start=1):
            if waiting and line.rstrip("\r\n") == waiting[0]:
                yield RowError(file, number, NO_JSON_OBJECT, waiting.popleft())
    yield from (RowError(file, None, NO_JSON_OBJECT, line) for line in waiting)
