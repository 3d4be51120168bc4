"""The options of tune, and the values that it tries."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchrec.config.options import MAX_SEED, Exclusive, check, check_values, option

# Option of train -> values to try, besides the default and the one that is set now.
SPACE: Mapping[str, tuple[Any, ...]] = {
    "hidden_size": (32, 64, 128, 256),
    "n_layers": (1, 2, 3),
    "dropout": (0.1, 0.2, 0.3, 0.4, 0.5),
    "learning_rate": (0.0003, 0.0005, 0.001, 0.002, 0.004),
    "max_len": (20, 50, 100, 200),
    "objective": ("causal", "masked"),
    "half_life": (30.0, 90.0, 365.0),
    "batch_size": (16, 32, 64, 128, 256),
    "weight_decay": (0.0, 0.01, 0.1),
    "negatives": (0, 1000, 3000, 10000),
}
_DEFAULT = ("hidden_size", "n_layers", "dropout", "learning_rate")
_OPTIONS, _DEFAULT_OPTIONS = (", ".join(name.replace("_", "-") for name in names) for names in (SPACE, _DEFAULT))


@dataclass(frozen=True)
class TuneConfig:
    """Options of `tune`."""

    search: tuple[str, ...] = option(
        (),
        f"Option of train to try values of: {_OPTIONS}. Repeat for more options. Default: {_DEFAULT_OPTIONS}.",
    )
    max_minutes: float = option(
        60.0, "Maximum time of all trials in minutes. The epoch in progress is finished.", minimum=Exclusive(0)
    )
    trial_minutes: float | None = option(
        None,
        "Maximum time of a trial in minutes. The epoch in progress is finished. Default: a tenth of --max-minutes.",
        minimum=Exclusive(0),
    )
    max_trials: int = option(50, "Maximum number of trials, the first of which changes nothing.", minimum=1)
    seed: int = option(
        0, "Random seed of the search. The trainings use the seed of train.", minimum=0, maximum=MAX_SEED
    )

    def __post_init__(self) -> None:
        check_values(self)
        for name in self.search:
            known = name.replace("-", "_") in SPACE
            check(known, "search", name, f"one of {_OPTIONS}")

    @property
    def searched(self) -> tuple[str, ...]:
        """The fields of TrainingConfig to try values of, each once."""
        names = [name.replace("-", "_") for name in self.search] or _DEFAULT
        return tuple(dict.fromkeys(names))

    @property
    def seconds_per_trial(self) -> float:
        """The maximum time of a trial."""
        return 60 * (self.max_minutes / 10 if self.trial_minutes is None else self.trial_minutes)
