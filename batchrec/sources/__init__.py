"""Find files of events, rules, users and catalogues, recognise their format, and open them as DuckDB relations."""

from batchrec.sources.finding import find_files, list_files
from batchrec.sources.formats import column_names
from batchrec.sources.input_files import InputFile
from batchrec.sources.layouts import partitions_of, show_names
from batchrec.sources.object_store import StoredObject, fetch
from batchrec.sources.opening import (
    Source,
    check_types,
    describe_error,
    malformed_records,
    open_sources,
    shown_files,
    unite,
)
from batchrec.sources.querying import is_query, open_query
from batchrec.sources.records import (
    MergedRecord,
    Reject,
    check_no_record_lost,
    contains_quote,
    has_quoted_fields,
    line_numbers,
    merged_records,
)

__all__ = [
    "InputFile",
    "MergedRecord",
    "Reject",
    "Source",
    "StoredObject",
    "check_no_record_lost",
    "check_types",
    "column_names",
    "contains_quote",
    "describe_error",
    "fetch",
    "find_files",
    "has_quoted_fields",
    "is_query",
    "line_numbers",
    "list_files",
    "malformed_records",
    "merged_records",
    "open_query",
    "open_sources",
    "partitions_of",
    "show_names",
    "shown_files",
    "unite",
]
