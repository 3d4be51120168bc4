"""The options of evaluate, beside those of train."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from batchrec.config.options import check, check_at_least, check_finite, option

# As many as any log spans; more would not fit into seconds.
_MOST_DAYS = 1_000_000


@dataclass(frozen=True)
class EvaluationConfig:
    """Options of `evaluate`, beside those of the training."""

    protocol: Literal["leave-one-out", "temporal"] = option(
        "leave-one-out", "Test on each user's last item, or on all that comes after a moment."
    )
    cut: str | None = option(None, "temporal: the moment from which on events are the test, an ISO date or time (UTC).")
    test_days: float | None = option(
        None, "temporal: days at the end of the log to test on, without --cut; 7 if not given."
    )
    top_k: int = option(10, "Recommendations for each user, the k of the metrics.")
    keep_seen: bool = option(False, "Recommend, and test on, items of the user's history too.")
    test_users: int | None = option(None, "Test a random sample of that many users; all if not given.")
    popular_days: int = option(30, "Days at the end of the training part that the newer popularity looks at.")
    als_factors: int = option(64, "Factors of implicit ALS, where batchrec[als] is installed.")
    n_resamples: int = option(1000, "Bootstrap resamples of the users, for the 95 % intervals.")

    def __post_init__(self) -> None:
        check_finite(self)
        check_at_least(self, 1, "top_k", "test_users", "popular_days", "als_factors")
        check_at_least(self, 100, "n_resamples")
        check(self.popular_days <= _MOST_DAYS, "popular_days", self.popular_days, f"{_MOST_DAYS} or less")
        check(
            self.test_days is None or 0 < self.test_days <= _MOST_DAYS,
            "test_days",
            self.test_days,
            f"more than 0, and {_MOST_DAYS} or less",
        )
        if self.cut is not None:
            check(self.test_days is None, "test_days", self.test_days, "--cut or --test-days, not both")
            check(_is_moment(self.cut), "cut", self.cut, "an ISO date or time like 2024-06-01 or 2024-06-01T12:00:00")
        if self.protocol != "temporal":
            for name in ("cut", "test_days"):
                value = getattr(self, name)
                check(value is None, name, value, "--protocol temporal with it")

    @property
    def cut_time(self) -> int | None:
        """Give the cut as the first whole second of the test, in Unix seconds; None where there is no --cut."""
        if self.cut is None:
            return None
        moment = datetime.fromisoformat(self.cut)
        return math.ceil((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
