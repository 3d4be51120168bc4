"""Find files and tables of events, rules, users and catalogues, and open them as DuckDB relations.

To add a file format, write a subclass of Format (file_format.py), and add it to FORMATS (formats.py). To add a store
with tables, write a subclass of TableSource (stores/table_source.py), and add it to TABLE_SOURCES (stores/__init__.py).
"""

from batchrec.sources.file_format import partitions_of, show_names, sql_name
from batchrec.sources.finding import find_files, list_files
from batchrec.sources.float_columns import FLOATS, lost_digits
from batchrec.sources.formats import column_names
from batchrec.sources.input_files import InputFile
from batchrec.sources.json_lines_format import NO_JSON_OBJECT
from batchrec.sources.object_store import StoredObject, fetch
from batchrec.sources.opening import (
    check_types,
    describe_error,
    malformed_records,
    open_sources,
    shown_files,
    unite,
)
from batchrec.sources.querying import is_query, open_query
from batchrec.sources.records import (
    ADVICE_ON_ESCAPED_QUOTES,
    ESCAPED_QUOTE,
    NOT_UTF_8,
    MergedRecord,
    Reject,
    check_no_record_lost,
    contains_quote,
    has_quoted_fields,
    line_numbers,
    merged_records,
    rejects_of_lines,
)
from batchrec.sources.source import Source
from batchrec.sources.store_tables import is_table_url, local_path_of, open_tables, split_tables, table_columns
from batchrec.sources.stores import Since
from batchrec.sources.usual_columns import guess_column

__all__ = [
    "ADVICE_ON_ESCAPED_QUOTES",
    "ESCAPED_QUOTE",
    "FLOATS",
    "NOT_UTF_8",
    "NO_JSON_OBJECT",
    "InputFile",
    "MergedRecord",
    "Reject",
    "Since",
    "Source",
    "StoredObject",
    "check_no_record_lost",
    "check_types",
    "column_names",
    "contains_quote",
    "describe_error",
    "fetch",
    "find_files",
    "guess_column",
    "has_quoted_fields",
    "is_query",
    "is_table_url",
    "line_numbers",
    "list_files",
    "local_path_of",
    "lost_digits",
    "malformed_records",
    "merged_records",
    "open_query",
    "open_sources",
    "open_tables",
    "partitions_of",
    "rejects_of_lines",
    "show_names",
    "shown_files",
    "split_tables",
    "sql_name",
    "table_columns",
    "unite",
]
