"""Checkpoints of scoring: the rankings of chunks, for a run that resumes after a kill."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchrec.arrays import Longs
from batchrec.config import ScoringConfig
from batchrec.model.directory import ENCODER, Manifest
from batchrec.model.reasons import N_BECAUSE, Reasons
from batchrec.rules.pools import RecLists
from batchrec.system.checkpoints import CheckpointStore, fingerprint_of
from batchrec.tables.schemas import made_by

_log = logging.getLogger(__name__)

# Bytes of an item in a list: a score, an item and a source; with --explain also a part, and items with their weights.
RANKING_BYTES = 9
REASONS_BYTES = 1 + 8 * N_BECAUSE
_REASONS = "reasons."


@dataclass(frozen=True)
class ChunkCheckpoint:
    """The checkpoint of one chunk's ranking, by the chunk's number."""

    store: CheckpointStore
    number: int

    def read_or_rank(
        self, user_ids: pa.Array, digests: Longs, is_fresh: NDArray[np.bool_], rank: Callable[[], RecLists]
    ) -> RecLists:
        """Return the model's lists for the fresh users of a chunk: read, or else ranked and written.

        user_ids, digests, is_fresh: (users,) of the chunk; a checkpoint of other users is not used.
        Raises ConfigError if it cannot be written.
        """
        if not is_fresh.any():
            return rank()
        name, key = f"chunk-{self.number}", _key(user_ids, digests, is_fresh)
        checkpoint = self.store.read(name)
        if checkpoint is not None and checkpoint.metadata["key"] == key:
            return _lists_of(checkpoint.arrays)
        lists = rank()
        self.store.write(name, _arrays_of(lists), {"key": key})
        return lists


def _arrays_of(lists: RecLists) -> dict[str, NDArray[Any]]:
    """Return all arrays of lists by name; those of the reasons begin with `reasons.`."""
    reasons = {} if lists.reasons is None else vars(lists.reasons)
    arrays = {name: getattr(lists, name) for name in ("scores", "items", "sources")}
    return arrays | {_REASONS + name: values for name, values in reasons.items()}


def _lists_of(arrays: Mapping[str, NDArray[Any]]) -> RecLists:
    """Return the lists of `_arrays_of`, as copies, because the lists of cold users are set later."""
    copies = {name: values.copy() for name, values in arrays.items()}
    reasons = {name: copies.pop(_REASONS + name) for name in Reasons.__dataclass_fields__ if _REASONS + name in copies}
    return RecLists(**copies, reasons=Reasons(**reasons) if reasons else None)


def open_checkpoints(
    folder: Path | None, manifest: Manifest, config: ScoringConfig, schema: pa.Schema
) -> CheckpointStore | None:
    """Open the checkpoints of the same scoring, and log how many exist; return None without a folder.

    schema: of the recs; its metadata hold everything that the rows depend on.
    """
    if folder is None:
        return None
    depends_on = {
        "made_by": made_by(schema.metadata),
        "encoder": manifest.files[ENCODER],
        # The last bits of scores depend on which histories are in one batch.
        "batch_tokens": config.batch_tokens,
    }
    checkpoints = CheckpointStore(folder, fingerprint_of(depends_on))
    if len(checkpoints):
        _log.info(
            "resuming: %d chunk(s) of an earlier run exist and are used if they fit",
            len(checkpoints),
        )
    return checkpoints


def _key(user_ids: pa.Array, digests: Longs, is_fresh: NDArray[np.bool_]) -> str:
    """Return the SHA-256 of the users and histories that are ranked; user_ids: int64 or string without nulls."""
    digest = sha256(digests.tobytes())
    digest.update(is_fresh.tobytes())
    if pa.types.is_string(user_ids.type):
        # Without the lengths, "ab", "c" and "a", "bc" would have the same key.
        first, last = user_ids.offset, user_ids.offset + len(user_ids)
        offsets = np.frombuffer(user_ids.buffers()[1], np.int32)[first : last + 1]
        digest.update(np.diff(offsets).tobytes())
        if offsets[-1] > offsets[0]:
            digest.update(memoryview(user_ids.buffers()[2])[offsets[0] : offsets[-1]])
    else:
        digest.update(user_ids.to_numpy().tobytes())
    return digest.hexdigest()
