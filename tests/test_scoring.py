import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from batchrec.artifact import load_model
from batchrec.config import ScoringConfig
from batchrec.scoring import score
from tests.models import (
    N_ITEMS,
    Id,
    names_in,
    run_cli,
    scratch,
    sequences_table,
    string_model,
    torch_scores,
    trained_model,
    training_histories,
    write_sequences,
)

Row = dict[str, Any]
Report = dict[str, Any]
ITEMS = [1000 + number for number in range(N_ITEMS)]
# Who stands for what: a user with much more history than the model sees, one who has seen all but three items, one who
# has seen everything, one the model knows nothing of, one with some unknown items, one without a history.
HISTORIES = training_histories() | {
    501: [*ITEMS[:15], *ITEMS[20:36]],
    502: ITEMS[3:],
    503: ITEMS,
    504: [7, 8],
    505: [7, 1003, 8, 1004],
    506: [],
    507: [1005],
}


def recs_of(path: Path) -> dict[Id, list[Row]]:
    """The rows of each user, as they stand in the table."""
    rows = defaultdict(list)
    for row in pq.read_table(path).to_pylist():
        rows[row["user_id"]].append(row)
    return dict(rows)


def scored(
    folder: Path, histories: Mapping[Any, Sequence[Any]] = HISTORIES, model: Path | None = None, **options: Any
) -> dict[Id, list[Row]]:
    sequences = write_sequences(folder / "sequences.parquet", histories)
    score(sequences, model or trained_model(), ScoringConfig(device="cpu", **options), folder / "recs.parquet")
    return recs_of(folder / "recs.parquet")


def assert_best(rows: list[Row], scores: Mapping[Id, float], seen: Iterable[Id], top_k: int) -> None:
    """The rows are the best of the items not seen, by a plain sort, but for ties within 1e-5."""
    unseen = {item: value for item, value in scores.items() if item not in set(seen)}
    best = sorted(unseen.values(), reverse=True)[:top_k]
    assert [row["rank"] for row in rows] == list(range(1, len(best) + 1))
    assert [row["score"] for row in rows] == pytest.approx(best, abs=1e-5)
    assert [row["score"] for row in rows] == pytest.approx([unseen[row["item_id"]] for row in rows], abs=1e-5)
    assert len({row["item_id"] for row in rows}) == len(rows)


def popular_rows(seen: Iterable[Id], top_k: int) -> list[tuple[Id, float]]:
    vocabulary = load_model(trained_model()).vocabulary
    pairs = zip(vocabulary.item_ids.to_pylist(), vocabulary.n_events.tolist(), strict=True)
    return [(item, float(n_events)) for item, n_events in pairs if item not in set(seen)][:top_k]


@pytest.mark.parametrize("top_k", [1, 10, N_ITEMS])
def test_users_get_the_best_unseen_items(top_k: int, tmp_path: Path) -> None:
    recs, model = scored(tmp_path, top_k=top_k), load_model(trained_model())
    for user, history in HISTORIES.items():
        if user in {503, 504, 506}:
            continue
        assert_best(recs[user], torch_scores(history, model), history, top_k)
        assert {row["source"] for row in recs[user]} == {"model"}


def test_keep_seen_ranks_the_whole_catalogue(tmp_path: Path) -> None:
    recs, model = scored(tmp_path, top_k=N_ITEMS, keep_seen=True), load_model(trained_model())
    for user, history in HISTORIES.items():
        if user not in {504, 506}:
            assert_best(recs[user], torch_scores(history, model), [], N_ITEMS)
            assert len(recs[user]) == N_ITEMS


def test_seen_items_are_never_recommended(tmp_path: Path) -> None:
    for user, rows in scored(tmp_path, top_k=N_ITEMS).items():
        assert not {row["item_id"] for row in rows} & set(HISTORIES[int(user)])


def test_who_has_few_unseen_items_gets_all_of_them_and_no_other(tmp_path: Path) -> None:
    recs = scored(tmp_path, top_k=10)
    assert {row["item_id"] for row in recs[502]} == set(ITEMS[:3])
    assert len(recs[502]) == 3


def test_who_has_seen_everything_is_counted_as_skipped(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: ITEMS, 2: ITEMS[::-1] * 2, 3: ITEMS[:5]})
    report = score(sequences, trained_model(), ScoringConfig(device="cpu"), tmp_path / "recs.parquet")
    assert set(recs_of(tmp_path / "recs.parquet")) == {3}
    assert (report.users, report.users_by_model, report.users_skipped_all_seen) == (3, 1, 2)


def test_a_model_may_recommend_nothing_to_anybody(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: ITEMS})
    report = score(sequences, trained_model(), ScoringConfig(device="cpu"), tmp_path / "recs.parquet")
    assert (report.users, report.users_skipped_all_seen, report.rows) == (1, 1, 0)
    assert pq.read_table(tmp_path / "recs.parquet").num_rows == 0


def test_who_is_unknown_gets_popular_items(tmp_path: Path) -> None:
    recs = scored(tmp_path, top_k=7)
    for user in (504, 506):
        assert [(row["item_id"], row["score"]) for row in recs[user]] == popular_rows([], 7)
        assert {row["source"] for row in recs[user]} == {"popular"}


def test_popular_items_are_those_with_most_events() -> None:
    events = [item for history in training_histories().values() for item in history]
    expected = sorted(set(events), key=lambda item: (-events.count(item), item))
    assert [item for item, _ in popular_rows([], N_ITEMS)] == expected


def test_unknown_items_are_left_out_of_the_models_input(tmp_path: Path) -> None:
    with_strangers = scored(tmp_path, {1: [7, 1003, 8, 1004, 9]})[1]
    without = scored(tmp_path, {1: [1003, 1004]})[1]
    assert with_strangers == without


def test_every_user_in_is_accounted_for(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    report = score(sequences, trained_model(), ScoringConfig(device="cpu", top_k=5), tmp_path / "recs.parquet")
    recs = recs_of(tmp_path / "recs.parquet")
    assert report.users == len(HISTORIES)
    assert report.users == report.users_by_model + report.users_by_popularity + report.users_skipped_all_seen
    assert (report.users_by_popularity, report.users_skipped_all_seen) == (2, 1)
    assert report.users_with_fewer_than_top_k == sum(len(rows) < 5 for rows in recs.values()) == 1
    assert report.unknown_items_in_histories == 4
    assert report.rows == sum(len(rows) for rows in recs.values())
    assert set(recs) == set(HISTORIES) - {503}
    assert report.model_id == load_model(trained_model()).manifest.model_id
    assert report.device == "cpu"


def test_the_table_holds_to_the_contract(tmp_path: Path) -> None:
    recs = scored(tmp_path)
    schema = pq.read_schema(tmp_path / "recs.parquet")
    assert schema.metadata[b"batchrec.contract"] == b"recs/1"
    assert [(field.name, str(field.type), field.nullable) for field in schema] == [
        ("user_id", "int64", False),
        ("rank", "int32", False),
        ("item_id", "int64", False),
        ("score", "float", False),
        ("source", "string", False),
        ("model_id", "string", False),
    ]
    # Users stand in the order of the sequences.
    assert list(recs) == [user for user in HISTORIES if user != 503]
    model_id = load_model(trained_model()).manifest.model_id
    for rows in recs.values():
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
        assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
        assert {row["model_id"] for row in rows} == {model_id}


def test_types_of_ids_are_kept(tmp_path: Path) -> None:
    histories = {f"user-{user}": [f"item-{item}" for item in items] for user, items in HISTORIES.items()}
    sequences = write_sequences(tmp_path / "sequences.parquet", histories, pa.string(), pa.string())
    score(sequences, string_model(), ScoringConfig(device="cpu"), tmp_path / "strings.parquet")
    schema = pq.read_schema(tmp_path / "strings.parquet")
    assert (schema.field("user_id").type, schema.field("item_id").type) == (pa.string(), pa.string())
    integers, strings = scored(tmp_path), recs_of(tmp_path / "strings.parquet")
    for user, rows in integers.items():
        assert [row["item_id"] for row in strings[f"user-{user}"]] == [f"item-{row['item_id']}" for row in rows]


@cache
def reference_recs() -> dict[Id, list[Row]]:
    folder = scratch() / "reference"
    folder.mkdir()
    return scored(folder)


@pytest.mark.parametrize("chunk_size", [1, 7, 100_000])
@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (5, 2), (64, 3)])
def test_sizes_and_workers_change_nothing(chunk_size: int, batch_size: int, workers: int, tmp_path: Path) -> None:
    recs = scored(tmp_path, chunk_size=chunk_size, batch_size=batch_size, workers=workers)
    assert list(recs) == list(reference_recs())
    for user, rows in recs.items():
        expected = reference_recs()[user]
        assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in expected], abs=1e-5)
        scores = {row["item_id"]: row["score"] for row in expected}
        for row in rows:
            # Another item is right only where it ties with the last one.
            assert scores.get(row["item_id"], expected[-1]["score"]) == pytest.approx(row["score"], abs=1e-5)
        assert [row["rank"] for row in rows] == [row["rank"] for row in expected]


def test_row_groups_of_the_input_change_nothing(tmp_path: Path) -> None:
    pq.write_table(sequences_table(HISTORIES), tmp_path / "sequences.parquet", row_group_size=3)
    config = ScoringConfig(device="cpu", chunk_size=10)
    score(tmp_path / "sequences.parquet", trained_model(), config, tmp_path / "recs.parquet")
    assert list(recs_of(tmp_path / "recs.parquet")) == list(reference_recs())


WIDER_TYPES: list[tuple[pa.DataType, pa.DataType]] = [
    (pa.int32(), pa.list_(pa.int32())),
    (pa.int16(), pa.large_list(pa.int64())),
    (pa.uint64(), pa.list_(pa.uint16())),
    (pa.large_string(), pa.large_list(pa.large_string())),
    (pa.string(), pa.large_list(pa.string())),
]


@pytest.mark.parametrize(("user_type", "list_type"), WIDER_TYPES, ids=str)
def test_other_widths_of_the_types_are_taken(user_type: pa.DataType, list_type: pa.DataType, tmp_path: Path) -> None:
    columns = sequences_table(HISTORIES).to_pydict()
    if pa.types.is_large_string(list_type.value_type) or pa.types.is_string(list_type.value_type):
        columns["user_id"] = [str(user) for user in columns["user_id"]]
        columns["item_ids"] = [[str(item) for item in items] for items in columns["item_ids"]]
    table = pa.table(
        {
            "user_id": pa.array(columns["user_id"], user_type),
            "item_ids": pa.array(columns["item_ids"], list_type),
            "timestamps": pa.array(columns["timestamps"], pa.large_list(pa.int32())),
        }
    )
    pq.write_table(table, tmp_path / "sequences.parquet")
    score(tmp_path / "sequences.parquet", trained_model(), ScoringConfig(device="cpu"), tmp_path / "recs.parquet")
    found = [[row["item_id"] for row in rows] for rows in recs_of(tmp_path / "recs.parquet").values()]
    assert found == [[row["item_id"] for row in rows] for rows in reference_recs().values()]


def test_surplus_columns_and_another_order_of_columns_do_no_harm(tmp_path: Path) -> None:
    table = sequences_table(HISTORIES).append_column("note", pa.array(["x"] * len(HISTORIES)))
    pq.write_table(table.select(["note", "timestamps", "user_id", "item_ids"]), tmp_path / "sequences.parquet")
    score(tmp_path / "sequences.parquet", trained_model(), ScoringConfig(device="cpu"), tmp_path / "recs.parquet")
    assert recs_of(tmp_path / "recs.parquet") == reference_recs()


# --users


def scored_only(folder: Path, listed: Path) -> tuple[dict[Id, list[Row]], Report]:
    sequences = write_sequences(folder / "sequences.parquet", HISTORIES)
    config = ScoringConfig(device="cpu", users=str(listed), chunk_size=10)
    report = score(sequences, trained_model(), config, folder / "recs.parquet")
    assert report.users == report.users_by_model + report.users_by_popularity + report.users_skipped_all_seen
    return recs_of(folder / "recs.parquet"), vars(report)


USER_LISTS = {
    "one column": "who\n505\n3\n",
    "among others": "name,user_id\nx,505\ny,3\n",
    "twice": "user_id\n505\n3\n505\n3\n",
    "floats": "user_id\n505.0\n3.0\n",
    "floats and integers": "user_id\n505.0\n3\n505\n",
    "leading zeros": "user_id\n505\n3\n0505\n",
    "windows": "\ufeffuser_id\r\n505\r\n3\r\n",
}


@pytest.mark.parametrize("text", USER_LISTS.values(), ids=USER_LISTS.keys())
def test_listed_users_alone_are_scored(text: str, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(text, encoding="utf-8", newline="")
    recs, report = scored_only(tmp_path, tmp_path / "users.csv")
    assert recs == {user: reference_recs()[user] for user in (3, 505)}
    assert (report["users"], report["users_by_model"], report["rows"]) == (2, 2, 20)


def test_users_may_be_listed_in_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [505, 3, 3], "x": [1, 2, 3]}), tmp_path / "users.parquet")
    recs, report = scored_only(tmp_path, tmp_path / "users.parquet")
    assert recs == {user: reference_recs()[user] for user in (3, 505)}
    assert report["users"] == 2


def test_unknown_listed_users_get_popular_items(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id\n9001\n3\n9000\n9001\n503\n", encoding="utf-8")
    recs, report = scored_only(tmp_path, tmp_path / "users.csv")
    assert set(recs) == {3, 9000, 9001}
    assert recs[3] == reference_recs()[3]
    for user in (9000, 9001):
        assert [(row["item_id"], row["score"]) for row in recs[user]] == popular_rows([], 10)
        assert {row["source"] for row in recs[user]} == {"popular"}
    assert (report["users"], report["users_by_popularity"], report["users_skipped_all_seen"]) == (4, 2, 1)


def test_string_ids_of_listed_users_are_taken_as_they_stand(tmp_path: Path) -> None:
    sequences = write_sequences(
        tmp_path / "sequences.parquet", {"007": [1001], "7": [1002], "5.0": [1003]}, pa.string()
    )
    (tmp_path / "users.csv").write_text("user_id\n007\n5.0\n", encoding="utf-8")
    config = ScoringConfig(device="cpu", users=str(tmp_path / "users.csv"))
    report = score(sequences, trained_model(), config, tmp_path / "recs.parquet")
    assert set(recs_of(tmp_path / "recs.parquet")) == {"007", "5.0"}
    assert (report.users, report.users_by_model) == (2, 2)


# --items


def test_items_add_titles(tmp_path: Path) -> None:
    titled = ITEMS[1:]
    lines = [f'{item},"Film {item}, the first",x' for item in titled]
    lines += ["1001,Rare,x", "1002,Often,x", "1002,Often,x", "9999,Stranger,x", "1003,,x"]
    (tmp_path / "movies.csv").write_text("\n".join(["movieId,title,genres", *lines]), encoding="utf-8")
    recs = scored(tmp_path, {1: [1005], 2: []}, items=str(tmp_path / "movies.csv"), top_k=N_ITEMS)
    titles = {item: f"Film {item}, the first" for item in titled} | {1000: None, 1002: "Often"}
    for rows in recs.values():
        assert len(rows) >= N_ITEMS - 1
        assert all(row["title"] == titles[row["item_id"]] for row in rows)
    field = pq.read_schema(tmp_path / "recs.parquet").field("title")
    assert (field.type, field.nullable) == (pa.string(), True)


def test_columns_of_the_catalogue_can_be_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"code": ITEMS, "what is it": [f"no. {i}" for i in ITEMS]}), tmp_path / "items.parquet")
    catalogue = str(tmp_path / "items.parquet")
    rows = scored(tmp_path, {1: [1005]}, items=catalogue, item_column="code", title_column="what is it")[1]
    assert all(row["title"] == f"no. {row['item_id']}" for row in rows)


def test_titles_change_no_recommendation(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text("movieId,title\n1001,One\n", encoding="utf-8")
    recs = scored(tmp_path, items=str(tmp_path / "movies.csv"))
    for rows in recs.values():
        for row in rows:
            row.pop("title")
    assert recs == reference_recs()


# Errors


class Job:
    """`batchrec score` in a folder with an older recs.parquet."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.sequences = write_sequences(folder / "sequences.parquet", {1: [1001, 1002], 2: [1003]})
        self.out = folder / "recs.parquet"
        self.out.write_bytes(b"the older one")

    def assert_fails(self, exit_code: int, *options: object) -> str:
        """Fails with one line, which is given, and touches nothing."""
        before = names_in(self.folder)
        arguments = ("--sequences", self.sequences, "--model", trained_model(), "--out", self.out, "--device", "cpu")
        self.capsys.readouterr()
        assert run_cli("score", *arguments, *options) == exit_code
        said = self.capsys.readouterr()
        assert said.out == ""
        assert len(said.err.splitlines()) == 1
        assert self.out.read_bytes() == b"the older one"
        assert names_in(self.folder) == before
        return said.err

    def write(self, **columns: pa.Array) -> None:
        """Write the sequences anew, with other columns."""
        table = sequences_table({1: [1001, 1002], 2: [1003]}).to_pydict()
        pq.write_table(pa.table(table | columns), self.sequences)


@pytest.fixture
def job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Job:
    trained_model()
    return Job(tmp_path, capsys)


ids, lists = pa.int64(), pa.list_(pa.int64())
BROKEN_COLUMNS: dict[str, tuple[str, pa.Array]] = {
    "null user": ("user_id", pa.array([1, None], ids)),
    "repeated user": ("user_id", pa.array([7, 7], ids)),
    "float users": ("user_id", pa.array([1.5, 2.5])),
    "dates as users": ("user_id", pa.array([1, 2], pa.date32())),
    "null list": ("item_ids", pa.array([[1001, 1002], None], lists)),
    "null item": ("item_ids", pa.array([[1001, None], [1003]], lists)),
    "ragged lists": ("item_ids", pa.array([[1001], [1003]], lists)),
    "float items": ("item_ids", pa.array([[1.5, 2.5], [1003]], pa.list_(pa.float64()))),
    "items that are no lists": ("item_ids", pa.array([1001, 1003], ids)),
    "null list of times": ("timestamps", pa.array([[1, 2], None], lists)),
    "null time": ("timestamps", pa.array([[1, None], [3]], lists)),
    "times of unequal length": ("timestamps", pa.array([[1, 2, 3], [3]], lists)),
    "backwards time": ("timestamps", pa.array([[2, 1], [3]], lists)),
    "text as times": ("timestamps", pa.array([["a", "b"], ["c"]], pa.list_(pa.string()))),
    "times that are no lists": ("timestamps", pa.array([1, 3], ids)),
    "users beyond int64": ("user_id", pa.array([1, 2**64 - 1], pa.uint64())),
    "everything null": ("item_ids", pa.nulls(2)),
}


@pytest.mark.parametrize(("column", "values"), BROKEN_COLUMNS.values(), ids=BROKEN_COLUMNS.keys())
def test_sequences_that_break_the_contract_are_refused(column: str, values: pa.Array, job: Job) -> None:
    job.write(**{column: values})
    said = job.assert_fails(3)
    assert "sequences.parquet" in said


def test_swapped_times_in_the_same_batch_but_of_two_users_are_no_error(tmp_path: Path) -> None:
    table = sequences_table({1: [1001], 2: [1003]}).set_column(2, "timestamps", [pa.array([[9], [1]], lists)])
    pq.write_table(table, tmp_path / "sequences.parquet")
    config = ScoringConfig(device="cpu")
    assert score(tmp_path / "sequences.parquet", trained_model(), config, tmp_path / "recs.parquet").users == 2


@pytest.mark.parametrize("column", ["user_id", "item_ids", "timestamps"])
def test_a_missing_column_is_named_beside_those_there_are(column: str, job: Job) -> None:
    pq.write_table(sequences_table({1: [1001]}).drop_columns([column]), job.sequences)
    said = job.assert_fails(3)
    assert column in said
    assert all(name in said for name in ("user_id", "item_ids", "timestamps"))


@pytest.mark.parametrize("column", ["user_id", "item_ids", "timestamps"])
def test_a_column_that_is_there_twice_is_refused(column: str, job: Job) -> None:
    table = sequences_table({1: [1001]})
    pq.write_table(table.append_column(column, table[column]), job.sequences)
    assert column in job.assert_fails(3)


def test_a_broken_row_far_into_the_sequences_leaves_no_half_of_a_table(job: Job) -> None:
    histories = {user: [1001, 1002] for user in range(50)}
    table = sequences_table(histories).to_pydict()
    table["timestamps"][49] = [2, 1]
    pq.write_table(pa.table(table), job.sequences)
    assert "49" in job.assert_fails(3, "--chunk-size", 5, "--workers", 2)


@pytest.mark.parametrize("contents", [b"", b"user_id,item_ids\n1,2\n", b"PAR1 and nothing more PAR1"])
def test_what_is_no_parquet_is_refused(contents: bytes, job: Job) -> None:
    job.sequences.write_bytes(contents)
    assert "sequences.parquet" in job.assert_fails(3)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9, 0.99])
def test_truncated_sequences_are_refused(share: float, job: Job) -> None:
    contents = write_sequences(job.sequences, HISTORIES).read_bytes()
    job.sequences.write_bytes(contents[: int(share * len(contents))])
    assert "sequences.parquet" in job.assert_fails(3)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_pages_that_are_garbage_are_refused(column: int, job: Job) -> None:
    write_sequences(job.sequences, HISTORIES)
    chunk = pq.ParquetFile(job.sequences).metadata.row_group(0).column(column)
    contents = bytearray(job.sequences.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    contents[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    job.sequences.write_bytes(contents)
    assert "sequences.parquet" in job.assert_fails(3)


def test_sequences_without_users_are_refused(job: Job) -> None:
    write_sequences(job.sequences, {})
    job.assert_fails(3)


def test_missing_sequences_are_refused(job: Job) -> None:
    job.sequences.unlink()
    assert "build-sequences" in job.assert_fails(3)


def test_a_missing_model_is_refused(job: Job) -> None:
    assert "batchrec train" in job.assert_fails(4, "--model", job.folder / "none")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--top-k", 0), "--top-k"),
        (("--top-k", -3), "--top-k"),
        (("--top-k", N_ITEMS + 1), str(N_ITEMS)),
        (("--top-k", "ten"), "--top-k"),
        (("--chunk-size", 0), "--chunk-size"),
        (("--batch-size", 0), "--batch-size"),
        (("--workers", 0), "--workers"),
        (("--device", "tpu"), "--device"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: tuple[object, ...], said: str, job: Job) -> None:
    assert said in job.assert_fails(2, *options)


def test_an_output_folder_that_is_missing_is_refused(job: Job) -> None:
    assert "nowhere" in job.assert_fails(2, "--out", job.folder / "nowhere" / "recs.parquet")


def test_a_folder_as_output_is_refused_before_any_work(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrec.scorer.Scorer.score", lambda *_: pytest.fail("the work has begun"))
    (job.folder / "folder").mkdir()
    assert "folder" in job.assert_fails(2, "--out", job.folder / "folder")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error_before_any_work(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrec.scorer.Scorer.score", lambda *_: pytest.fail("the work has begun"))
    assert "--device cpu" in job.assert_fails(5, "--device", "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_auto_without_a_gpu_warns_once_and_reports_cpu(
    job: Job, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ("--sequences", job.sequences, "--model", trained_model(), "--out", job.out, "--chunk-size", 1)
    assert run_cli("score", *arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["device"] == "cpu"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "CPU" in caplog.text


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_run_as_a_program_says_no_more_than_it_must(device: str, job: Job) -> None:
    command = [sys.executable, "-m", "batchrec", "score", "--device", device]
    command += ["--sequences", str(job.sequences), "--model", str(trained_model()), "--out", str(job.out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    n_lines = 1 if device == "auto" and not torch.cuda.is_available() else 0
    assert len(done.stderr.splitlines()) == n_lines, done.stderr


USER_LIST_ERRORS = {
    "no header": "505\n3\n",
    "text for integers": "user_id\n505\nanna\n",
    "fraction": "user_id\n505.5\n",
    "nothing": "",
    "an empty id": "user_id,x\n,1\n3,2\n",
    "other columns": "name,age\nx,3\n",
    "header alone": "user_id\n",
    "ragged": "user_id,x\n3,1\n505,1,7\n",
    "beyond int64": "user_id\n99999999999999999999\n",
    "the column twice": "user_id,user_id\n3,3\n",
}


@pytest.mark.parametrize("text", USER_LIST_ERRORS.values(), ids=USER_LIST_ERRORS.keys())
def test_a_list_of_users_that_cannot_be_read_is_refused(text: str, job: Job) -> None:
    (job.folder / "users.csv").write_text(text, encoding="utf-8")
    assert "users.csv" in job.assert_fails(3, "--users", job.folder / "users.csv")


def test_a_missing_list_of_users_is_refused(job: Job) -> None:
    assert "users.csv" in job.assert_fails(3, "--users", job.folder / "users.csv")


CATALOGUE_ERRORS = {
    "nothing": "",
    "header alone": "movieId,title\n",
    "no title": "movieId,name\n1001,x\n",
    "ragged": "movieId,title\n1001,x\n1002,y,z\n",
    "titles empty": "movieId,title\n1001,\n",
    "twice": "movieId,title,title\n1001,x,y\n",
}


@pytest.mark.parametrize("text", CATALOGUE_ERRORS.values(), ids=CATALOGUE_ERRORS.keys())
def test_a_catalogue_that_cannot_be_read_is_refused(text: str, job: Job) -> None:
    (job.folder / "movies.csv").write_text(text, encoding="utf-8")
    assert "movies.csv" in job.assert_fails(3, "--items", job.folder / "movies.csv")


def test_an_error_while_writing_leaves_the_old_table(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_batch", fail)
    assert "No space left" in job.assert_fails(2)


def test_a_bug_keeps_its_traceback_and_leaves_the_old_table(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("batchrec.scorer.Scorer.score", fail)
    with pytest.raises(ZeroDivisionError):
        run_cli("score", "--sequences", job.sequences, "--model", trained_model(), "--out", job.out, "--device", "cpu")
    assert job.out.read_bytes() == b"the older one"
    assert names_in(job.folder) == {"sequences.parquet", "recs.parquet"}


@pytest.mark.parametrize(
    "name", ["it's; drop table x.parquet", "$path ${x}.parquet", "a*[b]?.parquet", "new\nline.parquet"]
)
def test_hostile_file_names_are_names(name: str, tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / name, {1: [1001]})
    write_sequences(tmp_path / "a-b-c.parquet", {2: [1001]})
    assert score(sequences, trained_model(), ScoringConfig(device="cpu"), tmp_path / f"out {name}").users == 1
    assert set(recs_of(tmp_path / f"out {name}")) == {1}


# Imports


@pytest.mark.parametrize(
    ("imported", "banned"),
    [
        ("batchrec", {"torch", "onnxruntime", "duckdb", "click", "pyarrow", "numpy"}),
        ("batchrec.scoring", {"torch", "onnx", "click"}),
        ("batchrec.recommending", {"torch", "onnx", "click"}),
        ("batchrec.cli", {"torch", "onnxruntime", "duckdb"}),
        ("batchrec.sequences", {"torch", "onnxruntime", "click"}),
        ("batchrec.training", {"click"}),
    ],
)
def test_imports_load_no_more_than_they_need(imported: str, banned: set[str]) -> None:
    program = f"import sys, {imported}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {re.split(r"\.", module)[0] for module in done.stdout.split()}
    assert not loaded & banned


def test_scoring_runs_where_there_is_no_torch(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [1001]})
    program = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
from batchrec import score, ScoringConfig
report = score(Path({str(sequences)!r}), Path({str(trained_model())!r}), ScoringConfig(), Path({str(tmp_path / "r")!r}))
print(report.users)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr
