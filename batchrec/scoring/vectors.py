"""export-vectors: the vectors of items and users, for a vector index that serves recommendations on request.

The score of an item for a user is the inner product of their vectors. The last component of an item is its bias, that
of a user is 1. Of a blend, the vectors hold the encoder and popularity, not neighbours and habit.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from batchrec.arrays import Floats
from batchrec.config import ScoringConfig, VectorsConfig
from batchrec.config.arguments import checked
from batchrec.model.batching import Histories, scoring_tokens, token_batches
from batchrec.model.directory import Model, load_model
from batchrec.model.ranker import Ranker
from batchrec.scoring.chunks import in_order, n_workers, read_chunks
from batchrec.scoring.known_items import check_knows
from batchrec.scoring.scorer import batch_limits
from batchrec.system.atomic import replacing_folder
from batchrec.tables.parquet import write_parquet
from batchrec.tables.schemas import FIRST_ITEM, vectors_schema
from batchrec.tables.sequences_table import open_sequences

ITEMS, USERS = "items.parquet", "users.parquet"
_ITEMS_PER_BATCH = 1 << 16


@dataclass(frozen=True)
class VectorsReport:
    """The vectors that were written. users_without_vector: those whose history has no item of the model."""

    out: str
    model_id: str
    device: str
    dimensions: int
    items: int
    users: int
    users_without_vector: int
    seconds: float


@dataclass(frozen=True)
class UserVectors:
    """The vectors of a chunk's users, by the schema of vectors; n_users: of the chunk."""

    rows: pa.RecordBatch
    n_users: int


@checked
def export_vectors(
    sequences: Path | str = Path("sequences.parquet"),
    model: Path | str = Path("model"),
    config: VectorsConfig = VectorsConfig(),
    out: Path | str = Path("vectors"),
) -> VectorsReport:
    """Write the folder `out`: items.parquet and users.parquet, with one vector per item or user (float32).

    The items with the largest inner products with a user's vector are the list that `score --seen allow` writes for the
    user without rules, except the last bits of scores, and neighbours and habit if the model blends them.
    Raises InputError, ModelError, DeviceError or ConfigError for an invalid input, model, device or output. Then `out`
    stays as it was.
    """
    started = time.monotonic()
    sequences, model, out = Path(sequences), Path(model), Path(out)
    with replacing_folder(out, marked_by=[USERS], holds=[ITEMS, USERS]) as folder:
        loaded = load_model(model)
        table = open_sequences(sequences)
        check_knows(loaded.vocabulary, model, table)
        encoder = UserEncoder(loaded, Ranker(loaded.graph, config.device, config.precision), table.user_type)
        scoring = ScoringConfig(device=config.device)
        items = item_vectors(loaded)
        write_parquet(items.to_batches(_ITEMS_PER_BATCH), items.schema, folder / ITEMS)
        chunks = read_chunks(table, scoring, encoder.device)
        encoded = in_order(chunks, lambda _, chunk: encoder.encode(chunk), n_workers(scoring, encoder.device))
        counts: Counter[str] = Counter(users=0, users_without_vector=0)
        write_parquet(_counted(encoded, counts), encoder.schema, folder / USERS)
    return VectorsReport(
        str(out),
        loaded.manifest.model_id,
        encoder.device,
        encoder.dimensions,
        len(loaded.vocabulary),
        **counts,
        seconds=round(time.monotonic() - started, 3),
    )


def item_vectors(model: Model, needed_by: str = "export-vectors") -> pa.Table:
    """Return one row per item of the model: item_id, and its vector: the embedding, then the bias.

    Raises ModelError, which names what needs the vectors, if no encoder was trained.
    """
    weights = model.encoder_weights(needed_by)
    vectors = np.column_stack([weights["item_embeddings.weight"], weights["item_biases"]])[FIRST_ITEM:]
    if model.blend is not None:
        vectors *= model.blend.scale
        vectors[:, -1] = model.blend.biases[FIRST_ITEM:]
    schema = vectors_schema("item_id", model.vocabulary.item_ids.type, vectors.shape[1], model.manifest.model_id)
    return pa.table([model.vocabulary.item_ids, _lists(vectors)], schema=schema)


class UserEncoder:
    """Computes the vectors of users; `encode` may be called by several threads at the same time."""

    def __init__(self, model: Model, ranker: Ranker, user_type: pa.DataType) -> None:
        self.device = ranker.device
        self._model, self._ranker = model, ranker
        self._batch_tokens, self._max_users = batch_limits(ranker.device, model.vocabulary.size)
        self.dimensions = model.manifest.shape.hidden_size + 1
        self.schema = vectors_schema("user_id", user_type, self.dimensions, model.manifest.model_id)

    def encode(self, batch: pa.RecordBatch) -> UserVectors:
        """Return the vectors of a sequences batch's users: the state after the history, then 1.

        Users whose history has no item of the model are left out.
        """
        histories = Histories.from_arrow(batch["item_ids"], self._model.vocabulary)
        known = np.flatnonzero(histories.lengths)
        shape = self._model.manifest.shape
        vectors = np.ones((len(known), self.dimensions), np.float32)
        lengths = np.minimum(histories.lengths[known], shape.max_len)
        for rows in token_batches(lengths, self._batch_tokens, self._max_users):
            tokens = scoring_tokens(histories, known[rows], shape)
            vectors[rows, :-1] = self._ranker.encode(tokens)
        columns = [batch["user_id"].take(pa.array(known)), _lists(vectors)]
        return UserVectors(pa.record_batch(columns, schema=self.schema), len(batch))


def _counted(encoded: Iterator[UserVectors], counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    for chunk in encoded:
        counts["users"] += len(chunk.rows)
        counts["users_without_vector"] += chunk.n_users - len(chunk.rows)
        yield chunk.rows


def _lists(vectors: Floats) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
