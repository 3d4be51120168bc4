"""The share of the lists that each part of a blend carries, as model/reasons.py defines it, on the users of the fit."""

from collections.abc import Mapping

import numpy as np

from batchrec.arrays import Floats
from batchrec.tables.schemas import PARTS
from batchrec.training.candidates import Candidates, K


def part_shares(candidates: Candidates, weights: Mapping[str, float], part_of: Mapping[str, str]) -> dict[str, float]:
    """Return the share of the users' top 10 that each part of PARTS carries.

    weights: of the signals of the candidates, in their order. part_of: the part of each signal. The mean of a part over
    the catalogue is that over the candidates, each by its count.
    """
    factors = np.array(list(weights.values()))
    parts = np.full((len(PARTS), len(candidates.values)), -np.inf, np.float32)
    for number, part in enumerate(PARTS):
        own = factors * [part_of[name] == part for name in weights]
        if own.any():
            added = candidates.values @ own.astype(np.float32)
            is_everywhere = part in {"encoder", "popularity"}
            # Neighbours and habit do not carry what they do not touch.
            parts[number] = _less_mean(added, candidates) if is_everywhere else np.where(added > 0, added, -np.inf)
    listed = parts[:, candidates.order(factors)[candidates.ranks <= K]]
    carried_by = listed.argmax(axis=0)[listed.max(axis=0) > -np.inf]
    return dict(zip(PARTS, (np.bincount(carried_by, minlength=len(PARTS)) / listed.shape[1]).tolist(), strict=True))


def _less_mean(added: Floats, candidates: Candidates) -> Floats:
    sums = np.add.reduceat(np.stack([added * candidates.counts, candidates.counts]), candidates.starts, axis=1)
    less: Floats = added - (sums[0] / sums[1])[candidates.users]
    return less
