"""Rules fail closed: a rule table without any effect is an error, a table with little effect a warning.

If no id of a table is known, its ids are most probably written in another way than those of the log.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.arrays import Bools
from batchrec.errors import InputError
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules.rule_tables import RuleTable
from batchrec.rules.segments import Segments
from batchrec.sources.catalogue import Catalogue
from batchrec.tables.ids import BLANKS, as_ids, without_blanks
from batchrec.tables.queries import connect, literal, select
from batchrec.tables.schemas import PAD

_log = logging.getLogger(__name__)

# Minimum share of known ids: below it there is a warning.
_MIN_SHARE = 0.5
_ACCEPT = "or pass --allow-empty-rules to accept the table"


@dataclass(frozen=True)
class TableIds:
    """The ids of a column of a rule table, each once.

    texts: as the table has them. ids: in the type of the log's ids, null if an id cannot be of that type.
    is_known: (ids,) bool. alike: an id of the log that differs from the id only as `_stems` says, or null.
    """

    texts: pa.Array
    ids: pa.Array
    is_known: Bools
    alike: pa.Array

    @property
    def is_misspelled(self) -> Bools:
        """(ids,) bool: unknown ids that cannot be of the log's type, or that are like an id that the table lacks."""
        is_like_another = pc.and_(self.alike.is_valid(), pc.invert(pc.is_in(self.alike, value_set=self.texts)))
        is_odd: Bools = pc.or_(self.ids.is_null(), is_like_another).to_numpy(zero_copy_only=False)
        return ~self.is_known & is_odd

    @property
    def is_doubtful(self) -> bool:
        """Whether less than half of the ids are known, or one of the others is misspelled."""
        return bool(self.is_known.sum() < _MIN_SHARE * len(self.ids) or self.is_misspelled.any())

    @property
    def first_unknown(self) -> int:
        """The place of an unknown id, of a misspelled one or one with an id alike if there is any."""
        is_alike = ~self.is_known & self.alike.is_valid().to_numpy(zero_copy_only=False)
        of_kind = (self.is_misspelled, is_alike, ~self.is_known)
        return int(next((places for places in of_kind if places.any()), of_kind[-1]).argmax())


@dataclass(frozen=True)
class KnownIds:
    """The ids that rule tables are checked against.

    vocabulary: the model's items. sequences: the histories, None without any. listed: users who are scored with or
    without a history, None without any. accepts_empty: whether a table without effect is not an error.
    """

    vocabulary: Vocabulary
    user_type: pa.DataType
    sequences: Path | None = None
    listed: pa.Array | None = None
    accepts_empty: bool = False

    @property
    def item_type(self) -> pa.DataType:
        """The type of the model's item ids: int64 or string."""
        return self.vocabulary.item_ids.type

    def check_rows(self, option: str, table: RuleTable, expected: str) -> None:
        """Raise InputError for a table without rows."""
        if len(table.rows) == 0:
            self._refuse(f"{table.file}: holds no rows; expected {expected} for {option}")

    def check_items(self, option: str, table: RuleTable) -> None:
        """Raise InputError if the model and the histories know none of a table's items."""
        table_ids = self._items(table)
        n_model = int((self.vocabulary.indexes(table_ids.ids.drop_null()) != PAD).sum())
        more = (
            f", the histories {table_ids.is_known.sum() - n_model} more" if table_ids.is_known.sum() > n_model else ""
        )
        message = f"the model knows {n_model} of {len(table_ids.ids)} items{more}"
        self._judge(table.file, option, message, table_ids, lambda: self._unnamed_item(table_ids))

    def check_pins(self, table: RuleTable, read_catalogue: Callable[[], Catalogue | None]) -> None:
        """Raise InputError if no pin is in the model, the histories or the catalogue, or if a pin is misspelled.

        A new item may be pinned on its first day, so an unknown item only gets a warning. If it differs from a known id
        only in leading zeros or case, every list would hold an item that does not exist.
        """
        table_ids = self._items(table, is_whole=True)
        if table_ids.is_known.all():
            return
        listed, catalogue = np.zeros(len(table_ids.ids), bool), read_catalogue()
        if catalogue is not None:
            listed = _is_in(table_ids.ids.cast(pa.string()), catalogue.item_ids)
        is_alike = table_ids.alike.is_valid().to_numpy(zero_copy_only=False)
        misspelled = ~table_ids.is_known & ~listed & is_alike
        if misspelled.any():
            place = int(misspelled.argmax())
            self._refuse(
                f"{table.file}: --pins item_id {table_ids.texts[place].as_py()!r} is not known, but the histories have "
                f"{table_ids.alike[place].as_py()!r}. Write it as the histories do, {_ACCEPT}"
            )
        table_ids = replace(table_ids, is_known=table_ids.is_known | listed)
        n_known = int(table_ids.is_known.sum())
        if len(table_ids.ids) and n_known == 0:
            expected = "an item of the model, the histories or the catalogue --items"
            self._refuse(
                f"{table.file}: none of the {len(table_ids.ids)} items of --pins is known, such as "
                f"{table_ids.texts[0].as_py()!r}; expected {expected}, {_ACCEPT}"
            )
        elif n_known < len(table_ids.ids):
            _log.warning(
                "--pins: %d of %d items are in no history, model or catalogue, such as %r; they are pinned anyway",
                len(table_ids.ids) - n_known,
                len(table_ids.ids),
                table_ids.texts[table_ids.first_unknown].as_py(),
            )

    def check_users(self, option: str, table: RuleTable) -> None:
        """Raise InputError if none of a table's users is in the histories or listed."""
        texts = pc.unique(table.required("user_id"))
        table_ids = self._users(texts, as_ids(texts, self.user_type))
        message = f"{table_ids.is_known.sum()} of {len(table_ids.ids)} users are in the histories"
        self._judge(table.file, option, message, table_ids, lambda: self._unnamed_user(table_ids))

    def warn_of_listed(self, option: str) -> None:
        """Warn if less than half of the listed users have a history, or if one is almost a user who has one."""
        if self.listed is None:
            return
        table_ids = replace(self, listed=None)._users(self.listed.cast(pa.string()), self.listed)
        if table_ids.is_doubtful:
            message = f"{table_ids.is_known.sum()} of {len(table_ids.ids)} users are in the histories"
            _log.warning("%s: %s%s", option, message, _examples(table_ids, lambda: self._unnamed_user(table_ids)))

    def check_segments(self, option: str, table: RuleTable, names: pa.Array, segments: Segments) -> None:
        """Raise InputError if no row of a table is for any user: none of its segments is in --segments."""
        texts = pc.unique(names.drop_null())
        alike = segments.names.take(pc.index_in(_stems(texts), value_set=_stems(segments.names)))
        table_ids = TableIds(texts, texts, _is_in(texts, segments.names), alike)
        others = segments.names.filter(pc.invert(pc.is_in(segments.names, value_set=texts)))
        message = f"{table_ids.is_known.sum()} of {len(texts)} segments are in --segments"
        self._judge(table.file, option, message, table_ids, lambda: others[0].as_py() if len(others) else None)

    def check_categories(self, items: str, categories: pa.Array) -> None:
        """Raise InputError if no item of the model has a category; categories: of each item, null without one."""
        n_items, n_known = len(categories), len(categories) - categories.null_count
        if n_items and n_known == 0:
            example = self.vocabulary.item_ids[0].as_py()
            self._refuse(
                f"{items}: names a category for none of the {n_items} items of the model, such as {example!r}; "
                f"expected --item-column and --category-column to fit them, {_ACCEPT}"
            )
        elif n_known < _MIN_SHARE * n_items:
            place = pc.index(categories.is_null(), True).as_py()
            example = self.vocabulary.item_ids[place].as_py()
            _log.warning("--category-column: %d of %d items of the model have one; not %r", n_known, n_items, example)

    def _items(self, table: RuleTable, is_whole: bool = False) -> TableIds:
        """Look up a table's items in the model and, if it knows less than half or with is_whole, in the histories."""
        texts = pc.unique(table.required("item_id"))
        ids = as_ids(texts, self.vocabulary.item_ids.type)
        is_known = ids.is_valid().to_numpy(zero_copy_only=False).copy()
        is_known[is_known] = self.vocabulary.indexes(ids.drop_null()) != PAD
        table_ids = TableIds(texts, ids, is_known, pa.nulls(len(ids), pa.string()))
        if is_known.all():
            return table_ids
        if is_whole or is_known.mean() < _MIN_SHARE:
            return self._in_histories("rules/known_items", table_ids)
        if not pa.types.is_string(ids.type):
            return table_ids
        # An item of the model is enough to show how ids are spelled, and needs no scan of the histories.
        items = self.vocabulary.item_ids
        alike = pc.index_in(_stems(without_blanks(texts)), value_set=_stems(without_blanks(items)))
        return replace(table_ids, alike=items.take(alike))

    def _users(self, texts: pa.Array, ids: pa.Array) -> TableIds:
        is_known = np.zeros(len(ids), bool)
        if self.listed is not None:
            is_known = _is_in(ids, self.listed)
        return self._in_histories("rules/known_users", TableIds(texts, ids, is_known, pa.nulls(len(ids), pa.string())))

    def _in_histories(self, query: str, table_ids: TableIds) -> TableIds:
        """Look up ids in the histories: one scan of the file, with only the ids in memory."""
        if self.sequences is None or len(table_ids.ids) == 0:
            return table_ids
        try:
            with connect() as con:
                con.register("ids", _as_table(table_ids))
                places, is_known, alike = (
                    select(con, query, path=literal(self.sequences), blanks=BLANKS).to_arrow_table().columns
                )
        except duckdb.Error as error:
            raise InputError(f"{self.sequences}: {error}") from error
        known = table_ids.is_known.copy()
        known[places.to_numpy()[is_known.to_numpy(zero_copy_only=False)]] = True
        order = pc.index_in(pa.array(np.arange(len(known))), value_set=places.combine_chunks())
        return replace(table_ids, is_known=known, alike=alike.combine_chunks().take(order))

    def _judge(
        self, file: str, option: str, message: str, table_ids: TableIds, other: Callable[[], str | None]
    ) -> None:
        n_known = int(table_ids.is_known.sum())
        if len(table_ids.ids) == 0 or n_known == len(table_ids.ids):
            return
        if n_known == 0:
            self._refuse(
                f"{file}: {option}: {message}{_examples(table_ids, other)}. Write them as the log does, {_ACCEPT}"
            )
        elif table_ids.is_doubtful:
            _log.warning("%s: %s%s", option, message, _examples(table_ids, other))
        else:
            _log.info("%s: %s", option, message)

    def _unnamed_item(self, table_ids: TableIds) -> str | None:
        ids = self.vocabulary.item_ids
        named = pc.is_in(ids, value_set=table_ids.ids.drop_null())
        place = pc.index(named, False).as_py()
        return None if place < 0 else str(ids[place].as_py())

    def _unnamed_user(self, table_ids: TableIds) -> str | None:
        if self.sequences is None:
            return None
        with connect() as con:
            con.register("ids", _as_table(table_ids))
            unnamed: str | None = select(
                con, "rules/unnamed_user", path=literal(self.sequences), blanks=BLANKS
            ).fetchall()[0][0]
        return unnamed

    def _refuse(self, message: str) -> None:
        if not self.accepts_empty:
            raise InputError(message)
        _log.warning("%s", message)


def _examples(table_ids: TableIds, other: Callable[[], str | None]) -> str:
    """Return an unknown id of the table, and a known id like it or, without one, any id that the table lacks."""
    place = table_ids.first_unknown
    alike = table_ids.alike[place].as_py() or other()
    known = "" if alike is None else f"; known ones look like {alike!r}"
    return f"; unknown: {table_ids.texts[place].as_py()!r}{known}"


def _is_in(values: pa.Array, known: pa.Array) -> Bools:
    is_in: Bools = pc.is_in(values, value_set=known).to_numpy(zero_copy_only=False)
    return is_in


def _as_table(table_ids: TableIds) -> pa.Table:
    """Return the ids for DuckDB: place, id and the text that ids alike share, made as in known_users.sql."""
    spelled = without_blanks(table_ids.ids.cast(pa.string())).fill_null(without_blanks(table_ids.texts))
    return pa.table({"place": pa.array(np.arange(len(spelled))), "id": spelled, "alike": _stems(spelled)})


def _stems(texts: pa.Array) -> pa.Array:
    """Return what ids have in common that differ only in case, leading zeros, .0 or what nobody sees.

    Nobody sees characters without width, and whether an accent is a character of its own.
    """
    visible = pc.replace_substring_regex(pc.utf8_normalize(pc.utf8_lower(texts), form="NFC"), r"\.0+$|\p{Cf}", "")
    return pc.utf8_ltrim(visible, "0")
