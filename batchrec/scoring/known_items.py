"""Check that a model was trained on this log: it must know the log's items."""

import logging
from collections.abc import Iterable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.config import CatalogueConfig
from batchrec.errors import ConfigError, InputError, ModelError, one_line
from batchrec.model.vocabulary import Vocabulary
from batchrec.sources.catalogue import Catalogue, read_catalogue
from batchrec.tables.ids import without_blanks
from batchrec.tables.queries import connect, literal, select
from batchrec.tables.schemas import PAD
from batchrec.tables.sequences_table import Sequences

_log = logging.getLogger(__name__)

# Minimum share of the items in the histories that a model knows: below it there is a warning.
_MIN_SHARE = 0.5


def check_knows(vocabulary: Vocabulary, model: Path, table: Sequences) -> None:
    """Warn if a model knows less than half of the distinct items in the histories.

    Raises ModelError if it knows none, or if its ids have another type: then 1 and "1" would be the same item, and "01"
    another one.
    """
    known = vocabulary.item_ids
    if known.type != table.item_type:
        raise ModelError(
            f"{model}: its item ids are {known.type}{_example(known)}; those of {table.path} are "
            f"{table.item_type}{_example(_items_of(table))}. Build them with ids of the model's type, or train again"
        )
    items = _items_of(table)
    unknown = items.filter(pc.invert(pc.is_in(without_blanks(items), value_set=without_blanks(known))))
    n_known = len(items) - len(unknown)
    summary = (
        f"{model}: knows {n_known:,} of the {len(items):,} items in {table.path}; its ids are {known.type}"
        f"{_example(known)}, unknown ones{_example(unknown, '')}"
    )
    if len(unknown) and n_known == 0:
        raise ModelError(f"{summary}. Pass the model that was trained on this log, or train again")
    if n_known < _MIN_SHARE * len(items):
        _log.warning("%s. Check that it is the model of this log; if it is, train again", summary)


def read_known_catalogue(config: CatalogueConfig, vocabulary: Vocabulary, model: Path) -> Catalogue | None:
    """Read the catalogue as `read_catalogue` does; None without one.

    Also raises ModelError if a model knows no item of it; its ids are text, so 1 and "1" are the same.
    """
    known, catalogue = vocabulary.item_ids, read_catalogue(config, vocabulary.item_ids.type)
    if catalogue is not None and (vocabulary.indexes(catalogue.item_ids) == PAD).all():
        raise ModelError(
            f"{model}: knows none of the {len(catalogue.item_ids):,} items of {config.items}: its ids are {known.type}"
            f"{_example(known)}, theirs{_example(catalogue.item_ids, '')}. Pass the catalogue of the log that it was "
            "trained on, or train again"
        )
    return catalogue


def none_known(vocabulary: Vocabulary, given: Iterable[int | str], or_pass: str = "") -> ConfigError:
    """Return the error for given items that a model does not know; or_pass: what else could be passed."""
    example = f"{vocabulary.item_ids.type} like {vocabulary.item_ids[0].as_py()!r:.40}"
    return ConfigError(f"the model knows none of {', '.join(map(str, given))}. Pass ids that are {example}{or_pass}")


def _items_of(table: Sequences) -> pa.Array:
    """Return the distinct items of the histories, sorted."""
    try:
        with connect() as con:
            distinct = select(con, "scoring/distinct_items", path=literal(table.path)).to_arrow_table()["item_id"]
        items = distinct.cast(table.item_type).combine_chunks().drop_null()
    except (duckdb.Error, pa.ArrowException) as error:
        raise InputError(f"{table.path}: cannot be read: {one_line(error)}") from error
    table.check_same()
    return items.take(pc.sort_indices(items))


def _example(items: pa.Array, before: str = ",") -> str:
    return f"{before} such as {items[0].as_py()!r:.40}" if len(items) else ""
