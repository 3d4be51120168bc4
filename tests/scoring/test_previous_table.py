import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrec.config import ScoringConfig
from batchrec.model.batching import history_digests
from batchrec.scoring.previous_table import PreviousRecs
from batchrec.scoring.report import ScoringReport
from batchrec.scoring.score import score
from tests.support.models import (
    Id,
    indexed,
    model_of,
    run_cli,
    sequences_table,
    trained_model,
    training_histories,
    write_sequences,
)
from tests.support.params import slow_except

Histories = dict[int, Sequence[Id]]
LAST_NIGHT: Histories = {**training_histories(), 901: [], 902: [7, 8], 903: [1000 + n for n in range(40)]}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The table of last night."""
    score_of(LAST_NIGHT, tmp_path, chunk_size=7)
    return (tmp_path / "recs.parquet").rename(tmp_path / "earlier.parquet")


def score_of(histories: Histories, folder: Path, model: Path | None = None, **options: Any) -> ScoringReport:
    write_sequences(folder / "sequences.parquet", histories)
    config = ScoringConfig(device="cpu", **options)
    return score(folder / "sequences.parquet", model or trained_model(), config, folder / "recs.parquet")


def assert_equals_a_full_score(histories: Histories, folder: Path) -> None:
    """The table in the folder equals that of scoring all users, except for rounding in other batches."""
    table = pq.read_table(folder / "recs.parquet")
    score_of(histories, folder)
    full = pq.read_table(folder / "recs.parquet")
    assert table.schema.equals(full.schema, check_metadata=True)
    assert table.drop(["score"]).equals(full.drop(["score"]))
    assert np.allclose(table["score"].to_numpy(), full["score"].to_numpy(), atol=1e-5)


# A user who has seen every item has no rows to carry over; cold users get tonight's popular items.
users = sorted(set(LAST_NIGHT) - {901, 902, 903})
CHANGES: dict[str, tuple[Histories, int]] = {
    "nothing": (LAST_NIGHT, len(users)),
    "an item more": (LAST_NIGHT | {3: [*LAST_NIGHT[3], 1007]}, len(users) - 1),
    "another order": (LAST_NIGHT | {1: LAST_NIGHT[1][::-1]}, len(users) - 1),
    "an item that the model does not know": (LAST_NIGHT | {3: [*LAST_NIGHT[3], 55]}, len(users)),
    "new users": ({0: [1001]} | LAST_NIGHT | {17: [1002, 1003], 999: []}, len(users) - 1),
    "users gone": (
        {user: items for user, items in LAST_NIGHT.items() if user % 3},
        sum(user % 3 > 0 for user in users),
    ),
    "all changed": ({user: [*items, 1001, 1002] for user, items in LAST_NIGHT.items()}, 0),
    "users in another order": (dict(reversed(LAST_NIGHT.items())), len(users)),
    "histories that have changed hands": (LAST_NIGHT | {1: LAST_NIGHT[2], 2: LAST_NIGHT[1]}, len(users) - 2),
}


@pytest.mark.parametrize(("tonight", "n_carried"), CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("chunk_size", slow_except([1, 10, None], 10))
def test_unchanged_users_are_carried_over(
    tonight: Histories, n_carried: int, chunk_size: int | None, earlier: Path, tmp_path: Path
) -> None:
    report = score_of(tonight, tmp_path, previous=str(earlier), chunk_size=chunk_size)
    assert report.users_carried_over == n_carried
    assert report.users == len(tonight)
    assert report.users_by_model + report.users_by_popularity + report.users_skipped_all_seen == len(tonight)
    assert_equals_a_full_score(tonight, tmp_path)


def test_carried_rows_are_copied_and_not_scored_again(earlier: Path, tmp_path: Path) -> None:
    table = pq.read_table(earlier)
    scores = np.arange(table.num_rows, dtype=np.float32)
    place = table.schema.get_field_index("score")
    marked = table.set_column(place, table.schema.field("score"), [scores])
    # Row groups that end in the middle of a user's rows.
    pq.write_table(marked, earlier, row_group_size=13)
    report = score_of(LAST_NIGHT, tmp_path, previous=str(earlier))
    assert report.users_carried_over == len(users)
    carried = np.isin(table["user_id"].to_numpy(), users)
    copied = pq.read_table(tmp_path / "recs.parquet")["score"].to_numpy()
    assert copied[carried].tolist() == scores[carried].tolist()


def test_the_previous_table_may_be_replaced(tmp_path: Path) -> None:
    for n_carried in (0, len(users)):
        previous = str(tmp_path / "recs.parquet")
        assert score_of(LAST_NIGHT, tmp_path, previous=previous).users_carried_over == n_carried


@pytest.mark.parametrize("options", [{"top_k": 9}, {"keep_seen": True}], ids=str)
def test_nothing_is_carried_over_with_other_options(
    options: dict[str, Any], earlier: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "batchrec"):
        assert score_of(LAST_NIGHT, tmp_path, previous=str(earlier), **options).users_carried_over == 0
    assert "made by another model or other options: all users are scored" in caplog.text


@pytest.mark.parametrize("option", ["users", "segments"])
def test_a_table_with_chunks_of_no_rows_can_be_carried_over(option: str, tmp_path: Path) -> None:
    everybody = "user_id,segment\n" + "".join(f"{user},a\n" for user in LAST_NIGHT)
    (tmp_path / "users.csv").write_text(everybody, encoding="utf-8")
    (tmp_path / "nothing.csv").write_text("user_id,item_id\n900,1000\n", encoding="utf-8")
    previous = str(tmp_path / "recs.parquet")
    options: dict[str, Any] = {option: str(tmp_path / "users.csv"), "previous": previous, "chunk_size": 3}
    score_of(LAST_NIGHT, tmp_path, **options)
    assert score_of(LAST_NIGHT, tmp_path, **options).users_carried_over == len(users)
    candidates: dict[str, Any] = {"candidates": str(tmp_path / "nothing.csv"), "previous": previous, "chunk_size": 3}
    candidates["allow_empty_rules"] = True
    for _ in range(2):
        assert score_of(LAST_NIGHT, tmp_path, **candidates).rows == 0


def test_a_row_group_without_rows_is_skipped(earlier: Path, tmp_path: Path) -> None:
    table = pq.read_table(earlier)
    with pq.ParquetWriter(earlier, table.schema) as writer:
        for start in range(0, len(table), 7):
            writer.write_table(table.slice(start, 0))
            writer.write_table(table.slice(start, 7))
        writer.write_table(table.slice(0, 0))
    assert score_of(LAST_NIGHT, tmp_path, previous=str(earlier)).users_carried_over == len(users)
    assert_equals_a_full_score(LAST_NIGHT, tmp_path)


def test_nothing_is_carried_over_to_or_from_int8(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    previous = str(tmp_path / "recs.parquet")
    with caplog.at_level(logging.INFO, "batchrec"):
        for precision in ("int8", "int8", "fp32"):
            assert score_of(LAST_NIGHT, tmp_path, previous=previous, precision=precision).users_carried_over == 0
    assert caplog.text.count("int8: a list depends on the other users in its batch") == 2
    assert caplog.text.count("made by another model or other options: all users are scored") == 1


def test_nothing_is_carried_over_from_another_model(earlier: Path, tmp_path: Path) -> None:
    assert score_of(LAST_NIGHT, tmp_path, model_of("masked"), previous=str(earlier)).users_carried_over == 0


def test_nothing_is_carried_over_from_another_version_of_batchrec(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchrec.scoring.scorer.version_of", lambda _: "0.0.1")
    assert score_of(LAST_NIGHT, tmp_path, previous=str(earlier)).users_carried_over == 0


def test_nothing_is_carried_over_with_other_titles(tmp_path: Path) -> None:
    carried = []
    for title in ("One", "One", "Two"):
        (tmp_path / "movies.csv").write_text(f"movieId,title\n1001,{title}\n")
        options: dict[str, Any] = {"items": str(tmp_path / "movies.csv"), "previous": str(tmp_path / "recs.parquet")}
        carried.append(score_of(LAST_NIGHT, tmp_path, **options).users_carried_over)
        titles = {row["title"] for row in pq.read_table(tmp_path / "recs.parquet").to_pylist()}
        assert titles == {title, None}
    assert carried == [0, len(users), 0]


def test_listed_users_are_carried_over_too(earlier: Path, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id\n3\n5\n12345\n")
    report = score_of(LAST_NIGHT, tmp_path, previous=str(earlier), users=str(tmp_path / "users.csv"))
    assert (report.users, report.users_carried_over) == (3, 2)


def test_all_users_are_scored_without_an_earlier_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "batchrec"):
        assert score_of(LAST_NIGHT, tmp_path, previous=str(tmp_path / "none.parquet")).users_carried_over == 0
    assert "no such file: all users are scored" in caplog.text


def test_a_damaged_table_is_named(earlier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = bytearray(earlier.read_bytes())
    sequences = write_sequences(tmp_path / "sequences.parquet", LAST_NIGHT)
    for damaged in (b"no table", bytes(contents[:200] + bytes(200) + contents[400:])):
        earlier.write_bytes(damaged)
        out = tmp_path / "out.parquet"
        options = ("--model", trained_model(), "--device", "cpu", "--previous", earlier, "--out", out)
        assert run_cli("score", "--sequences", sequences, *options) == 3
        assert "Leave --previous out" in capsys.readouterr().err
        assert not out.exists()


def test_nothing_is_carried_over_from_other_columns(tmp_path: Path) -> None:
    pq.write_table(sequences_table(LAST_NIGHT), tmp_path / "other.parquet")
    assert score_of(LAST_NIGHT, tmp_path, previous=str(tmp_path / "other.parquet")).users_carried_over == 0


histories = st.lists(st.integers(2, 5), max_size=5)


@given(st.lists(histories, min_size=1, max_size=6), histories)
def test_digests_of_different_histories_differ(many: list[list[int]], one: list[int]) -> None:
    digests = history_digests(indexed(*many, one)).tolist()
    for history, digest in zip(many, digests, strict=False):
        assert (digest == digests[-1]) == (history == one)
    # The other users make no difference.
    assert history_digests(indexed(one)).tolist() == digests[-1:]


def test_digests_do_not_depend_on_the_number_of_users() -> None:
    many = [[2 + n % 5] * (n % 7) for n in range(700)]
    assert history_digests(indexed(*many)).tolist() == [history_digests(indexed(one))[0] for one in many]


@given(st.lists(st.integers(-20, 20), min_size=1, unique=True), st.lists(st.integers(-25, 25)), st.booleans())
def test_users_are_found_whatever_their_ids_and_order(
    tmp_path_factory: pytest.TempPathFactory, earlier_ids: list[int], wanted: list[int], are_texts: bool
) -> None:
    path = tmp_path_factory.mktemp("previous") / "earlier.parquet"
    kind = pa.string() if are_texts else pa.int64()
    digests = list(range(len(earlier_ids)))
    pq.write_table(pa.table({"user_id": pa.array(earlier_ids).cast(kind), "history_digest": digests}), path)
    previous = PreviousRecs(pq.ParquetFile(path), path)
    places = [earlier_ids.index(user) if user in earlier_ids else -1 for user in wanted]
    assert previous.find(pa.array(wanted, pa.int64()).cast(kind), np.array(places, np.int64)).tolist() == places
    assert previous.find(pa.array(wanted, pa.int64()).cast(kind), np.full(len(wanted), 99)).tolist() == [-1] * len(
        wanted
    )
