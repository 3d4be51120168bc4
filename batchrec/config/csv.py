"""The form of CSV files, as far as options set it."""

import codecs
from dataclasses import dataclass

from batchrec.errors import ConfigError

# DuckDB's limit, in bytes.
_LONGEST_DELIMITER = 4


@dataclass(frozen=True)
class CsvOptions:
    """The options for CSV files; the rest is detected from their first lines.

    delimiter: None to detect it. quote: a character, empty for none, None to detect it. names: of the columns, in
    order; None to take them from the header. null_words: more spellings of a missing value.
    """

    delimiter: str | None = None
    quote: str | None = None
    has_header: bool = True
    names: tuple[str, ...] | None = None
    null_words: tuple[str, ...] = ()

    @classmethod
    def parse(
        cls, delimiter: str | None, quote: str, header: str, columns: str | None, null: str | None
    ) -> "CsvOptions":
        r"""Parse the options as people write them: `\t` for a tab, `none` for no quote, commas between names and words.

        Raises ConfigError for a text that cannot be a delimiter or a quote, and for missing column names.
        """
        mark = None if delimiter is None else {"tab": "\t", "space": " "}.get(delimiter, _unescaped(delimiter))
        if mark is not None and (not 1 <= len(mark.encode()) <= _LONGEST_DELIMITER or set(mark) & set('"\r\n')):
            raise ConfigError(f"--delimiter {delimiter!r}: expected 1 to {_LONGEST_DELIMITER} bytes, like ',' or '\\t'")
        if quote not in ("auto", "none") and (len(quote.encode()) != 1 or quote == mark):
            raise ConfigError(f"--quote {quote}: expected auto, none or one character other than the delimiter")
        if header == "no" and columns is None:
            raise ConfigError("--header no: the columns have no names. Pass --columns too, like user,item,time")
        return cls(
            mark,
            None if quote == "auto" else quote.replace("none", ""),
            header == "yes",
            None if columns is None else tuple(name.strip() for name in columns.split(",")),
            () if null is None else tuple(word.strip() for word in null.split(",")),
        )


def _unescaped(text: str) -> str:
    if not text.startswith("\\"):
        return text
    try:
        return codecs.decode(text, "unicode_escape")
    except UnicodeDecodeError:
        return text
