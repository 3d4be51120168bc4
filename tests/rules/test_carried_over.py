from pathlib import Path
from typing import Any

import pytest

from tests.rules.test_rules import run
from tests.support.models import names_in
from tests.support.params import slow_except
from tests.support.plain_rules import ITEMS, Night, write_table

HISTORIES = {1: ITEMS[:6], 2: [ITEMS[9], 7, ITEMS[3]], 3: [], 4: ITEMS[20:30], 5: ITEMS[3:9], 6: [7]}
N_KNOWN = 4
RULES: dict[str, Any] = {
    "allow": ITEMS[4:35],
    "block": [ITEMS[12]],
    "block_for_user": {1: [ITEMS[8]]},
    "candidates": dict.fromkeys(HISTORIES, ITEMS),
    "boost": {ITEMS[11]: 2.0},
    "pins": {ITEMS[15]: 2, 55: 3},
    "categories": dict.fromkeys(ITEMS[:20], "a"),
    "max_per_category": 3,
    "diversity": 0.3,
}
OTHERS: dict[str, Any] = {
    "allow": ITEMS[4:34],
    "block": [],
    "block_for_user": {1: [ITEMS[8]], 2: [ITEMS[8]]},
    "candidates": dict.fromkeys(HISTORIES, ITEMS[1:]),
    "boost": {ITEMS[11]: 2.5},
    "pins": {ITEMS[15]: 1, 55: 3},
    "categories": dict.fromkeys(ITEMS[:21], "a"),
    "max_per_category": 2,
    "diversity": 0.4,
}


def test_unchanged_users_are_carried_over_if_the_rules_are_the_same(tmp_path: Path) -> None:
    night, previous = Night(**RULES), str(tmp_path / "recs.parquet")
    full, report = run(tmp_path, night, HISTORIES, previous=previous)
    assert report.users_carried_over == 0
    again, report = run(tmp_path, night, HISTORIES, previous=previous)
    # Cold users are not carried over.
    assert report.users_carried_over == N_KNOWN
    assert again == full
    changed = HISTORIES | {1: ITEMS[1:7], 3: [ITEMS[5]]}
    carried, report = run(tmp_path, night, changed, previous=previous)
    assert report.users_carried_over == N_KNOWN - 1
    scored, _ = run(tmp_path, night, changed)
    for user, rows in scored.items():
        assert [row["item_id"] for row in carried[user]] == [row["item_id"] for row in rows]


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The table of RULES."""
    folder = tmp_path_factory.mktemp("previous")
    run(folder, Night(**RULES), HISTORIES)
    return str(folder / "recs.parquet")


@pytest.mark.parametrize("rule", slow_except(OTHERS.keys(), "block", "candidates", "max_per_category"))
def test_all_users_are_scored_if_a_rule_changes(rule: str, previous: str, tmp_path: Path) -> None:
    _, report = run(tmp_path, Night(**(RULES | {rule: OTHERS[rule]})), HISTORIES, previous=previous)
    assert report.users_carried_over == 0


@pytest.mark.slow
def test_all_users_are_scored_on_the_first_day_of_a_rule(tmp_path: Path) -> None:
    table = write_table(tmp_path / "days.csv", "item_id,valid_from", [(ITEMS[13], "2024-06-02"), (ITEMS[14], "")])
    carried = []
    for night in ("2024-05-30", "2024-06-01", "2024-06-02", "2024-06-03"):
        options = {"block": str(table), "run_date": night, "previous": str(tmp_path / "recs.parquet")}
        carried.append(run(tmp_path, Night(), HISTORIES, **options)[1].users_carried_over)
    assert carried == [0, N_KNOWN, 0, N_KNOWN]


def test_a_user_who_has_now_seen_a_new_pin_is_scored(tmp_path: Path) -> None:
    night, previous = Night(pins={55: 1}), str(tmp_path / "recs.parquet")
    run(tmp_path, night, HISTORIES)
    recs, report = run(tmp_path, night, HISTORIES | {1: [*ITEMS[:6], 55]}, previous=previous)
    assert report.users_carried_over == N_KNOWN - 1
    assert 55 not in [row["item_id"] for row in recs[1]]
    assert "recs.parquet" in names_in(tmp_path)


def test_all_users_are_scored_if_a_new_pin_is_replaced_by_another(tmp_path: Path) -> None:
    previous = str(tmp_path / "recs.parquet")
    run(tmp_path, Night(pins={55: 1}), HISTORIES)
    recs, report = run(tmp_path, Night(pins={56: 1}), HISTORIES, previous=previous)
    assert report.users_carried_over == 0
    assert recs[1][0]["item_id"] == 56
