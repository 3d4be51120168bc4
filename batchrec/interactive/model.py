"""Model: a trained model in memory, for notebooks: recommendations, similar items and vectors on request."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa

from batchrec.arrays import Floats
from batchrec.config import CatalogueConfig, ScoringConfig, SimilarConfig
from batchrec.config.arguments import check_argument
from batchrec.errors import ConfigError, InputError, one_line
from batchrec.interactive.histories import GivenHistories, HistoriesTable, read_histories
from batchrec.interactive.rows import Rows
from batchrec.model import directory
from batchrec.model.directory import Manifest, load_model
from batchrec.model.ranker import Ranker
from batchrec.rules.known_ids import KnownIds
from batchrec.scoring.chunks import in_order, n_workers, read_chunks
from batchrec.scoring.known_items import check_knows, none_known, read_known_catalogue
from batchrec.scoring.offer import read_offer
from batchrec.scoring.scorer import Scorer
from batchrec.scoring.vectors import UserEncoder, item_vectors
from batchrec.similarity.lists import SimilarLists
from batchrec.similarity.similar import SimilarColumns, method_for
from batchrec.sources.catalogue import Catalogue
from batchrec.tables.schemas import FIRST_ITEM, PAD
from batchrec.tables.sequences_table import Sequences

Result = TypeVar("Result")

# Columns of the tables that say how they were made.
_MADE_BY = {"model_id", "history_digest"}


class Model:
    """A trained model in memory; its methods may be called by several threads at the same time.

    Histories are lists of item ids, oldest first; a table or data frame with the columns of sequences.parquet; or the
    path of one. User ids and timestamps may be missing: then the user_id of a history is its place, from 0, and all its
    items are of one day, which only matters to a model that blends the user's habit.
    """

    def __init__(
        self, loaded: directory.Model, folder: Path, config: ScoringConfig, catalogue: Catalogue | None
    ) -> None:
        """Open the model's graph; `load` calls this. config: its device and workers."""
        self._loaded, self._folder, self._config, self._catalogue = loaded, folder, config, catalogue
        self._ranker = Ranker(loaded.graph, config.device)

    @classmethod
    def load(
        cls,
        folder: PathLike[str] | str = "model",
        *,
        device: Literal["auto", "cuda", "cpu"] = "auto",
        threads: int | None = None,
        catalogue: CatalogueConfig | PathLike[str] | str = CatalogueConfig(),
    ) -> "Model":
        """Load a model directory.

        threads: chunks of histories that are computed at a time, by default one per core. catalogue: with its file, or
        a config that names it, the rows of `recommend` and `similar` have titles.
        Raises ModelError for a broken directory, DeviceError if the device is cuda and no GPU works, InputError for a
        catalogue that cannot be read, ConfigError for an argument that is another thing.
        """
        check_argument("folder", folder, Path())
        config, loaded = ScoringConfig(device=device, workers=threads), load_model(Path(folder))
        if not isinstance(catalogue, CatalogueConfig):
            check_argument("catalogue", catalogue, Path())
            catalogue = CatalogueConfig(items=fspath(catalogue))
        titles = read_known_catalogue(catalogue, loaded.vocabulary, Path(folder))
        return cls(loaded, Path(folder), config, titles)

    def __repr__(self) -> str:
        shape, blend = self.manifest.shape, self._loaded.blend
        kinds = ([f"{shape.objective} encoder"] if self.manifest.has_embeddings else []) + (["blend"] if blend else [])
        n_items = len(self._loaded.vocabulary)
        return f"Model({' + '.join(kinds)}, {n_items:,} items, newest {shape.max_len} of a history, {self._folder})"

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model: its id, the options of its training, and its metrics."""
        return self._loaded.manifest

    @property
    def item_ids(self) -> pa.Array:
        """The ids of the items that the model knows: (items,) int64 or string, most frequent first."""
        return self._loaded.vocabulary.item_ids

    @property
    def item_vectors(self) -> Floats:
        """The vectors of the items: (items, hidden) float32; row i is of item_ids[i].

        The inner product with a vector of `encode`, plus the item's bias, is the item's score, as of export-vectors.
        Raises ModelError for a model without an encoder.
        """
        return self._vectors[:, :-1]

    @property
    def item_biases(self) -> Floats:
        """The biases of the items, in the order of item_ids: (items,) float32. Raises as `item_vectors`."""
        return self._vectors[:, -1]

    def recommend(self, histories: GivenHistories, k: int = 10, *, seen: str = "block") -> Rows:
        """Return the rows that `score` writes without rules: user_id, rank, item_id, score and source.

        k: items per history. seen: block, allow, or an age like 90d. A history without an item of the model gets
        popular items: as by `score` if `histories` is a path, otherwise those of all time.
        Raises ConfigError if the model knows no item of the histories, or fewer than k; InputError for histories that
        break the contract of sequences.
        """
        config = replace(self._config, top_k=k, seen=seen)
        if k > len(self.item_ids):
            raise ConfigError(f"k {k}: the model knows {len(self.item_ids)} items. Pass {len(self.item_ids)} or less")
        users = self._read(histories)
        path = users.path if isinstance(users, Sequences) else None
        offer = read_offer(KnownIds(self._loaded.vocabulary, users.user_type, path), config)
        offer = replace(offer, catalogue=self._catalogue)
        scorer = Scorer(self._loaded, self._ranker, users.user_type, config, offer)
        return _rows(self._chunks(users, lambda batch: scorer.score(batch).recs), scorer.schema)

    def encode(self, histories: GivenHistories) -> Floats:
        """Return the state of the encoder after each history: (histories, hidden) float32, in their order.

        A history without an item of the model has nan. Raises ModelError for a model without an encoder, and as
        `recommend` for histories that cannot be used.
        """
        if not self.manifest.has_embeddings:
            self._loaded.encoder_weights("encode")
        encoder = UserEncoder(self._loaded, self._ranker, pa.int64())

        def states(batch: pa.RecordBatch) -> Floats:
            places = pa.array(np.arange(len(batch)))
            known = encoder.encode(pa.record_batch({"user_id": places, "item_ids": batch["item_ids"]})).rows
            states = np.full((len(batch), encoder.dimensions - 1), np.nan, np.float32)
            states[known["user_id"].to_numpy()] = _matrix(known["vector"])[:, :-1]
            return states

        none = np.empty((0, encoder.dimensions - 1), np.float32)
        return np.concatenate([none, *self._chunks(self._read(histories), states)])

    def similar(self, items: Iterable[int | str] | int | str, k: int = 10) -> Rows:
        """Return the rows that `similar` writes for some items: item_id, rank, similar_item_id, score and source.

        Raises ConfigError for an item that the model does not know, and a k below 1.
        """
        top_k = SimilarConfig(top_k=k).top_k
        asked = list(items) if isinstance(items, Iterable) and not isinstance(items, str) else [items]
        try:
            item_ids = pa.array(asked) if asked else self.item_ids[:0]
            indexes = self._loaded.vocabulary.indexes(item_ids)
        except (pa.ArrowException, OverflowError) as error:
            raise InputError(f"items: {one_line(error)}; expected ids") from error
        if (indexes == PAD).any():
            raise none_known(self._loaded.vocabulary, item_ids.filter(pa.array(indexes == PAD)).to_pylist())
        chunks = self._similar_lists.chunks(indexes.astype(np.int64), top_k)
        return _rows(map(self._similar_columns.rows, chunks), self._similar_columns.schema)

    @cached_property
    def _vectors(self) -> Floats:
        return _matrix(item_vectors(self._loaded, "item_vectors")["vector"].combine_chunks())

    @cached_property
    def _similar_lists(self) -> SimilarLists:
        is_eligible = np.arange(self._loaded.vocabulary.size) >= FIRST_ITEM
        return SimilarLists.of_model(self._loaded, method_for(self._loaded, self._folder, "auto"), is_eligible)

    @cached_property
    def _similar_columns(self) -> SimilarColumns:
        titles = None if self._catalogue is None else self._catalogue.values_of(self.item_ids)
        return SimilarColumns(self._loaded, {}, titles)

    def _read(self, histories: GivenHistories) -> Sequences | HistoriesTable:
        users = read_histories(histories, self._loaded.vocabulary)
        if isinstance(users, Sequences):
            check_knows(self._loaded.vocabulary, self._folder, users)
        return users

    def _chunks(
        self, users: Sequences | HistoriesTable, compute: Callable[[pa.RecordBatch], Result]
    ) -> Iterator[Result]:
        """Yield what is computed of the chunks of the histories, by threads, in their order."""
        device = self._ranker.device
        chunks = read_chunks(users, self._config, device)
        return in_order(chunks, lambda _, batch: compute(batch), n_workers(self._config, device))


def _rows(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Rows:
    table = pa.Table.from_batches(batches, schema)
    return Rows(table.select([name for name in schema.names if name not in _MADE_BY]).replace_schema_metadata(None))


def _matrix(vectors: pa.FixedSizeListArray) -> Floats:
    matrix: Floats = vectors.flatten().to_numpy().reshape(len(vectors), vectors.type.list_size)
    return matrix
