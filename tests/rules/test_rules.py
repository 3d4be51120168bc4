from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.config import ScoringConfig
from batchrec.scoring.report import ScoringReport
from batchrec.scoring.score import score
from tests.scoring.test_score import Row, recs_of
from tests.support.models import examples, write_sequences
from tests.support.plain_rules import ITEMS, Night, expected, model, scores_after, write_table

pytestmark = pytest.mark.usefixtures("one_duckdb")

NEW = [7, 8]
Histories = Mapping[int, Sequence[int]]
# Two users with known items, a cold user, and a user who has seen nearly every item.
HISTORIES: Histories = {1: ITEMS[:6], 2: [ITEMS[9], 7, ITEMS[3]], 3: [7], 4: ITEMS[2:]}


def run(
    folder: Path, night: Night, histories: Histories = HISTORIES, **options: Any
) -> tuple[dict[int, list[Row]], ScoringReport]:
    sequences = write_sequences(folder / "sequences.parquet", histories)
    config = ScoringConfig(device="cpu", **{**night.options(folder), **options})
    report = score(sequences, model(), config, folder / "recs.parquet")
    return {int(user): rows for user, rows in recs_of(folder / "recs.parquet").items()}, report


def assert_as_by_hand(night: Night, histories: Histories = HISTORIES, **options: Any) -> dict[int, list[Row]]:
    """Compare every user's list with the plain loop's, and check that all users are counted."""
    with TemporaryDirectory() as folder:
        recs, report = run(Path(folder), night, histories, **options)
    for user in histories:
        by_hand, rows = expected(user, histories, night), recs.get(user, [])
        assert [(row["item_id"], row["source"]) for row in rows] == [(item, source) for item, _, source in by_hand]
        assert [row["score"] for row in rows] == pytest.approx([score for _, score, _ in by_hand], abs=1e-4)
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    with_list = report.users_by_model + report.users_by_popularity
    assert with_list == len(recs)
    assert report.users == len(histories) == with_list + report.users_skipped_all_seen + sum(report.emptied_by.values())
    return recs


def items(rows: Sequence[Row]) -> list[int]:
    return [row["item_id"] for row in rows]


def test_only_allowed_items_are_recommended() -> None:
    recs = assert_as_by_hand(Night(allow=[*ITEMS[8:14], 999]))
    assert set(items(recs[1])) <= set(ITEMS[8:14])
    assert len(recs[1]) == 5


def test_blocked_items_are_not_recommended() -> None:
    first = assert_as_by_hand(Night())[1]
    recs = assert_as_by_hand(Night(block=[first[0]["item_id"], first[2]["item_id"]]))
    assert items(recs[1])[:3] == [items(first)[1], items(first)[3], items(first)[4]]
    assert len(recs[1]) == 5


def test_items_blocked_for_a_user_are_not_recommended_to_the_user() -> None:
    before = assert_as_by_hand(Night())
    recs = assert_as_by_hand(Night(block_for_user={1: [before[1][0]["item_id"]], 3: [before[3][0]["item_id"]]}))
    assert items(recs[1])[0] == items(before[1])[1]
    assert items(recs[3])[0] == items(before[3])[1]
    assert recs[2] == before[2]


def test_lists_hold_only_candidates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    night = Night(candidates={1: [*ITEMS[:9], 8, 999], 3: [ITEMS[30], 7, 8, ITEMS[4]], 77: [1000]}, top_k=3)
    recs = assert_as_by_hand(night)
    assert {user: set(items(rows)) for user, rows in recs.items()} == {1: set(ITEMS[6:9]), 3: {ITEMS[30], ITEMS[4]}}
    assert run(tmp_path, night)[1].emptied_by == {"--candidates": 2}
    assert "have no list" not in caplog.text


def test_lists_hold_no_more_than_the_maximum_per_category() -> None:
    categories = dict.fromkeys(ITEMS[:35], "drama") | {ITEMS[36]: "war"}
    recs = assert_as_by_hand(Night(categories=categories, max_per_category=2, top_k=6))
    for rows in (recs[1], recs[2], recs[3]):
        assert len([row for row in rows if categories.get(row["item_id"]) == "drama"]) == 2
        assert len(rows) == 6


def test_a_strict_category_cap_is_filled_from_the_whole_catalogue() -> None:
    scores = scores_after(HISTORIES[1], Night())
    worst = sorted((item for item in ITEMS if item not in HISTORIES[1]), key=scores.__getitem__)[:2]
    categories = {item: "all" for item in ITEMS if item not in worst}
    recs = assert_as_by_hand(Night(categories=categories, max_per_category=1, top_k=3))
    assert items(recs[1])[1:] == worst[::-1]


def test_a_boost_multiplies_the_odds_of_an_item() -> None:
    before = assert_as_by_hand(Night(top_k=34))[1]
    last = before[-1]["item_id"]
    recs = assert_as_by_hand(Night(top_k=34, boost={last: 1e6, before[0]["item_id"]: 0.5}))
    scores = {row["item_id"]: row["score"] for row in recs[1]}
    assert scores[last] == pytest.approx(before[-1]["score"] + 13.8155, abs=1e-3)
    assert scores[before[0]["item_id"]] == pytest.approx(before[0]["score"] - 0.6931, abs=1e-3)


def test_a_boosted_new_item_rises_among_popular_items() -> None:
    histories = {1: [ITEMS[0], 8], 2: [ITEMS[0], ITEMS[1]], 3: []}
    assert items(assert_as_by_hand(Night(), histories)[3])[0] == ITEMS[0]
    rows = assert_as_by_hand(Night(boost={8: 2.5}), histories)[3]
    assert (rows[0]["item_id"], rows[0]["score"]) == (8, 2.5)


def test_a_pin_is_at_its_rank_in_every_list() -> None:
    recs = assert_as_by_hand(Night(pins={ITEMS[20]: 2, 55: 4, 7: 5}))
    for user in (1, 2, 3):
        assert (recs[user][1]["item_id"], recs[user][3]["item_id"]) == (ITEMS[20], 55)
    # Users 2 and 3 have seen it.
    assert [recs[user][4]["item_id"] == 7 for user in (1, 2, 3)] == [True, False, False]
    assert recs[1][4]["source"] == "pinned"
    assert recs[1][4]["score"] == 0


def test_a_list_of_only_pins_closes_up() -> None:
    recs = assert_as_by_hand(Night(pins={55: 5, 56: 3}, top_k=6))
    assert items(recs[4])[2:] == [56, 55]
    recs = assert_as_by_hand(Night(pins={55: 5, ITEMS[0]: 3}, allow=[55, ITEMS[0]]))
    assert items(recs[2]) == [ITEMS[0], 55]
    assert items(recs[1]) == [55]


def test_a_pin_counts_in_its_category() -> None:
    categories = dict.fromkeys(ITEMS, "drama")
    night = Night(pins={ITEMS[20]: 2, ITEMS[21]: 1, ITEMS[22]: 3}, categories=categories, max_per_category=2)
    recs = assert_as_by_hand(night)
    assert items(recs[1]) == [ITEMS[21], ITEMS[20]]


def test_unlike_items_follow_one_another() -> None:
    plain = assert_as_by_hand(Night(top_k=8))
    recs = assert_as_by_hand(Night(top_k=8, diversity=0.5))
    assert items(recs[1]) != items(plain[1])
    assert items(recs[1])[0] == items(plain[1])[0]
    assert recs[3] == plain[3]


@pytest.mark.parametrize(
    ("rows", "n_blocked"),
    [
        ([(1001, "", "")], 1),
        ([(1001, r"\N", "NULL")], 1),
        ([(1001, "2024-06-01", "2024-06-01")], 1),
        ([(1001, "2024-06-02", "")], 0),
        ([(1001, "", "2024-05-31")], 0),
        ([(1001, "2024-06-01T23:59:59", "2024-06-01 00:00:00")], 1),
        ([(1001, "2024-06-01 23:59:59 UTC", "2024-06-01 00:00:00GMT")], 1),
        ([(1001, "2024-06-01T23:30:00-02:00", "")], 0),
        ([(1001, "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-05:00")], 1),
        ([(1001, "2023-01-01", "2023-02-01"), (1001, "2024-01-01", "2024-07-01")], 1),
    ],
)
def test_a_rule_is_valid_on_its_days(rows: list[tuple[object, ...]], n_blocked: int, tmp_path: Path) -> None:
    table = write_table(tmp_path / "days.csv", "item_id,valid_from,valid_to", rows)
    recs, _ = run(tmp_path, Night(), {1: [1000]}, top_k=39, run_date="2024-06-01", block=str(table))
    assert (1001 not in items(recs[1])) == bool(n_blocked)
    assert len(recs[1]) == 39 - n_blocked
    recs, report = run(tmp_path, Night(), {1: [1000]}, run_date="2024-06-01", allow=str(table))
    assert items(recs.get(1, [])) == [1001] * n_blocked
    assert report.emptied_by == ({} if n_blocked else {"--allow": 1})


def test_rules_may_be_a_query(tmp_path: Path) -> None:
    write_table(tmp_path / "stock.csv", "sku,n_left", [(item, item % 2) for item in ITEMS])
    query = tmp_path / "allow.sql"
    query.write_text(
        f"from '{tmp_path}/stock.csv' select sku as item_id, date '2020-01-01' as valid_from where n_left > 0;"
    )
    recs, _ = run(tmp_path, Night(), allow=str(query))
    assert all(item % 2 for rows in recs.values() for item in items(rows))
    assert len(recs[1]) == 5


def test_queries_of_several_rules_may_attach_the_same_database(tmp_path: Path) -> None:
    stock = tmp_path / "stock.duckdb"
    with duckdb.connect(stock) as con:
        con.execute("create table items as select unnest(?) as sku, sku % 2 as n_left", [list(ITEMS)])
    for name, wanted in (("allow", "n_left > 0"), ("block", f"sku = {ITEMS[13]}")):
        (tmp_path / f"{name}.sql").write_text(
            f"attach '{stock}' as shop (read_only); from shop.items select sku as item_id where {wanted}"
        )
    recs, _ = run(tmp_path, Night(), allow=str(tmp_path / "allow.sql"), block=str(tmp_path / "block.sql"))
    recommended = {item for rows in recs.values() for item in items(rows)}
    assert recommended
    assert recommended <= {item for item in ITEMS if item % 2} - {ITEMS[13]}


SEGMENTS = {1: "north", 2: "south", 4: "north"}


def test_a_block_for_a_segment_only_concerns_its_users() -> None:
    plain = assert_as_by_hand(Night(segments=SEGMENTS))
    first = {user: items(rows)[0] for user, rows in plain.items()}
    recs = assert_as_by_hand(Night(segments=SEGMENTS, block_in={"north": [first[1], first[2], first[3]]}))
    assert items(recs[1])[:4] == items(plain[1])[1:]
    # User 2 is in another segment, user 3 in none.
    assert (items(recs[2]), items(recs[3])) == (items(plain[2]), items(plain[3]))


def test_users_without_a_segment_get_only_items_allowed_to_all(tmp_path: Path) -> None:
    night = Night(segments=SEGMENTS, allow_in={"north": ITEMS[:12], "south": ITEMS[20:26]})
    recs = assert_as_by_hand(night)
    assert set(items(recs[1])) <= set(ITEMS[6:12])
    assert set(items(recs[2])) <= set(ITEMS[20:26])
    assert set(recs) == {1, 2, 4}
    assert run(tmp_path, night)[1].emptied_by == {"--allow": 1}
    recs = assert_as_by_hand(replace(night, allow=[ITEMS[30]]))
    assert items(recs[3]) == [ITEMS[30]]
    assert ITEMS[30] in {item for user in (1, 2) for item in items(recs[user])}


def test_users_get_all_of_their_segments_few_items() -> None:
    scores = scores_after(HISTORIES[1], Night())
    worst = sorted((item for item in ITEMS if item not in HISTORIES[1]), key=scores.__getitem__)[:3]
    recs = assert_as_by_hand(
        Night(segments=SEGMENTS, allow=[], allow_in={"north": worst, "south": ITEMS[:35]}, top_k=4)
    )
    assert items(recs[1]) == worst[::-1]


def test_each_rule_that_empties_a_list_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    histories = {1: ITEMS, 2: ITEMS[:39], 3: ITEMS[:38], 4: ITEMS[:37], 5: ITEMS[:36], 6: ITEMS[:30], 7: []}
    allow, block = [*ITEMS[:39], 8], [ITEMS[38], 8]
    night = Night(allow=allow, block=block, block_for_user={4: [ITEMS[37]]}, candidates={6: [ITEMS[31]], 5: [ITEMS[3]]})
    recs, report = run(tmp_path, night, histories)
    assert set(recs) == {6}
    assert report.users_skipped_all_seen == 1
    assert report.emptied_by == {"--allow": 1, "--block": 1, "--block-for-user": 1, "--candidates": 2}
    assert "5 of 7 users have no list, because of --allow, --block" in caplog.text
    assert_as_by_hand(night, histories)


some_items = st.lists(st.sampled_from([*ITEMS, *NEW]), max_size=25)
# A model that knows no item of the log is refused.
logs = st.lists(some_items, min_size=6, max_size=6).filter(
    lambda lists: not any(lists) or any(item in ITEMS for history in lists for item in history)
)
few_items = st.lists(st.sampled_from([*ITEMS, *NEW, 55]), max_size=6, unique=True)
users = st.integers(0, 5)
# No user is in the west.
lists_by_segment = st.dictionaries(
    st.sampled_from(["north", "south", "west"]), st.lists(st.sampled_from([*ITEMS, *NEW, 55]), min_size=1), max_size=2
)
nights = st.builds(
    Night,
    top_k=st.integers(1, 12),
    keep_seen=st.booleans(),
    allow=st.none() | st.lists(st.sampled_from([*ITEMS, *NEW, 55]), min_size=1, max_size=30, unique=True),
    block=few_items,
    block_for_user=st.dictionaries(users, few_items, max_size=3),
    candidates=st.none() | st.dictionaries(users, some_items.filter(bool), min_size=1, max_size=6),
    boost=st.dictionaries(st.sampled_from([*ITEMS, 7]), st.sampled_from([0.01, 0.5, 3.0, 1000.0]), max_size=5),
    # A catalogue without categories is refused: test_rule_files.py.
    categories=st.fixed_dictionaries({item: st.sampled_from(["", "a", "b", "c"]) for item in [*ITEMS, 7]}).filter(
        lambda categories: any(categories.values())
    ),
    max_per_category=st.none() | st.integers(1, 3),
    segments=st.dictionaries(users, st.sampled_from(["north", "south"]), max_size=6),
    allow_in=lists_by_segment,
    block_in=lists_by_segment,
)


@settings(max_examples=examples(60))
@given(logs, nights, st.data(), st.integers(1, 8))
def test_any_rules_equal_a_plain_loop_over_the_catalogue(
    lists: list[list[int]], night: Night, data: st.DataObject, chunk_size: int
) -> None:
    pinned = data.draw(few_items)[: night.top_k]
    positions = data.draw(st.permutations(range(1, night.top_k + 1)))
    night = replace(night, pins=dict(zip(pinned, positions, strict=False)))
    assert_as_by_hand(night, dict(enumerate(lists)), chunk_size=chunk_size)


@settings(max_examples=examples(20))
@given(logs, nights, st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_any_diversity_equals_a_plain_loop(lists: list[list[int]], night: Night, diversity: float) -> None:
    assert_as_by_hand(replace(night, diversity=diversity, pins={ITEMS[5]: 1}), dict(enumerate(lists)))
