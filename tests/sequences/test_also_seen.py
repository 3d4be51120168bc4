"""Items that a filter leaves out of a history still count as seen: no list recommends them to that user."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrec.config import EvaluationConfig, ScoringConfig, SequencesConfig
from batchrec.errors import InputError
from batchrec.evaluation.splits import split_sequences
from batchrec.model.batching import Histories, history_digests
from batchrec.model.directory import load_model
from batchrec.nightly.gates.output import measure_table
from batchrec.scoring.report import ScoringReport
from batchrec.scoring.score import score
from batchrec.sequences.build import build_sequences
from batchrec.tables.queries import connect
from batchrec.tables.sequences_table import open_sequences
from batchrec.training.train import train
from tests.scoring.test_score import Row, recs_of
from tests.support.models import CONFIG, indexed, training_histories, write_sequences
from tests.support.plain_rules import ITEMS, Night, model, write_table

Users = Mapping[int, Sequence[int]]
# Users 1, 2 and 5 have items that the model knows, user 3 has only a new item, user 4 has an empty history.
HISTORIES: Users = {1: ITEMS[:6], 2: [ITEMS[9], 7, ITEMS[3]], 3: [7], 4: [], 5: ITEMS[20:23]}
ALSO_SEEN: Users = {1: ITEMS[6:30], 2: [ITEMS[30], 8], 3: [ITEMS[0], ITEMS[1], 9], 4: [7, *ITEMS[:3]]}


def log_of(folder: Path, *rows: tuple[object, object, float, int]) -> str:
    return str(write_table(folder / "ratings.csv", "userId,movieId,rating,timestamp", rows))


def built(folder: Path, *rows: tuple[object, object, float, int], **options: Any) -> dict[Any, tuple[Any, Any]]:
    """Return each user's history and also_seen."""
    build_sequences(
        [log_of(folder, *rows)], SequencesConfig(timestamp_unit="s", **options), folder / "sequences.parquet"
    )
    table = pq.read_table(folder / "sequences.parquet").to_pylist()
    return {row["user_id"]: (row["item_ids"], row["also_seen"]) for row in table}


PLAYS = [
    (1, 10, 5.0, 1),
    (1, 11, 1.0, 2),
    (1, 12, 1.0, 3),
    (1, 12, 4.0, 4),
    (2, 10, 4.0, 1),
    (2, 11, 2.0, 2),
    (3, 9, 1, 1),
]


def test_an_item_with_only_low_ratings_counts_as_seen_but_is_in_no_history(tmp_path: Path) -> None:
    # User 1 has rated 12 low, then well: it is in the history and not in also_seen.
    assert built(tmp_path, *PLAYS, min_rating=3.0) == {1: ([10, 12], [11]), 2: ([10], [11]), 3: ([], [9])}


def test_seen_kept_drops_left_out_events_and_users_without_others(tmp_path: Path) -> None:
    assert built(tmp_path, *PLAYS, min_rating=3.0, seen="kept") == {1: ([10, 12], []), 2: ([10], [])}
    assert built(tmp_path, *PLAYS, min_item_events=2, seen="kept") == {
        1: ([10, 11], []),
        2: ([10, 11], []),
    }


def test_a_rare_item_is_seen(tmp_path: Path) -> None:
    rows = [(1, 10, 5.0, 1), (2, 10, 5.0, 1), (2, 11, 5.0, 2), (3, 12, 5.0, 1)]
    assert built(tmp_path, *rows, min_item_events=2) == {1: ([10], []), 2: ([10], [11]), 3: ([], [12])}


def test_users_with_too_few_events_have_no_row(tmp_path: Path) -> None:
    assert built(tmp_path, *PLAYS, min_rating=3.0, min_user_events=2) == {1: ([10, 12], [11])}


def test_without_filters_also_seen_is_empty(tmp_path: Path) -> None:
    assert built(tmp_path, *PLAYS) == {1: ([10, 11, 12], []), 2: ([10, 11], []), 3: ([9], [])}
    field = pq.read_schema(tmp_path / "sequences.parquet").field("also_seen")
    assert (field.type, field.nullable) == (pa.list_(pa.int64()), False)


def test_also_seen_text_ids_are_sorted_and_stay_text(tmp_path: Path) -> None:
    rows = [(1, "good", 5.0, 1), (1, "d", 1.0, 2), (1, "ü", 1.0, 3), (1, "b", 1.0, 4), (1, "d", 1.0, 5)]
    assert built(tmp_path, *rows, min_rating=3.0) == {1: (["good"], ["b", "d", "ü"])}


def scored(
    folder: Path, night: Night, also_seen: Users | None, **options: Any
) -> tuple[dict[Any, list[Row]], ScoringReport]:
    sequences = write_sequences(folder / "sequences.parquet", HISTORIES, also_seen=also_seen)
    config = ScoringConfig(device="cpu", **{**night.options(folder), **options})
    report = score(sequences, model(), config, folder / "recs.parquet")
    rows = recs_of(folder / "recs.parquet")
    return {user: [{**row, "history_digest": None} for row in lists] for user, lists in rows.items()}, report


NIGHTS = {
    "no rules": Night(),
    "pins": Night(pins={ITEMS[6]: 1, 8: 2, ITEMS[33]: 4}),
    "candidates": Night(candidates={1: [*ITEMS[4:9], ITEMS[31]], 2: [8, ITEMS[30], ITEMS[11]], 3: [9, 7, ITEMS[1]]}),
    "caps": Night(categories=dict.fromkeys(ITEMS[:35], "drama"), max_per_category=2),
    "unlike items": Night(diversity=0.5),
    "segments": Night(segments={3: "a", 4: "a", 1: "a"}),
    "allowed": Night(allow=[*ITEMS[6:9], ITEMS[34], 7]),
    "whole catalogue": Night(top_k=len(ITEMS)),
}


@pytest.mark.parametrize("night", NIGHTS.values(), ids=NIGHTS.keys())
def test_also_seen_items_are_excluded_like_items_blocked_for_the_user(night: Night, tmp_path: Path) -> None:
    recs, report = scored(tmp_path, night, ALSO_SEEN)
    blocked, other = scored(tmp_path, replace(night, block_for_user=ALSO_SEEN), None)
    assert recs == blocked
    assert report.rows == other.rows > 0
    for user, items in ALSO_SEEN.items():
        assert not {row["item_id"] for row in recs.get(user, [])} & set(items)
    without, _ = scored(tmp_path, night, None)
    assert recs != without
    assert recs.get(5) == without.get(5)


def test_keep_seen_allows_also_seen_items(tmp_path: Path) -> None:
    night = Night(keep_seen=True, pins={8: 2})
    assert scored(tmp_path, night, ALSO_SEEN)[0] == scored(tmp_path, night, None)[0]


def test_users_who_have_seen_every_item_are_skipped(tmp_path: Path) -> None:
    also_seen = {1: ITEMS[6:], 4: [*ITEMS, 7]}
    recs, report = scored(tmp_path, Night(), also_seen)
    assert set(recs) == {2, 3, 5}
    assert (report.users, report.users_skipped_all_seen) == (5, 2)
    _, report = scored(tmp_path, Night(block=[ITEMS[0]]), also_seen)
    assert (report.users_skipped_all_seen, report.emptied_by) == (2, {})


def test_users_with_only_low_ratings_get_unseen_popular_items(tmp_path: Path) -> None:
    rows = [(user, item, 5.0, item) for user in (1, 2) for item in ITEMS[:5]]
    rows += [(1, ITEMS[10], 1.0, 9), *((3, item, 1.0, 9) for item in ITEMS[:2])]
    built(tmp_path, *rows, min_rating=3.0)
    config = ScoringConfig(device="cpu", top_k=len(ITEMS))
    report = score(tmp_path / "sequences.parquet", model(), config, tmp_path / "recs.parquet")
    recs = {user: [row["item_id"] for row in rows] for user, rows in recs_of(tmp_path / "recs.parquet").items()}
    assert set(recs[1]) == set(ITEMS[5:]) - {ITEMS[10]}
    assert set(recs[2]) == set(ITEMS[5:])
    # The three items with most events that user 3 has not seen.
    assert recs[3][:3] == ITEMS[2:5]
    assert (report.users, report.users_by_model, report.users_by_popularity) == (3, 2, 1)


# Contract


@pytest.mark.parametrize(
    "column", [None, pa.array([[]] * 5), pa.array([[]] * 5, pa.large_list(pa.int32()))], ids=["none", "null", "large"]
)
def test_a_table_without_also_seen_is_read_as_empty_lists(column: pa.Array | None, tmp_path: Path) -> None:
    path = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    if column is not None:
        pq.write_table(pq.read_table(path).append_column("also_seen", column), path)
    batch = next(open_sequences(path).batches(10))
    assert batch["also_seen"].to_pylist() == [[]] * 5
    assert batch["also_seen"].type == pa.list_(pa.int64())


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1] * 5), "column 'also_seen' is int64; expected a list of int64"),
        (pa.array([["7"]] * 5), "string>; expected a list of int64, like 'item_ids'"),
        (pa.array([[7], None, [], [], []]), "1 null(s) in column 'also_seen'; expected none"),
        (pa.array([[7], [None], [None], [], []], pa.list_(pa.int64())), "2 null(s) in column 'also_seen'"),
        (pa.array([[0.5]] * 5), "column 'also_seen' is double; expected int64 or string"),
    ],
    ids=["no list", "text", "null", "nulls within", "decimals"],
)
def test_an_also_seen_column_of_another_type_is_refused(column: pa.Array, message: str, tmp_path: Path) -> None:
    path = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    pq.write_table(pq.read_table(path).append_column("also_seen", column), path)
    with pytest.raises(InputError) as raised:
        list(open_sequences(path).batches(10))
    assert message in str(raised.value)


def test_the_tables_name_their_contract(tmp_path: Path) -> None:
    built(tmp_path, *PLAYS)
    assert pq.read_schema(tmp_path / "sequences.parquet").metadata[b"batchrec.contract"] == b"sequences/2"


# --previous

known = st.lists(st.integers(2, 5), max_size=4)


@given(known, known, known, known)
def test_digests_distinguish_also_seen_from_the_history(
    one: list[int], also_seen: list[int], other: list[int], other_also_seen: list[int]
) -> None:
    first, second = history_digests(indexed(one, other), indexed(also_seen, other_also_seen)).tolist()
    assert (first == second) == ((one, also_seen) == (other, other_also_seen))
    # Empty also_seen does not change the digest.
    assert history_digests(indexed(one), indexed([])).tolist() == history_digests(indexed(one)).tolist()


@given(st.lists(st.tuples(known, known), min_size=1, max_size=5))
def test_seen_items_are_the_history_then_also_seen_per_user(users: list[tuple[list[int], list[int]]]) -> None:
    both = indexed(*(own for own, _ in users)).followed_by(indexed(*(others for _, others in users)))
    expected: Histories = indexed(*(own + others for own, others in users))
    assert both.items.tolist() == expected.items.tolist()
    assert both.offsets.tolist() == expected.offsets.tolist()


@pytest.mark.slow
def test_users_who_have_seen_more_since_last_night_are_scored_again(tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.parquet"

    def carried(also_seen: Users | None) -> int:
        recs, report = scored(tmp_path, Night(), also_seen, previous=str(earlier))
        assert recs == scored(tmp_path, Night(), also_seen)[0]
        return report.users_carried_over

    scored(tmp_path, Night(), None)
    (tmp_path / "recs.parquet").rename(earlier)
    # The model knows items of users 1, 2 and 5; an item that it does not know changes nothing for them.
    assert carried({}) == carried(None) == 3
    assert carried({1: [ITEMS[30]]}) == 2
    assert carried({1: [999], 2: [998]}) == 3
    scored(tmp_path, Night(), ALSO_SEEN)
    (tmp_path / "recs.parquet").replace(earlier)
    assert carried(ALSO_SEEN) == 3
    assert carried({**ALSO_SEEN, 2: [*ALSO_SEEN[2], ITEMS[12]]}) == 2
    assert carried(None) == 1


def test_a_killed_scoring_does_not_resume_if_also_seen_has_changed(tmp_path: Path) -> None:
    config = ScoringConfig(device="cpu")
    for also_seen in (None, ALSO_SEEN):
        sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES, also_seen=also_seen)
        score(sequences, model(), config, tmp_path / "recs.parquet", tmp_path / "progress")
    recs = pq.read_table(tmp_path / "recs.parquet")
    score(sequences, model(), config, tmp_path / "recs.parquet")
    assert recs.equals(pq.read_table(tmp_path / "recs.parquet"))


# The gate, the figures, the training


def test_the_gate_counts_seen_items_independently(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    config = ScoringConfig(device="cpu", top_k=len(ITEMS))
    score(sequences, model(), config, tmp_path / "recs.parquet")

    def n_seen(also_seen: Users | None, keep_seen: bool = False) -> int:
        write_sequences(sequences, HISTORIES, also_seen=also_seen)
        figures = measure_table(tmp_path / "recs.parquet", sequences, None, replace(config, keep_seen=keep_seen))
        return figures.faults["seen_items"]

    assert n_seen(None) == 0
    # 25 of these are in the model's lists; the popular lists of users 3 and 4 have five, and the new item 7.
    rows = {(user, row["item_id"]) for user, lists in recs_of(tmp_path / "recs.parquet").items() for row in lists}
    expected = len({(user, item) for user, items in ALSO_SEEN.items() for item in items} & rows)
    assert n_seen(ALSO_SEEN) == expected > 24
    assert n_seen(ALSO_SEEN, keep_seen=True) == 0
    score(sequences, model(), config, tmp_path / "recs.parquet")
    assert n_seen(ALSO_SEEN) == 0


@pytest.mark.parametrize("protocol", ["leave-one-out", "temporal"])
def test_an_evaluation_ignores_also_seen(protocol: Literal["leave-one-out", "temporal"], tmp_path: Path) -> None:
    also_seen = dict.fromkeys(training_histories(), ITEMS)
    sequences = write_sequences(tmp_path / "sequences.parquet", training_histories(), also_seen=also_seen)
    cut = "1970-01-01T00:00:09" if protocol == "temporal" else None
    with connect() as con:
        parts = split_sequences(con, open_sequences(sequences), EvaluationConfig(protocol, cut), 0, tmp_path)
    for path in (parts.training, parts.histories):
        lists = pq.read_table(path)["also_seen"].to_pylist()
        assert lists == [[]] * len(lists)
        assert lists


def test_users_without_a_history_do_not_change_the_model(tmp_path: Path, no_export: None) -> None:
    everybody = training_histories() | {user: [] for user in range(1000, 1400)}
    reports = []
    for name, histories in (("some", training_histories()), ("all", everybody)):
        sequences = write_sequences(tmp_path / f"{name}.parquet", histories, also_seen={1000: [5]})
        reports.append(asdict(train(sequences, replace(CONFIG, max_len=None), tmp_path / name)))
    assert {**reports[0], "out": "", "seconds": 0} == {**reports[1], "out": "", "seconds": 0}
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("some", "all")]
    assert weights[0] == weights[1]
    counts = [load_model(tmp_path / name).vocabulary.n_events.tolist() for name in ("some", "all")]
    assert counts[0] == counts[1]
