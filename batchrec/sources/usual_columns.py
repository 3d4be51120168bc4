"""The names that columns of logs usually have: to guess a column, and to suggest one in place of a wrong name."""

from collections.abc import Sequence

from batchrec.errors import letters_of, nearest
from batchrec.sources.file_format import show_names

# The option that names a column -> its usual names, most telling first, in the letters and digits of any spelling.
_USUAL = {
    "--user-column": (
        "user userid uid customer customerid client clientid member memberid visitor visitorid player playerid "
        "playeruuid reviewer reviewerid account accountid shopper listener viewer session sessionid"
    ),
    "--item-column": (
        "item itemid movie movieid product productid article articleid sku stockcode asin parentasin track trackid "
        "song songid artist artistid book bookid game gameid video videoid content contentid business businessid"
    ),
    "--timestamp-column": (
        "timestamp time datetime eventtime eventtimestamp unixreviewtime unixtime ts date eventdate tdat invoicedate "
        "orderdate playedat createdat occurredat purchasedat viewedat at day"
    ),
    "--rating-column": "rating stars score overall",
}


def guess_column(option: str, columns: Sequence[str]) -> str | None:
    """Return the column that an option most likely means, by the usual names; None if no column has one."""
    letters = {letters_of(name): name for name in reversed(columns)}
    return next((letters[name] for name in _USUAL.get(option, "").split() if name in letters), None)


def found_columns(columns: Sequence[str], wanted: str, option: str) -> str:
    """Return the end of an error on a missing column: the columns that were found, and the one that may be meant.

    option: the one that names the wanted column.
    """
    meant = nearest(wanted, columns) or guess_column(option, columns)
    return f"found {show_names(columns)}" + ("." if meant is None else f"; did you mean {meant!r}?")
