"""Rankings of chunks that an earlier run of the same scoring has made before it was killed."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchrec.arrays import Longs
from batchrec.config import ScoringConfig
from batchrec.model.directory import ENCODER, Manifest
from batchrec.rules.pools import RecLists
from batchrec.system.checkpoints import CheckpointStore, fingerprint_of

_log = logging.getLogger(__name__)

# A row of a kept list: a score, an item and a source.
RANKING_BYTES = 9


@dataclass(frozen=True)
class ChunkCheckpoint:
    """The checkpoint of one chunk's ranking, by the chunk's number."""

    store: CheckpointStore
    number: int

    def read_or_rank(
        self, user_ids: pa.Array, digests: Longs, is_fresh: NDArray[np.bool_], rank: Callable[[], RecLists]
    ) -> RecLists:
        """Give the model's lists for the fresh users of a chunk as they were kept, or have them made and keep them.

        user_ids, digests, is_fresh: (users,) of the chunk; what was kept for others is not looked at.
        Raises ConfigError where it cannot be written.
        """
        if not is_fresh.any():
            return rank()
        name, key = f"chunk-{self.number}", _key(user_ids, digests, is_fresh)
        checkpoint = self.store.read(name)
        if checkpoint is not None and checkpoint.metadata["key"] == key:
            # Copies: those of users whom the model does not know are put in later.
            return RecLists(*(checkpoint.arrays[field.name].copy() for field in fields(RecLists)))
        lists = rank()
        self.store.write(name, {field.name: getattr(lists, field.name) for field in fields(lists)}, {"key": key})
        return lists


def open_checkpoints(
    folder: Path | None, manifest: Manifest, config: ScoringConfig, schema: pa.Schema
) -> CheckpointStore | None:
    """Open the checkpoints of this very scoring, and log how many there are.

    schema: that of the recs, whose metadata hold what their rows depend on.
    """
    if folder is None:
        return None
    depends_on = {
        "made_by": json.loads(schema.metadata[b"batchrec.made_by"]),
        "encoder": manifest.files[ENCODER],
        # Which histories the model sees together moves the last bits of the scores.
        "batch_tokens": config.batch_tokens,
    }
    checkpoints = CheckpointStore(folder, fingerprint_of(depends_on))
    if len(checkpoints):
        _log.info("going on: %d chunk(s) of an earlier run are there, and are used where they fit", len(checkpoints))
    return checkpoints


def _key(user_ids: pa.Array, digests: Longs, is_fresh: NDArray[np.bool_]) -> str:
    """Sum up whose histories are ranked: the SHA-256 of the ids, int64 or string without nulls, and the arrays."""
    summed = sha256(digests.tobytes())
    summed.update(is_fresh.tobytes())
    if pa.types.is_string(user_ids.type):
        # Text without its lengths would be the same for other cuts of it.
        first, last = user_ids.offset, user_ids.offset + len(user_ids)
        offsets = np.frombuffer(user_ids.buffers()[1], np.int32)[first : last + 1]
        summed.update(np.diff(offsets).tobytes())
        if offsets[-1] > offsets[0]:
            summed.update(memoryview(user_ids.buffers()[2])[offsets[0] : offsets[-1]])
    else:
        summed.update(user_ids.to_numpy().tobytes())
    return summed.hexdigest()
