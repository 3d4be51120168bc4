"""Training throughput in items per second, without padding: batchrec's steps against a plain padded PyTorch loop.

The reference is the textbook solution: nn.TransformerEncoder over the newest max_len items of every user, padded to
max_len, scores of the whole vocabulary at every place, cross-entropy, AdamW. Both train the same causal encoder on
histories shaped like MovieLens-1M: log-normal lengths of at least 20, mean about 165, items by Zipf's law.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchrec.arrays import Longs
from batchrec.config import Precision, TrainingConfig
from batchrec.model.batching import Histories, pad
from batchrec.tables.schemas import FIRST_ITEM, PAD
from batchrec.training.default_sizes import encoder_shape
from batchrec.training.encoder import Encoder
from batchrec.training.trainer import Trainer
from batchrec.training.windows import Batch, draw_batches

N_USERS, N_ITEMS, MAX_LEN, SIZE, BATCH_SIZE = 6040, 3416, 200, 64, 128


def histories_like_movielens(generator: np.random.Generator) -> Histories:
    """Draw histories with MovieLens-1M's number of users, activity and catalogue; the order of items is random."""
    lengths = np.maximum(20, np.exp(generator.normal(np.log(96), 1.05, N_USERS))).clip(max=2300).astype(np.int64)
    weights = 1 / np.arange(10, N_ITEMS + 10)
    items = generator.choice(N_ITEMS, int(lengths.sum()), p=weights / weights.sum()) + FIRST_ITEM
    return Histories(items.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]))


class PlainEncoder(nn.Module):
    """A plain implementation with the blocks and sizes of batchrec's encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS + FIRST_ITEM, SIZE, padding_idx=PAD)
        self.positions = nn.Embedding(MAX_LEN, SIZE)
        block = nn.TransformerEncoderLayer(SIZE, 2, 4 * SIZE, 0.2, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, nn.LayerNorm(SIZE), enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Score the vocabulary at every place: tokens (users, MAX_LEN) to (users, MAX_LEN, vocabulary)."""
        hidden = self.items(tokens) + self.positions.weight
        mask = nn.Transformer.generate_square_subsequent_mask(MAX_LEN)
        states: Tensor = self.blocks(hidden, mask=mask, is_causal=True)
        return states @ self.items.weight.T


def plain_steps(histories: Histories, generator: np.random.Generator) -> Callable[[], int]:
    """Return a function that takes a step and returns the number of items it learned from."""
    encoder = PlainEncoder().train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)

    def newest(users: Longs) -> Tensor:
        lengths = np.minimum(histories.lengths[users], MAX_LEN + 1)
        rows = pad(histories.items, histories.offsets[users + 1] - lengths, lengths)
        return F.pad(torch.from_numpy(rows).long(), (0, MAX_LEN + 1 - rows.shape[1]), value=PAD)

    def step() -> int:
        items = newest(generator.choice(len(histories), BATCH_SIZE, replace=False))
        labels = items[:, 1:]
        loss = F.cross_entropy(encoder(items[:, :-1]).flatten(0, 1), labels.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return int((labels != PAD).sum())

    return step


def our_steps(histories: Histories, precision: Precision, generator: np.random.Generator) -> Callable[[], int]:
    """Return a function that takes a step of batchrec's and returns the number of items it learned from."""
    config = TrainingConfig(
        max_len=MAX_LEN, hidden_size=SIZE, batch_size=BATCH_SIZE, negatives=0, precision=precision, device="cpu"
    )
    shape = encoder_shape(config, histories)
    trainer = Trainer(Encoder(N_ITEMS + FIRST_ITEM, shape).train(), config)

    def batches() -> Iterator[Batch]:
        while True:
            yield from draw_batches(histories, N_ITEMS + FIRST_ITEM, shape, config, generator)

    drawn = batches()

    def step() -> int:
        batch = next(drawn)
        trainer.take_steps(iter([batch]))
        return batch.n_labels

    return step


def items_per_second(step: Callable[[], int], n_steps: int) -> float:
    """Return the throughput of some steps."""
    started = time.perf_counter()
    n_items = sum(step() for _ in range(n_steps))
    return n_items / (time.perf_counter() - started)


def main() -> None:
    """Run the loops in turns, and compare each turn with that of the plain loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=16, help="steps per turn")
    parser.add_argument("--turns", type=int, default=5, help="turns of each loop")
    options = parser.parse_args()
    # Hide tqdm's progress bar of each epoch.
    os.environ["TQDM_DISABLE"] = "1"
    histories = histories_like_movielens(np.random.default_rng(0))
    loops = {
        "plain padded loop, fp32": plain_steps(histories, np.random.default_rng(1)),
        "batchrec, fp32": our_steps(histories, "fp32", np.random.default_rng(1)),
        "batchrec, --precision auto": our_steps(histories, "auto", np.random.default_rng(1)),
    }
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for step in loops.values():
        step()
    for _ in range(options.turns):
        for name, step in loops.items():
            rates[name].append(items_per_second(step, options.steps))
    reference = next(iter(rates.values()))
    print(f"{len(histories.items):,} events of {N_USERS:,} users, {torch.get_num_threads()} threads")
    for name, turns in rates.items():
        ratio = statistics.median(own / other for own, other in zip(turns, reference, strict=True))
        print(f"{name:28} {statistics.median(turns):10,.0f} items/s   {ratio:5.2f} x")


if __name__ == "__main__":
    main()
