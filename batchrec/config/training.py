"""The options of train, and the shape of an encoder."""

from dataclasses import dataclass, replace
from typing import Literal

from batchrec.config.options import MAX_DAYS, MAX_SEED, MAX_THREADS, Exclusive, check, check_values, option
from batchrec.config.scoring import ScoringConfig

Device = Literal["auto", "cuda", "mps", "cpu"]
Objective = Literal["causal", "masked"]
Precision = Literal["auto", "fp32", "bf16"]
Blending = Literal["auto", "none"]
Validation = Literal["auto", "temporal", "last-item"]


@dataclass(frozen=True)
class TrainingConfig:
    """Options of `train`."""

    objective: Objective = option(
        "causal",
        "causal: predict each next item from the items before it (SASRec). masked: predict masked items from all "
        "others (BERT4Rec).",
    )
    max_len: int | None = option(
        None,
        "Newest items of a history that the model sees. Default: 16 to 200, by the length of the histories.",
        minimum=2,
    )
    hidden_size: int | None = option(
        None,
        "Size of the embeddings and hidden states. Default: 64 or 128, by the number of events.",
        minimum=1,
    )
    n_layers: int = option(2, "Number of transformer blocks.", minimum=1)
    n_heads: int = option(2, "Number of attention heads per block; it divides the hidden size.", minimum=1)
    dropout: float | None = option(
        None,
        "Share of activations dropped in training. Default: 0.2 or 0.3, by the number of events.",
        minimum=0,
        maximum=Exclusive(1),
    )
    keep_ties: bool = option(
        False, "Train on items of the same time in their given order, instead of a new random order in every epoch."
    )
    half_life: float | None = option(
        None,
        "Days after which an event counts half as much in training, a quarter after twice as many, counted back from "
        "the end of the log. Default: its age does not matter.",
        minimum=Exclusive(0),
        maximum=MAX_DAYS,
    )
    mask_prob: float = option(
        0.2, "masked: share of a history's items that are masked.", minimum=Exclusive(0), maximum=Exclusive(1)
    )
    last_mask_prob: float = option(
        0.2,
        "masked: share of histories in which only the last item is masked, as in scoring.",
        minimum=0,
        maximum=Exclusive(1),
    )
    negatives: int | None = option(
        None,
        "Negatives sampled per step; 0 trains with the full softmax. Default: full softmax up to 5,000 items, "
        "otherwise 3,000.",
        minimum=0,
    )
    batch_size: int | None = option(
        None, "Windows of histories per training step. Default: 16 to 256, by the number of windows.", minimum=1
    )
    learning_rate: float = option(1e-3, "Learning rate of AdamW after warm-up.", minimum=Exclusive(0), maximum=1)
    weight_decay: float = option(0.01, "Weight decay of AdamW.", minimum=0, maximum=1)
    warmup_steps: int = option(100, "Steps in which the learning rate rises from 0.", minimum=0)
    max_epochs: int = option(
        200,
        "Maximum number of epochs; small logs are repeated within an epoch. 0 trains no encoder, which takes seconds: "
        "the model is a blend of the simple signals.",
        minimum=0,
    )
    min_epoch_steps: int = option(100, "Minimum number of training steps per epoch.", minimum=1)
    max_minutes: float = option(
        55.0,
        "Maximum training time in minutes. An epoch that it cuts short does not count, unless it is the first.",
        minimum=Exclusive(0),
    )
    patience: int = option(
        15, "Epochs without a better NDCG@10 on held-out items after which training stops.", minimum=1
    )
    validate: Validation = option(
        "auto",
        "Items to hold out. temporal: the items that users take after a point in time, found from the log; the model "
        "is then refitted on later events too. last-item: each user's last item. auto: temporal if the log has such a "
        "time.",
    )
    validation_users: int = option(
        2000, "Maximum number of users whose items are held out; never more than half of all users.", minimum=1
    )
    repeat_items: bool = option(
        False, "Choose the model for lists that may hold items of the history, as those of score --keep-seen do."
    )
    blend: Blending = option(
        "auto",
        "Add simple signals to the score as far as they help on held-out items: neighbours of the newest items, recent "
        "popularity and, with --repeat-items, the user's habit. none: only the encoder's score.",
    )
    seed: int = option(0, "Random seed: the same seed repeats a run on the same machine.", minimum=0, maximum=MAX_SEED)
    device: Device = option("auto", "Device to train on. cuda: an NVIDIA GPU. mps: an Apple GPU.")
    threads: int | None = option(
        None,
        "Number of CPU threads. Default: OMP_NUM_THREADS, or the CPU cores or the CPU quota of the process.",
        minimum=1,
        maximum=MAX_THREADS,
    )
    precision: Precision = option("auto", "Number format of matrix products; auto is bf16 on devices where it is fast.")
    init_from: str | None = option(
        None, "Model directory whose weights to start from; an item that both models know keeps its embedding."
    )

    @property
    def unused(self) -> list[str]:
        """The options that are not at their defaults although the objective does not use them."""
        masked = () if self.objective == "masked" else ("mask_prob", "last_mask_prob")
        changed = [name for name in masked if getattr(self, name) != getattr(TrainingConfig, name)]
        return [f"--{name.replace('_', '-')}" for name in changed]

    def for_lists_of(self, scoring: ScoringConfig) -> "TrainingConfig":
        """Return the options by which a model is chosen for the lists that score writes."""
        return replace(self, repeat_items=self.repeat_items or scoring.seen_policy != "block")

    def __post_init__(self) -> None:
        check_values(self)
        check(
            self.hidden_size is None or self.hidden_size % self.n_heads == 0,
            "n_heads",
            self.n_heads,
            f"a divisor of --hidden-size {self.hidden_size}",
        )
        check(
            self.max_epochs > 0 or self.blend != "none",
            "max_epochs",
            self.max_epochs,
            "1 or more with --blend none, which leaves only the encoder",
        )


@dataclass(frozen=True)
class EncoderShape:
    """The shape of an encoder, every size set; the fields are those of TrainingConfig."""

    objective: Objective
    max_len: int
    hidden_size: int
    n_layers: int
    n_heads: int
    dropout: float

    def __str__(self) -> str:
        return (
            f"{self.objective} encoder, {self.n_layers} layers of {self.hidden_size} hidden and {self.n_heads} heads, "
            f"newest {self.max_len} events"
        )
