"""Rules fail closed: a rule table that cannot have any effect is an error, one that hardly has any a warning.

A list of ids of which nothing is known is far more often spelled in another way than meant.
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

# Below this share of known ids a table is suspicious.
_LEAST_SHARE = 0.5
_MEANT = "or pass --allow-empty-rules if that is meant"


@dataclass(frozen=True)
class Ids:
    """Ids of a column of a rule table, each once. texts: as the table spells them; ids: as the log would, or null.

    is_known: (ids,) bool. alike: an id of the log for each that differs from one in case, zeros or .0 alone, or null.
    """

    texts: pa.Array
    ids: pa.Array
    is_known: Bools
    alike: pa.Array

    @property
    def first_unknown(self) -> int:
        """Return the place of an unknown id, one with an id alike if there is any."""
        is_alike = ~self.is_known & self.alike.is_valid().to_numpy(zero_copy_only=False)
        return int((is_alike if is_alike.any() else ~self.is_known).argmax())


@dataclass(frozen=True)
class KnownIds:
    """What ids of rule tables are held against.

    vocabulary: the model's items. sequences: the histories; None if there are none. listed: users that are scored
    though they may have no history; None if there are none. accepts_empty: whether a table without effect is none.
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
        found = self._items(table)
        n_model = int((self.vocabulary.indexes(found.ids.drop_null()) != PAD).sum())
        more = f", the histories {found.is_known.sum() - n_model} more" if found.is_known.sum() > n_model else ""
        said = f"the model knows {n_model} of {len(found.ids)} items{more}"
        self._judge(table.file, option, said, found, lambda: self._unnamed_item(found))

    def check_pins(self, table: RuleTable, read_catalogue: Callable[[], Catalogue | None]) -> None:
        """Raise InputError if no pin is in the model, the histories or the catalogue, or one is nearly an id of theirs.

        A new item may be pinned on its first day, so one that nobody knows gets a warning. One that differs from a
        known id in zeros or case alone would put an item into every list that does not exist.
        """
        found = self._items(table, is_whole=True)
        if found.is_known.all():
            return
        listed, catalogue = np.zeros(len(found.ids), bool), read_catalogue()
        if catalogue is not None:
            listed = _is_in(found.ids.cast(pa.string()), catalogue.item_ids)
        is_alike = found.alike.is_valid().to_numpy(zero_copy_only=False)
        misspelled = ~found.is_known & ~listed & is_alike
        if misspelled.any():
            place = int(misspelled.argmax())
            self._refuse(
                f"{table.file}: --pins item_id {found.texts[place].as_py()!r} is not known, but the histories have "
                f"{found.alike[place].as_py()!r}. Spell it alike, {_MEANT}"
            )
        found = Ids(found.texts, found.ids, found.is_known | listed, found.alike)
        n_known = int(found.is_known.sum())
        if len(found.ids) and n_known == 0:
            expected = "an item of the model, the histories or the catalogue --items"
            self._refuse(
                f"{table.file}: none of the {len(found.ids)} items of --pins is known, such as "
                f"{found.texts[0].as_py()!r}; expected {expected}, {_MEANT}"
            )
        elif n_known < len(found.ids):
            _log.warning(
                "--pins: %d of %d items are in no history, model or catalogue, such as %r, and are pinned all the same",
                len(found.ids) - n_known,
                len(found.ids),
                found.texts[found.first_unknown].as_py(),
            )

    def check_users(self, option: str, table: RuleTable) -> None:
        """Raise InputError if none of a table's users is scored."""
        texts = pc.unique(table.required("user_id"))
        found = self._users(texts, as_ids(texts, self.user_type))
        said = f"{found.is_known.sum()} of {len(found.ids)} users are in the histories"
        self._judge(table.file, option, said, found, lambda: self._unnamed_user(found))

    def warn_of_listed(self, option: str) -> None:
        """Warn if less than half of the listed users have a history: new users may be scored, but are seldom most."""
        if self.listed is None:
            return
        found = replace(self, listed=None)._users(self.listed.cast(pa.string()), self.listed)
        if found.is_known.sum() < _LEAST_SHARE * len(found.ids):
            said = f"{found.is_known.sum()} of {len(found.ids)} users are in the histories"
            _log.warning("%s: %s%s", option, said, _examples(found, lambda: self._unnamed_user(found)))

    def check_segments(self, option: str, table: RuleTable, names: pa.Array, segments: Segments) -> None:
        """Raise InputError if no row of a table holds for anybody: its segments are not those of --segments."""
        texts = pc.unique(names.drop_null())
        found = Ids(texts, texts, _is_in(texts, segments.names), pa.nulls(len(texts), pa.string()))
        others = segments.names.filter(pc.invert(pc.is_in(segments.names, value_set=texts)))
        said = f"{found.is_known.sum()} of {len(texts)} segments are in --segments"
        self._judge(table.file, option, said, found, lambda: others[0].as_py() if len(others) else None)

    def check_categories(self, items: str, categories: pa.Array) -> None:
        """Raise InputError if no item of the model has a category; categories: of each, null without one."""
        n_items, n_known = len(categories), len(categories) - categories.null_count
        if n_items and n_known == 0:
            example = self.vocabulary.item_ids[0].as_py()
            self._refuse(
                f"{items}: names a category for none of the {n_items} items of the model, such as {example!r}; "
                f"expected --item-column and --category-column to fit them, {_MEANT}"
            )
        elif n_known < _LEAST_SHARE * n_items:
            place = pc.index(categories.is_null(), True).as_py()
            example = self.vocabulary.item_ids[place].as_py()
            _log.warning("--category-column: %d of %d items of the model have one; not %r", n_known, n_items, example)

    def _items(self, table: RuleTable, is_whole: bool = False) -> Ids:
        """Look up a table's items: in the model, and if that knows few, or is_whole, in the histories too."""
        texts = pc.unique(table.required("item_id"))
        ids = as_ids(texts, self.vocabulary.item_ids.type)
        is_known = ids.is_valid().to_numpy(zero_copy_only=False).copy()
        is_known[is_known] = self.vocabulary.indexes(ids.drop_null()) != PAD
        alike = pa.nulls(len(ids), pa.string())
        if is_known.all() or (is_known.mean() >= _LEAST_SHARE and not is_whole):
            return Ids(texts, ids, is_known, alike)
        return self._in_histories("rules/known_items", Ids(texts, ids, is_known, alike))

    def _users(self, texts: pa.Array, ids: pa.Array) -> Ids:
        is_known = np.zeros(len(ids), bool)
        if self.listed is not None:
            is_known = _is_in(ids, self.listed)
        return self._in_histories("rules/known_users", Ids(texts, ids, is_known, pa.nulls(len(ids), pa.string())))

    def _in_histories(self, query: str, found: Ids) -> Ids:
        """Look up ids in the histories, by one scan with the ids in memory alone."""
        if self.sequences is None or len(found.ids) == 0:
            return found
        try:
            with connect() as con:
                con.register("ids", _as_table(found))
                places, is_known, alike = (
                    select(con, query, path=literal(self.sequences), blanks=BLANKS).to_arrow_table().columns
                )
        except duckdb.Error as error:
            raise InputError(f"{self.sequences}: {error}") from error
        known = found.is_known.copy()
        known[places.to_numpy()[is_known.to_numpy(zero_copy_only=False)]] = True
        order = pc.index_in(pa.array(np.arange(len(known))), value_set=places.combine_chunks())
        return Ids(found.texts, found.ids, known, alike.combine_chunks().take(order))

    def _judge(self, file: str, option: str, said: str, found: Ids, other: Callable[[], str | None]) -> None:
        n_known = int(found.is_known.sum())
        if len(found.ids) == 0 or n_known == len(found.ids):
            return
        if n_known == 0:
            self._refuse(f"{file}: {option}: {said}{_examples(found, other)}. Spell them alike, {_MEANT}")
        elif n_known < _LEAST_SHARE * len(found.ids):
            _log.warning("%s: %s%s", option, said, _examples(found, other))
        else:
            _log.info("%s: %s", option, said)

    def _unnamed_item(self, found: Ids) -> str | None:
        ids = self.vocabulary.item_ids
        named = pc.is_in(ids, value_set=found.ids.drop_null())
        place = pc.index(named, False).as_py()
        return None if place < 0 else str(ids[place].as_py())

    def _unnamed_user(self, found: Ids) -> str | None:
        if self.sequences is None:
            return None
        with connect() as con:
            con.register("ids", _as_table(found))
            unnamed: str | None = select(
                con, "rules/unnamed_user", path=literal(self.sequences), blanks=BLANKS
            ).fetchall()[0][0]
        return unnamed

    def _refuse(self, said: str) -> None:
        if not self.accepts_empty:
            raise InputError(said)
        _log.warning("%s", said)


def _examples(found: Ids, other: Callable[[], str | None]) -> str:
    """Show an unknown id of the table, and one that it could have meant, or one that it does not name."""
    place = found.first_unknown
    alike = found.alike[place].as_py() or other()
    known = "" if alike is None else f"; known ones look like {alike!r}"
    return f"; unknown: {found.texts[place].as_py()!r}{known}"


def _is_in(values: pa.Array, known: pa.Array) -> Bools:
    is_in: Bools = pc.is_in(values, value_set=known).to_numpy(zero_copy_only=False)
    return is_in


def _as_table(found: Ids) -> pa.Table:
    """Lay ids out for DuckDB: place, id and what ids alike have in common, as known_users.sql makes it."""
    spelled = without_blanks(found.ids.cast(pa.string())).fill_null(without_blanks(found.texts))
    alike = pc.utf8_ltrim(pc.replace_substring_regex(pc.utf8_lower(spelled), r"\.0+$", ""), "0")
    return pa.table({"place": pa.array(np.arange(len(spelled))), "id": spelled, "alike": alike})
