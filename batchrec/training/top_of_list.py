"""Move the weights of a blend towards NDCG@10: the top of the list counts, not every item that a user takes.

Where users take dozens of items, a likelihood mostly ranks items that no list shows. NDCG@10 has no slope, so the rank
of an item is replaced by a smooth one: Qin et al., "A General Approximation Framework for Direct Optimization of
Information Retrieval Measures" (Information Retrieval 2010).
"""

import numpy as np
import torch
from torch import Tensor

from batchrec.arrays import Doubles
from batchrec.model.metrics import ideal_gains
from batchrec.training.candidates import Candidates, K

# Best candidates of a user by the weights to start from: hardly any other one gets into the list.
_BEST = 150
_USERS_AT_A_TIME = 250
_STEPS = 100
_LEARNING_RATE = 0.05
# A prior of the weights, so it counts less the more users there are: with a hundred they hardly move.
_PENALTY = 10
# Differences of scores and of ranks over which a step from 0 to 1 is smoothed.
_SCORE_WIDTH, _RANK_WIDTH = 0.3, 0.5


def raise_ndcg(candidates: Candidates, weights: Doubles) -> Doubles:
    """Return weights that raise the mean NDCG@10 of the candidates.

    candidates: with signals of unit variance. weights: (signals,), where to start; the fewer users, the nearer to it
    they stay. The weights of the second half of the steps are averaged.
    """
    values, is_relevant, is_candidate = _best_candidates(candidates, weights)
    ideal = torch.from_numpy(ideal_gains(candidates.n_relevant, K)).float()
    start = torch.from_numpy(weights).float()
    moved = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], _LEARNING_RATE)
    mean = torch.zeros_like(start)
    generator = np.random.default_rng(0)
    for step in range(_STEPS):
        users = torch.from_numpy(generator.permutation(len(values))[:_USERS_AT_A_TIME])
        scores = (values[users] @ moved).masked_fill(~is_candidate[users], -1e4)
        gains = _smooth_gains(scores, is_relevant[users], ideal[users])
        loss = _PENALTY / len(values) * ((moved - start) ** 2).sum() - gains / len(users)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= _STEPS // 2:
            mean += moved.detach() / (_STEPS - _STEPS // 2)
    return mean.double().numpy()


def _best_candidates(candidates: Candidates, weights: Doubles) -> tuple[Tensor, Tensor, Tensor]:
    """Lay out each user's best candidates: values (users, best, signals), and two (users, best) of bool.

    These are whether it is relevant, and whether there is a candidate.
    """
    is_best = candidates.ranks <= _BEST
    cells = candidates.users[is_best], candidates.ranks[is_best] - 1
    best = candidates.order(weights)[is_best]
    values = np.zeros((candidates.n_users, _BEST, candidates.values.shape[1]), np.float32)
    is_relevant, is_candidate = np.zeros((2, candidates.n_users, _BEST), bool)
    values[cells], is_relevant[cells], is_candidate[cells] = candidates.values[best], candidates.is_relevant[best], True
    return torch.from_numpy(values), torch.from_numpy(is_relevant), torch.from_numpy(is_candidate)


def _smooth_gains(scores: Tensor, is_relevant: Tensor, ideal: Tensor) -> Tensor:
    """Return the sum of the users' smooth NDCG@10; scores, is_relevant: (users, candidates); ideal: (users,)."""
    users, places = is_relevant.nonzero(as_tuple=True)
    own = scores[users, places]
    # The item itself counts as one half.
    ranks = 0.5 + torch.sigmoid((scores[users] - own[:, None]) / _SCORE_WIDTH).sum(dim=1)
    is_within = torch.sigmoid((K + 0.5 - ranks) / _RANK_WIDTH)
    gains: Tensor = (is_within / torch.log2(1 + ranks) / ideal[users]).sum()
    return gains
