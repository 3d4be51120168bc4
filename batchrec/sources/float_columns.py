"""Columns of floats: from which number on they cannot distinguish whole numbers, so that several ids become one."""

import duckdb

from batchrec.sources.opening import shown_files
from batchrec.sources.source import Source
from batchrec.tables.queries import select

# Below this whole number a float distinguishes all whole numbers, and the next one becomes this one. DuckDB reads
# Arrow's halffloat as a float.
FLOATS = {"halffloat": 2**11, "float": 2**24, "double": 2**53}


def lost_digits(con: duckdb.DuckDBPyConnection, source: Source, column: str, values: str, place: str) -> str | None:
    """Return the text of an error if a column has whole numbers that its type cannot distinguish from others.

    values: what they are, as in "ids". place: the query, if the source is one.
    """
    type_, arrow_type = source.type_of(column), source.arrow_type_of(column)
    # DuckDB reads decimals of more than 38 digits as doubles.
    limit = FLOATS.get(arrow_type) or FLOATS.get(type_)
    # Times as doubles are exact to a microsecond.
    if limit is None or (values == "times" and limit == FLOATS["double"]):
        return None
    greatest = select(con, "sources/greatest_number", source=source.view, number=source.names[column]).fetchall()[0][0]
    if greatest is None or greatest < limit:
        return None
    form = arrow_type if arrow_type.startswith("decimal") else "floats"
    return (
        f"{shown_files(source.places) or place}: column {column!r} has {values} as {form}, up to {greatest:.0f}: from "
        f"{limit} on they have lost digits. Write them as integers or text"
    )
