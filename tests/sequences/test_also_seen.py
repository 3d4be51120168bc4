"""Items that a filter leaves out of the histories are seen all the same: in no list, of no kind, of that user."""

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
from batchrec.evaluation.splits import split
from batchrec.model.batching import Histories, history_digests
from batchrec.model.directory import load_model
from batchrec.nightly.figures import measure_table
from batchrec.scoring.score import ScoringReport, score
from batchrec.sequences.build import build_sequences
from batchrec.tables.queries import connect
from batchrec.tables.sequences_table import open_sequences
from batchrec.training.train import train
from tests.scoring.test_score import Row, recs_of
from tests.support.models import CONFIG, indexed, training_histories, write_sequences
from tests.support.plain_rules import ITEMS, Night, model, write_table

Users = Mapping[int, Sequence[int]]
# 1 and 2 are known to the model, 3 has had a new item alone, 4 has nothing in the history; 5 is known.
HISTORIES: Users = {1: ITEMS[:6], 2: [ITEMS[9], 7, ITEMS[3]], 3: [7], 4: [], 5: ITEMS[20:23]}
BESIDE: Users = {1: ITEMS[6:30], 2: [ITEMS[30], 8], 3: [ITEMS[0], ITEMS[1], 9], 4: [7, *ITEMS[:3]]}


def log_of(folder: Path, *rows: tuple[object, object, float, int]) -> str:
    return str(write_table(folder / "ratings.csv", "userId,movieId,rating,timestamp", rows))


def built(folder: Path, *rows: tuple[object, object, float, int], **options: Any) -> dict[Any, tuple[Any, Any]]:
    """Each user's history and what else is seen."""
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


def test_an_item_that_was_rated_too_low_alone_is_seen_and_in_no_history(tmp_path: Path) -> None:
    # User 1 has rated 12 low, and then well: it is in the history, and not beside it.
    assert built(tmp_path, *PLAYS, min_rating=3.0) == {1: ([10, 12], [11]), 2: ([10], [11]), 3: ([], [9])}


def test_seen_kept_forgets_what_filters_leave_out_and_who_has_nothing_else(tmp_path: Path) -> None:
    assert built(tmp_path, *PLAYS, min_rating=3.0, seen="kept") == {1: ([10, 12], []), 2: ([10], [])}
    assert built(tmp_path, *PLAYS, min_item_events=2, seen="kept") == {
        1: ([10, 11], []),
        2: ([10, 11], []),
    }


def test_a_rare_item_is_seen(tmp_path: Path) -> None:
    rows = [(1, 10, 5.0, 1), (2, 10, 5.0, 1), (2, 11, 5.0, 2), (3, 12, 5.0, 1)]
    assert built(tmp_path, *rows, min_item_events=2) == {1: ([10], []), 2: ([10], [11]), 3: ([], [12])}


def test_who_has_too_few_events_has_no_row_whatever_was_seen(tmp_path: Path) -> None:
    assert built(tmp_path, *PLAYS, min_rating=3.0, min_user_events=2) == {1: ([10, 12], [11])}


def test_without_filters_nothing_is_seen_beside_the_histories(tmp_path: Path) -> None:
    assert built(tmp_path, *PLAYS) == {1: ([10, 11, 12], []), 2: ([10, 11], []), 3: ([9], [])}
    field = pq.read_schema(tmp_path / "sequences.parquet").field("also_seen")
    assert (field.type, field.nullable) == (pa.list_(pa.int64()), False)


def test_texts_are_sorted_too_and_of_their_type(tmp_path: Path) -> None:
    rows = [(1, "good", 5.0, 1), (1, "d", 1.0, 2), (1, "ü", 1.0, 3), (1, "b", 1.0, 4), (1, "d", 1.0, 5)]
    assert built(tmp_path, *rows, min_rating=3.0) == {1: (["good"], ["b", "d", "ü"])}


def scored(
    folder: Path, night: Night, beside: Users | None, **options: Any
) -> tuple[dict[Any, list[Row]], ScoringReport]:
    sequences = write_sequences(folder / "sequences.parquet", HISTORIES, also_seen=beside)
    config = ScoringConfig(device="cpu", **{**night.options(folder), **options})
    report = score(sequences, model(), config, folder / "recs.parquet")
    rows = recs_of(folder / "recs.parquet")
    return {user: [{**row, "history_digest": None} for row in found] for user, found in rows.items()}, report


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
def test_what_is_seen_is_kept_from_the_user_as_what_is_blocked_for_the_user_is(night: Night, tmp_path: Path) -> None:
    found, report = scored(tmp_path, night, BESIDE)
    blocked, other = scored(tmp_path, replace(night, block_for_user=BESIDE), None)
    assert found == blocked
    assert report.rows == other.rows > 0
    for user, items in BESIDE.items():
        assert not {row["item_id"] for row in found.get(user, [])} & set(items)
    without, _ = scored(tmp_path, night, None)
    assert found != without
    assert found.get(5) == without.get(5)


def test_keep_seen_lets_all_of_it_come_again(tmp_path: Path) -> None:
    night = Night(keep_seen=True, pins={8: 2})
    assert scored(tmp_path, night, BESIDE)[0] == scored(tmp_path, night, None)[0]


def test_who_has_seen_everything_in_one_way_or_the_other_is_skipped(tmp_path: Path) -> None:
    beside = {1: ITEMS[6:], 4: [*ITEMS, 7]}
    recs, report = scored(tmp_path, Night(), beside)
    assert set(recs) == {2, 3, 5}
    assert (report.users, report.users_skipped_all_seen) == (5, 2)
    _, report = scored(tmp_path, Night(block=[ITEMS[0]]), beside)
    assert (report.users_skipped_all_seen, report.emptied_by) == (2, {})


def test_low_ratings_are_not_recommended_again_and_who_gave_no_other_gets_popular_items(tmp_path: Path) -> None:
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
def test_a_table_without_the_column_is_one_of_empty_lists(column: pa.Array | None, tmp_path: Path) -> None:
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
def test_a_column_that_breaks_the_contract_is_refused(column: pa.Array, message: str, tmp_path: Path) -> None:
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
def test_digests_tell_what_is_seen_from_what_is_in_the_history(
    one: list[int], beside: list[int], other: list[int], beside_other: list[int]
) -> None:
    first, second = history_digests(indexed(one, other), indexed(beside, beside_other)).tolist()
    assert (first == second) == ((one, beside) == (other, beside_other))
    # The same as ever if nothing is beside.
    assert history_digests(indexed(one), indexed([])).tolist() == history_digests(indexed(one)).tolist()


@given(st.lists(st.tuples(known, known), min_size=1, max_size=5))
def test_what_is_seen_follows_the_history_user_by_user(users: list[tuple[list[int], list[int]]]) -> None:
    both = indexed(*(own for own, _ in users)).followed_by(indexed(*(others for _, others in users)))
    expected: Histories = indexed(*(own + others for own, others in users))
    assert both.items.tolist() == expected.items.tolist()
    assert both.offsets.tolist() == expected.offsets.tolist()


def test_who_has_seen_something_else_since_last_night_is_scored_anew(tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.parquet"

    def carried(beside: Users | None) -> int:
        found, report = scored(tmp_path, Night(), beside, previous=str(earlier))
        assert found == scored(tmp_path, Night(), beside)[0]
        return report.users_carried_over

    scored(tmp_path, Night(), None)
    (tmp_path / "recs.parquet").rename(earlier)
    # 1, 2 and 5 are known to the model; an item that it does not know changes nothing for them.
    assert carried({}) == carried(None) == 3
    assert carried({1: [ITEMS[30]]}) == 2
    assert carried({1: [999], 2: [998]}) == 3
    scored(tmp_path, Night(), BESIDE)
    (tmp_path / "recs.parquet").replace(earlier)
    assert carried(BESIDE) == 3
    assert carried({**BESIDE, 2: [*BESIDE[2], ITEMS[12]]}) == 2
    assert carried(None) == 1


def test_a_killed_scoring_does_not_go_on_with_what_has_been_seen_since(tmp_path: Path) -> None:
    config = ScoringConfig(device="cpu")
    for beside in (None, BESIDE):
        sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES, also_seen=beside)
        score(sequences, model(), config, tmp_path / "recs.parquet", tmp_path / "progress")
    found = pq.read_table(tmp_path / "recs.parquet")
    score(sequences, model(), config, tmp_path / "recs.parquet")
    assert found.equals(pq.read_table(tmp_path / "recs.parquet"))


# The gate, the figures, the training


def test_the_gate_counts_what_is_seen_by_its_own_account(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    config = ScoringConfig(device="cpu", top_k=len(ITEMS))
    score(sequences, model(), config, tmp_path / "recs.parquet")

    def n_seen(beside: Users | None, keep_seen: bool = False) -> int:
        write_sequences(sequences, HISTORIES, also_seen=beside)
        figures = measure_table(tmp_path / "recs.parquet", sequences, None, replace(config, keep_seen=keep_seen))
        return figures.faults["seen_items"]

    assert n_seen(None) == 0
    # 25 of these are in the lists by the model; of 3's and 4's, popular ones, five and the new item 7.
    rows = {(user, row["item_id"]) for user, found in recs_of(tmp_path / "recs.parquet").items() for row in found}
    expected = len({(user, item) for user, items in BESIDE.items() for item in items} & rows)
    assert n_seen(BESIDE) == expected > 24
    assert n_seen(BESIDE, keep_seen=True) == 0
    score(sequences, model(), config, tmp_path / "recs.parquet")
    assert n_seen(BESIDE) == 0


@pytest.mark.parametrize("protocol", ["leave-one-out", "temporal"])
def test_an_evaluation_does_not_look_at_what_has_no_time(
    protocol: Literal["leave-one-out", "temporal"], tmp_path: Path
) -> None:
    beside = dict.fromkeys(training_histories(), ITEMS)
    sequences = write_sequences(tmp_path / "sequences.parquet", training_histories(), also_seen=beside)
    cut = "1970-01-01T00:00:09" if protocol == "temporal" else None
    with connect() as con:
        parts = split(con, open_sequences(sequences), EvaluationConfig(protocol, cut), 0, tmp_path)
    for path in (parts.training, parts.histories):
        lists = pq.read_table(path)["also_seen"].to_pylist()
        assert lists == [[]] * len(lists)
        assert lists


def test_users_without_a_history_change_no_model(tmp_path: Path, no_export: None) -> None:
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
