"""The options of train, and the shape of an encoder."""

from dataclasses import dataclass
from typing import Literal

from batchrec.config.options import check, check_at_least, check_finite, check_fraction, option

Device = Literal["auto", "cuda", "mps", "cpu"]
Objective = Literal["causal", "masked"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class TrainingConfig:
    """Options of `train`."""

    objective: Objective = option(
        "causal", "Predict each next item from those before it (SASRec), or masked items from all others (BERT4Rec)."
    )
    max_len: int | None = option(None, "Newest items of a history that the model sees; 16 to 200, by the histories.")
    hidden_size: int | None = option(None, "Size of the embeddings and of the hidden states; 64 or 128, by the events.")
    n_layers: int = option(2, "Transformer blocks.")
    n_heads: int = option(2, "Attention heads in each block; divides the hidden size.")
    dropout: float | None = option(None, "Share of activations dropped in training; 0.2 or 0.3, by the events.")
    keep_ties: bool = option(
        False, "Learn the order in which items of one moment stand, instead of a new random one every time."
    )
    mask_prob: float = option(0.2, "masked: share of a history's items that are masked.")
    last_mask_prob: float = option(
        0.2, "masked: share of histories of which the last item alone is masked, as in scoring."
    )
    negatives: int | None = option(
        None,
        "Items, drawn for each step, that an item must be told from; 0 for all. All of up to 5,000, or else 3,000.",
    )
    batch_size: int | None = option(None, "Windows of histories in a training step; 16 to 256, by their number.")
    learning_rate: float = option(1e-3, "Learning rate of AdamW after warm-up.")
    weight_decay: float = option(0.01, "Weight decay of AdamW.")
    warmup_steps: int = option(100, "Steps in which the learning rate rises from 0.")
    max_epochs: int = option(200, "Most epochs: passes over the histories, several at once where they are few.")
    min_epoch_steps: int = option(100, "Least training steps in an epoch.")
    max_minutes: float = option(
        55.0, "Minutes after which training stops, in the middle of an epoch too; only finished epochs count."
    )
    patience: int = option(15, "Epochs without a better NDCG@10 on held-out items before training stops.")
    validation_users: int = option(2000, "Most users whose last item is held out; never more than half of all.")
    seed: int = option(0, "Seed of everything random: one seed repeats a run on one machine.")
    device: Device = option("auto", "Where to train.")
    threads: int | None = option(
        None, "CPU threads to train with; OMP_NUM_THREADS, or the cores or the quota of the process, if not given."
    )
    precision: Precision = option("auto", "Numbers that matrices are multiplied in; auto is bf16 where it is fast.")
    init_from: str | None = option(None, "Model directory to go on from; items keep what was learned of them, by id.")

    def __post_init__(self) -> None:
        check_finite(self)
        check_at_least(
            self,
            1,
            "hidden_size",
            "n_layers",
            "n_heads",
            "batch_size",
            "max_epochs",
            "min_epoch_steps",
            "patience",
            "validation_users",
            "threads",
        )
        check_at_least(self, 2, "max_len")
        check_at_least(self, 0, "warmup_steps", "negatives")
        check(self.threads is None or self.threads <= 1024, "threads", self.threads, "1024 or less")
        check(self.max_minutes > 0, "max_minutes", self.max_minutes, "more than 0")
        check_fraction(self, "dropout", "mask_prob", "last_mask_prob")
        check(self.mask_prob > 0, "mask_prob", self.mask_prob, "more than 0")
        check(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "more than 0, and 1 or less")
        check(0 <= self.weight_decay <= 1, "weight_decay", self.weight_decay, "a number from 0 to 1")
        check(0 <= self.seed < 2**63, "seed", self.seed, "a number from 0 up to 2^63 - 1")
        check(
            self.hidden_size is None or self.hidden_size % self.n_heads == 0,
            "n_heads",
            self.n_heads,
            f"a divisor of --hidden-size {self.hidden_size}",
        )


@dataclass(frozen=True)
class EncoderShape:
    """What an encoder is, every size given; the fields are those of TrainingConfig."""

    objective: Objective
    max_len: int
    hidden_size: int
    n_layers: int
    n_heads: int
    dropout: float
