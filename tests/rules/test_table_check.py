"""A table that breaks a rule is rules by SQL, independently of the scorer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig
from batchrec.errors import GateError
from batchrec.rules.known_ids import KnownIds
from batchrec.rules.rulebook import read_rule_tables
from batchrec.rules.table_check import BrokenRule, FinishedTable, check_rules
from batchrec.scoring.offer import Offer, read_offer
from tests.rules.test_rules import HISTORIES, run
from tests.support.models import write_sequences
from tests.support.plain_rules import ITEMS, Night

HISTORY = {1: [10], 2: [20, 30], 3: []}
# user, rank, item, source
RecsRow = tuple[int, int, int, str]


def recs_of(*lists: Sequence[int], pinned: Sequence[int] = ()) -> list[RecsRow]:
    """The lists of users 1, 2, ..., items in the order of their ranks."""
    return [
        (user, rank, item, "pinned" if item in pinned else "model")
        for user, items in enumerate(lists, 1)
        for rank, item in enumerate(items, 1)
    ]


def broken(folder: Path, rows: Sequence[RecsRow], night: Night, **options: Any) -> dict[str, tuple[int, str | None]]:
    """Write a table as if it were scored, and return the rules that it breaks, how often, and the first example."""
    names, types = ("user_id", "rank", "item_id", "source"), (pa.int64(), pa.int32(), pa.int64(), pa.string())
    columns = zip(*rows, strict=True)
    pq.write_table(pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names), folder / "r.parquet")
    sequences = write_sequences(folder / "s.parquet", HISTORY)
    config = ScoringConfig(**{**night.options(folder), "run_date": "2024-06-01", **options})
    rules = check_rules(FinishedTable(folder / "r.parquet", sequences), read_rule_tables(config), config)
    return {rule.rule: (rule.n_rows, rule.example) for rule in rules if rule.n_rows}


RECS = recs_of([40, 41, 42], [40, 43], [41, 43])
TABLES: dict[str, tuple[Night, dict[str, tuple[int, str]]]] = {
    "not allowed": (Night(allow=[40, 41, 43]), {"--allow": (1, "user '1', rank 3, item '42'")}),
    "blocked": (Night(block=[43]), {"--block": (2, "user '2', rank 2, item '43'")}),
    "blocked for a user": (
        Night(block_for_user={1: [41], 2: [41]}),
        {"--block-for-user": (1, "user '1', rank 2, item '41'")},
    ),
    "no candidate": (
        Night(candidates={1: [40, 41, 42], 3: [41]}),
        {"--candidates": (3, "user '2', rank 1, item '40'")},
    ),
    "a category too often": (
        Night(categories={40: "a", 41: "a", 42: "a", 43: "b"}, max_per_category=1),
        {"--max-per-category": (2, "user '1', rank 2, item '41'")},
    ),
    "blocked in a segment": (
        Night(segments={1: "dk", 2: "se"}, block_in={"dk": [40, 43], "se": [41]}),
        {"--block": (1, "user '1', rank 1, item '40'")},
    ),
    "not allowed in a segment": (
        Night(segments={1: "dk", 2: "se"}, allow=[41], allow_in={"dk": [40, 42], "se": [40, 42]}),
        {"--allow": (2, "user '2', rank 2, item '43'")},
    ),
}


@pytest.mark.parametrize(("night", "expected"), TABLES.values(), ids=TABLES.keys())
def test_each_row_that_breaks_a_rule_is_counted(
    night: Night, expected: dict[str, tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.plain_rules.ITEMS", [40, 41, 42, 43])
    assert broken(tmp_path, RECS, night) == expected


PINS = {40: 1, 50: 3}
PINNED: dict[str, tuple[list[RecsRow], Night, tuple[int, str] | None]] = {
    "at their ranks": (recs_of([40, 41, 50], [40, 43, 50], [40, 41, 50], pinned=[40, 50]), Night(pins=PINS), None),
    "closed up": (recs_of([40, 50], [40, 43, 50], [40, 41, 50], pinned=[40, 50]), Night(pins=PINS), None),
    "too low": (
        recs_of([40, 41, 50], [43, 40, 50], [40, 41, 50], pinned=[40, 50]),
        Night(pins=PINS),
        (2, "user '2', rank 1, item '40'"),
    ),
    "missing": (
        recs_of([40, 41, 50], [40, 43, 44], [40, 41, 50], pinned=[40, 50]),
        Night(pins=PINS),
        (1, "user '2', rank 3, item '50'"),
    ),
    "no list at all": (
        recs_of([40, 41, 50], [40, 41, 50], pinned=[40, 50]),
        Night(pins=PINS),
        (2, "user '3', rank 1, item '40'"),
    ),
    "not said to be pinned": (
        recs_of([40, 41, 50], [40, 43, 50], [40, 41, 50], pinned=[50]),
        Night(pins=PINS),
        (3, "user '1', rank 1, item '40'"),
    ),
    "of an item that is no pin": (
        recs_of([41, 40], [43], [41], pinned=[41]),
        Night(pins={41: 1}, candidates={1: [41, 40], 2: [43]}),
        (1, "user '3', rank 1, item '41'"),
    ),
    "passed over if seen": (recs_of([20, 41], [40, 41], [20, 41], pinned=[20]), Night(pins={20: 1}), None),
    "if seen, unless seen items are kept": (
        recs_of([20, 41], [40, 41], [20, 41], pinned=[20]),
        Night(pins={20: 1}, keep_seen=True),
        (1, "user '2', rank 1, item '20'"),
    ),
    "passed over if blocked": (
        recs_of([40, 41], [50, 40], [50, 41], pinned=[50]),
        Night(pins={50: 1}, block_for_user={1: [50]}, block=[51]),
        None,
    ),
    "passed over if the category is full": (
        recs_of([40, 42], [40, 42], [40, 42], pinned=[40, 42]),
        Night(pins={40: 1, 41: 2, 42: 3}, categories={40: "a", 41: "a"}, max_per_category=1),
        None,
    ),
    "passed over, though the category has room": (
        recs_of([40, 42], [40, 42], [40, 42], pinned=[40, 42]),
        Night(pins={40: 1, 41: 2, 42: 3}, categories={40: "a", 41: "a"}, max_per_category=2),
        # 41 is missing, and 42 is at its place.
        (9, "user '1', rank 2, item '41'"),
    ),
}


@pytest.mark.parametrize(("rows", "night", "expected"), PINNED.values(), ids=PINNED.keys())
def test_misplaced_pins_are_counted(
    rows: list[RecsRow],
    night: Night,
    expected: tuple[int, str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.support.plain_rules.ITEMS", [40, 41, 42, 43])
    rules = broken(tmp_path, rows, night, top_k=3)
    assert rules.pop("--pins", None) == expected
    assert set(rules) <= {"--candidates"}


def test_list_rows_only_count_on_their_days(tmp_path: Path) -> None:
    days = tmp_path / "days.csv"
    days.write_text("item_id,valid_from,valid_to\n40,2024-05-01,2024-06-01\n41,2024-06-02,\n43,,2024-05-31\n")
    assert broken(tmp_path, RECS, Night(), block=str(days)) == {"--block": (2, "user '1', rank 1, item '40'")}
    assert broken(tmp_path, RECS, Night(), allow=str(days)) == {"--allow": (5, "user '1', rank 2, item '41'")}


def test_a_table_scored_with_all_rules_breaks_none(tmp_path: Path) -> None:
    night = Night(
        allow=ITEMS[:30],
        block=ITEMS[:2],
        block_for_user={1: ITEMS[10:20]},
        candidates=dict.fromkeys(HISTORIES, ITEMS),
        pins={ITEMS[20]: 1},
        categories=dict.fromkeys(ITEMS, "a"),
        max_per_category=2,
        segments={1: "dk"},
        block_in={"dk": ITEMS[20:22]},
    )
    run(tmp_path, night)
    config = ScoringConfig(**night.options(tmp_path))
    finished = FinishedTable(tmp_path / "recs.parquet", tmp_path / "sequences.parquet")
    checked = check_rules(finished, read_rule_tables(config), config)
    rules = ["--allow", "--block", "--block-for-user", "--candidates", "--max-per-category", "--pins"]
    assert checked == [BrokenRule(rule, 0) for rule in rules]


def test_score_leaves_the_old_table_if_the_new_one_breaks_a_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, Night())
    before = (tmp_path / "recs.parquet").read_bytes()
    plain = pq.read_table(tmp_path / "recs.parquet")
    first = plain["item_id"][0].as_py()

    def forgetful(known: KnownIds, config: ScoringConfig, _: object) -> Offer:
        return read_offer(known, config, {})

    monkeypatch.setattr("batchrec.scoring.inputs.read_offer", forgetful)
    with pytest.raises(GateError, match=rf"rows break --block \(user '1', rank 1, item '{first}'\)"):
        run(tmp_path, Night(block=[first]))
    assert (tmp_path / "recs.parquet").read_bytes() == before
