"""The options of evaluate, in addition to those of train."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from batchrec.config.options import MAX_DAYS, Exclusive, check, check_values, option


@dataclass(frozen=True)
class EvaluationConfig:
    """Options of `evaluate`, in addition to those of the training."""

    protocol: Literal["leave-one-out", "temporal", "split"] = option(
        "leave-one-out",
        "Test on each user's last item, on the items after a point in time (temporal), or on those of --split FILE.",
    )
    cut: str | None = option(None, "temporal: time from which events are test events, as an ISO date or time (UTC).")
    test_days: float | None = option(
        None,
        "temporal: days at the end of the log to test on, without --cut. Default: 7.",
        minimum=Exclusive(0),
        maximum=MAX_DAYS,
    )
    question: Literal["next", "all"] = option(
        "all",
        "temporal and split: test on the next item of each user, or on all items after the cut. leave-one-out always "
        "tests on the next item.",
    )
    split: str | None = option(
        None,
        "split: the test items: a file, the URL of a table or a .sql file, with user_id and item_id.",
    )
    recs: tuple[str, ...] = option(
        (),
        "Recommendations to compare as one more method: a file, the URL of a table or a .sql file, with user_id, "
        "item_id and rank. Repeat for more tables.",
    )
    no_model: bool = option(False, "Train no model: compare only the simple methods and --recs.")
    top_k: int = option(10, "Recommendations per user: the k of the metrics.", minimum=1)
    keep_seen: bool = option(False, "Also recommend, and test on, items of the user's history.")
    test_users: int | None = option(None, "Number of users to test, drawn at random. Default: all.", minimum=1)
    popular_days: int = option(
        30,
        "Days at the end of the training part that count for recent popularity; 7 days are always measured too.",
        minimum=1,
        maximum=MAX_DAYS,
    )
    als_factors: int = option(64, "Factors of implicit ALS, if batchrec[als] is installed.", minimum=1)
    n_resamples: int = option(
        1000, "Bootstrap resamples of the users, for the 95 % intervals.", minimum=100, maximum=100_000
    )

    def __post_init__(self) -> None:
        check_values(self)
        if self.cut is not None:
            check(self.test_days is None, "test_days", self.test_days, "--cut or --test-days, not both")
            check(_is_time(self.cut), "cut", self.cut, "an ISO date or time like 2024-06-01 or 2024-06-01T12:00:00")
        if self.protocol != "temporal":
            for name in ("cut", "test_days"):
                value = getattr(self, name)
                check(value is None, name, value, "--protocol temporal with it")
        if self.protocol == "split":
            check(self.split is not None, "protocol", self.protocol, "--split FILE with it")
        else:
            check(self.split is None, "split", self.split, "--protocol split with it")
        for file in self.recs:
            check(self.recs.count(file) == 1, "recs", file, "each table once")

    @property
    def is_next_only(self) -> bool:
        """Whether only the next item of each user is tested."""
        return self.question == "next" or self.protocol == "leave-one-out"

    @property
    def cut_time(self) -> int | None:
        """The first whole second of the test, in Unix seconds; None without --cut."""
        if self.cut is None:
            return None
        cut = datetime.fromisoformat(self.cut)
        return math.ceil((cut if cut.tzinfo else cut.replace(tzinfo=UTC)).timestamp())


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
