"""similar: write the most similar other items of each item of a model."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrec.config import SimilarConfig, SimilarMethod
from batchrec.config.arguments import checked
from batchrec.errors import ModelError
from batchrec.model.directory import Model, load_model, model_files
from batchrec.rules.known_ids import KnownIds
from batchrec.rules.rulebook import read_rule_tables, read_rules
from batchrec.similarity.lists import SimilarLists, SimilarRows
from batchrec.similarity.table_check import refuse_broken
from batchrec.sources import local_path_of
from batchrec.sources.catalogue import read_catalogue
from batchrec.system.atomic import check_output_file
from batchrec.tables.parquet import write_parquet
from batchrec.tables.queries import one_database
from batchrec.tables.report_table import ReportTable
from batchrec.tables.schemas import FIRST_ITEM, SIMILAR_SOURCES, similar_schema

_log = logging.getLogger(__name__)

_ROW_GROUP = 250_000
# Up to this many items, comparing all pairs takes a few minutes: measured, see docs/decisions/similar.md.
_MOST_BLENDED = 150_000


@dataclass(frozen=True)
class SimilarReport(ReportTable):
    """The table that was written.

    method: the one that was used, which depends on what the model stores and, by auto, on its number of items. items:
    of the model. eligible_items: how many of them the rules let lists hold. rule_rows: of each rule table, by its
    option. rows_by_source: as in the table.
    """

    out: str
    model_id: str
    method: str
    items: int
    eligible_items: int
    rule_rows: dict[str, int]
    items_with_list: int
    items_with_fewer_than_top_k: int
    rows_by_source: dict[str, int]
    rows: int
    seconds: float


@checked
def similar(
    model: Path | str = Path("model"),
    config: SimilarConfig = SimilarConfig(),
    out: Path | str = Path("similar.parquet"),
    sequences: Path | None = None,
) -> SimilarReport:
    """Write the most similar other items of each item of a model to the table `out`, ordered by item_id.

    The rules say which items a list may hold; an item that they forbid has a list too. sequences: histories with items
    that the model does not know yet, so that a rule table of these is not taken for one of another log.
    Raises InputError, ModelError or ConfigError for an invalid input, model or option, and GateError for a table that
    breaks its contract or a rule. Then `out` stays as it was.
    """
    started = time.monotonic()
    model, out = Path(model), Path(out)
    histories = [] if sequences is None else [sequences]
    check_output_file(out, [*histories, *model_files(model), *map(local_path_of, config.files.values())])
    loaded = load_model(model)
    method = method_for(loaded, model, config.method)
    vocabulary = loaded.vocabulary
    with one_database():
        rules = read_rule_tables(config.rules)
        known = KnownIds(vocabulary, pa.string(), sequences, accepts_empty=config.allow_empty_rules)
        is_eligible = read_rules(rules, config.rules, config.top_k, known).compile(vocabulary).is_eligible
        catalogue = read_catalogue(config, vocabulary.item_ids.type, config.night)
        titles = None if catalogue is None else catalogue.values_of(vocabulary.item_ids)
        if catalogue is not None:
            catalogue.warn_of_untitled(vocabulary.item_ids, titles, config.items)
    made_by = {"model_id": loaded.manifest.model_id, "method": method, "top_k": config.top_k}
    columns = SimilarColumns(loaded, made_by, titles)
    # By id, so that targets need not sort the rows.
    items = pc.sort_indices(vocabulary.item_ids).to_numpy().astype(np.int64) + FIRST_ITEM
    lists = SimilarLists.of_model(loaded, method, is_eligible).chunks(items, config.top_k)
    totals = _Totals(config.top_k)
    write_parquet(
        _in_row_groups(columns.rows(rows) for rows in totals.counted(lists)),
        columns.schema,
        out,
        lambda finished: refuse_broken(finished, out, rules, config),
    )
    if not is_eligible.any():
        _log.warning("%s: no item has a list, because of %s", out, " and ".join(rules))
    return SimilarReport(
        out=str(out),
        model_id=loaded.manifest.model_id,
        method=method,
        items=len(vocabulary),
        eligible_items=int(is_eligible.sum()),
        rule_rows={option: len(rule_table.rows) for option, rule_table in rules.items()},
        items_with_list=totals.n_lists,
        items_with_fewer_than_top_k=len(vocabulary) - totals.n_full_lists,
        rows_by_source=totals.rows_by_source,
        rows=sum(totals.rows_by_source.values()),
        seconds=round(time.monotonic() - started, 3),
    )


def _in_row_groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Put batches together until each has rows enough for a row group: among many items a chunk has few lists."""
    collected: list[pa.RecordBatch] = []
    n_rows = 0
    for batch in batches:
        collected.append(batch)
        n_rows += len(batch)
        if n_rows >= _ROW_GROUP:
            yield pa.concat_batches(collected)
            collected, n_rows = [], 0
    if collected:
        yield pa.concat_batches(collected)


def method_for(model: Model, folder: Path, method: SimilarMethod) -> SimilarMethod:
    """Return the method to use: of `blended`, with a warning, only the part that the model has.

    Raises ModelError if the model stores no neighbours and the method needs them.
    """
    only, reason = _only_method(model)
    if method == "auto":
        method, reason = _method_by_size(len(model.vocabulary)) if only is None else (only, reason)
        _log.info("--method auto takes %s: the model %s", method, reason)
        return method
    if method == "blended" and only is not None:
        _log.warning("%s: %s: blended is %s only", folder, reason, only)
        return only
    if method == "co-occurrence" and only == "vectors":
        raise ModelError(
            f"--method co-occurrence: {folder} stores no neighbours of items, because it was trained with --blend "
            "none. Pass --method vectors, or train without --blend none"
        )
    return method


def _only_method(model: Model) -> tuple[SimilarMethod | None, str]:
    """Return the only method of a model that lacks a part, and the reason; None if it lacks none."""
    if model.blend is None:
        return "vectors", "was trained with --blend none and stores no neighbours of items"
    if not model.manifest.has_embeddings:
        return "co-occurrence", "was trained with --max-epochs 0 and has no vectors of items"
    return None, ""


def _method_by_size(n_items: int) -> tuple[SimilarMethod, str]:
    """Return the method of `auto` for a model that lacks no part, and the reason."""
    if n_items > _MOST_BLENDED:
        return "co-occurrence", f"has {n_items:,} items, and blended compares all pairs of them"
    return "blended", f"has {n_items:,} items, at most {_MOST_BLENDED:,}"


class SimilarColumns:
    """Turns rows of lists into rows of the table; titles: of each item of the model, None without a catalogue."""

    def __init__(self, model: Model, made_by: dict[str, Any], titles: pa.Array | None) -> None:
        """Take the ids of the model; made_by: as for similar_schema."""
        self._item_ids, self._model_id, self._titles = model.vocabulary.item_ids, model.manifest.model_id, titles
        self.schema = similar_schema(self._item_ids.type, with_titles=titles is not None, made_by=made_by)

    def rows(self, rows: SimilarRows) -> pa.RecordBatch:
        """Return the rows of the table."""
        similar = pa.array(rows.similar - FIRST_ITEM)
        columns = [
            self._item_ids.take(pa.array(rows.items - FIRST_ITEM)),
            pa.array(rows.ranks),
            self._item_ids.take(similar),
            pa.array(rows.scores),
            pa.array(SIMILAR_SOURCES).take(pa.array(rows.is_shared.astype(np.int8))),
            pa.repeat(self._model_id, len(rows.items)),
            *([] if self._titles is None else [self._titles.take(similar)]),
        ]
        return pa.record_batch(columns, schema=self.schema)


@dataclass
class _Totals:
    """The counts of the lists that are made so far."""

    top_k: int
    n_lists: int = 0
    n_full_lists: int = 0
    rows_by_source: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIMILAR_SOURCES, 0))

    def counted(self, chunks: Iterator[SimilarRows]) -> Iterator[SimilarRows]:
        """Yield chunks of lists, and count what they hold."""
        for rows in chunks:
            self.n_lists += int((rows.ranks == 1).sum())
            self.n_full_lists += int((rows.ranks == self.top_k).sum())
            for is_shared, source in enumerate(SIMILAR_SOURCES):
                self.rows_by_source[source] += int((rows.is_shared == is_shared).sum())
            yield rows
