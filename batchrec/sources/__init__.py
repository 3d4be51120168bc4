"""Files of events, rules, users and catalogues: found, recognised, and opened as relations with every value bound."""

from batchrec.sources.finding import find_files, unread_files
from batchrec.sources.layouts import column_names, partitions_of, show_names
from batchrec.sources.opening import (
    Source,
    check_types,
    describe,
    malformed_records,
    open_sources,
    shown_files,
    unite,
)
from batchrec.sources.querying import is_query, open_query
from batchrec.sources.records import (
    Reject,
    Swallowing,
    check_none_lost,
    has_quoted,
    holds,
    line_numbers,
    swallowing_records,
)

__all__ = [
    "Reject",
    "Source",
    "Swallowing",
    "check_none_lost",
    "check_types",
    "column_names",
    "describe",
    "find_files",
    "has_quoted",
    "holds",
    "is_query",
    "line_numbers",
    "malformed_records",
    "open_query",
    "open_sources",
    "partitions_of",
    "show_names",
    "shown_files",
    "swallowing_records",
    "unite",
    "unread_files",
]
