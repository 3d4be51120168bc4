from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.config import Objective, ScoringConfig
from batchrec.model.directory import load_model
from batchrec.scoring.score import score
from tests.support.models import (
    N_ITEMS,
    Id,
    examples,
    known_items,
    model_of,
    sequences_table,
    string_model,
    torch_scores,
    trained_model,
    training_histories,
    write_sequences,
)
from tests.support.shared import scratch

Row = dict[str, Any]
Report = dict[str, Any]
ITEMS = [1000 + number for number in range(N_ITEMS)]
# Users, in this order: with a history much longer than the model sees, who has seen all items but three, who has seen
# every item, without a known item, with some unknown items, without a history.
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
    """The rows of each user, in the order of the table."""
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
    """Check that the rows are the best unseen items of a plain sort, except for ties within 1e-5."""
    unseen = {item: value for item, value in scores.items() if item not in set(seen)}
    best = sorted(unseen.values(), reverse=True)[:top_k]
    assert [row["rank"] for row in rows] == list(range(1, len(best) + 1))
    assert [row["score"] for row in rows] == pytest.approx(best, abs=1e-5)
    assert [row["score"] for row in rows] == pytest.approx([unseen[row["item_id"]] for row in rows], abs=1e-5)
    assert len({row["item_id"] for row in rows}) == len(rows)


def popular_rows(histories: Mapping[Any, Sequence[Any]], seen: Iterable[Id], top_k: int) -> list[tuple[Id, float]]:
    """The items with the most events in the histories, all within 30 days, then the others by events in training."""
    model = load_model(trained_model())
    counts = Counter(item for history in histories.values() for item in history)
    known = known_items(model)
    order = [*known, *sorted(set(counts) - set(known))]
    recent = sorted(counts, key=lambda item: (-counts[item], order.index(item)))
    trained_on = dict(zip(known, model.vocabulary.n_events.tolist(), strict=True))
    rows = [(item, counts[item]) for item in recent] + [
        (item, trained_on[item]) for item in known if item not in counts
    ]
    return [(item, float(n_events)) for item, n_events in rows if item not in set(seen)][:top_k]


@pytest.mark.parametrize("top_k", [1, 10, N_ITEMS])
def test_users_get_the_best_unseen_items(top_k: int, objective: Objective, tmp_path: Path) -> None:
    recs, model = scored(tmp_path, model=model_of(objective), top_k=top_k), load_model(model_of(objective))
    for user, history in HISTORIES.items():
        if user in {503, 504, 506}:
            continue
        assert_best(recs[user], torch_scores(history, model), history, top_k)
        assert {row["source"] for row in recs[user]} == {"model"}


def test_keep_seen_ranks_the_whole_catalogue(objective: Objective, tmp_path: Path) -> None:
    recs = scored(tmp_path, model=model_of(objective), top_k=N_ITEMS, keep_seen=True)
    model = load_model(model_of(objective))
    for user, history in HISTORIES.items():
        if user not in {504, 506}:
            assert_best(recs[user], torch_scores(history, model), [], N_ITEMS)
            assert len(recs[user]) == N_ITEMS


def test_seen_items_are_never_recommended(tmp_path: Path) -> None:
    for user, rows in scored(tmp_path, top_k=N_ITEMS).items():
        assert not {row["item_id"] for row in rows} & set(HISTORIES[int(user)])


def test_users_with_few_unseen_items_get_all_of_them(tmp_path: Path) -> None:
    recs = scored(tmp_path, top_k=10)
    assert {row["item_id"] for row in recs[502]} == set(ITEMS[:3])
    assert len(recs[502]) == 3


def test_users_who_have_seen_every_item_are_counted_as_skipped(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: ITEMS, 2: ITEMS[::-1] * 2, 3: ITEMS[:5]})
    report = score(sequences, trained_model(), ScoringConfig(device="cpu"), tmp_path / "recs.parquet")
    assert set(recs_of(tmp_path / "recs.parquet")) == {3}
    assert (report.users, report.users_by_model, report.users_skipped_all_seen) == (3, 1, 2)


def test_a_table_may_have_no_recommendations(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: ITEMS})
    report = score(sequences, trained_model(), ScoringConfig(device="cpu"), tmp_path / "recs.parquet")
    assert (report.users, report.users_skipped_all_seen, report.rows) == (1, 1, 0)
    assert pq.read_table(tmp_path / "recs.parquet").num_rows == 0


def test_cold_users_get_popular_items(tmp_path: Path) -> None:
    recs = scored(tmp_path, top_k=7)
    for user in (504, 506):
        assert [(row["item_id"], row["score"]) for row in recs[user]] == popular_rows(HISTORIES, HISTORIES[user], 7)
        assert {row["source"] for row in recs[user]} == {"popular"}


def test_popular_items_have_the_most_events() -> None:
    events = [item for history in training_histories().values() for item in history]
    expected = sorted(set(events), key=lambda item: (-events.count(item), item))
    assert known_items(load_model(trained_model())) == expected


def test_unknown_items_are_not_in_the_models_input(tmp_path: Path) -> None:
    with_strangers = scored(tmp_path, {1: [7, 1003, 8, 1004, 9]})[1]
    without = scored(tmp_path, {1: [1003, 1004]})[1]
    assert with_strangers == without


def test_every_user_is_counted_once(tmp_path: Path) -> None:
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


def test_the_table_follows_the_contract(tmp_path: Path) -> None:
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
        ("history_digest", "int64", False),
    ]
    # Users are in the order of the sequences.
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
@pytest.mark.parametrize(("batch_tokens", "workers"), [(1, 1), (20, 2), (500, 3)])
def test_sizes_and_workers_change_nothing(chunk_size: int, batch_tokens: int, workers: int, tmp_path: Path) -> None:
    recs = scored(tmp_path, chunk_size=chunk_size, batch_tokens=batch_tokens, workers=workers)
    assert list(recs) == list(reference_recs())
    for user, rows in recs.items():
        expected = reference_recs()[user]
        assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in expected], abs=1e-5)
        scores = {row["item_id"]: row["score"] for row in expected}
        for row in rows:
            # Another item is right only if it ties with the last one.
            assert scores.get(row["item_id"], expected[-1]["score"]) == pytest.approx(row["score"], abs=1e-5)
        assert [row["rank"] for row in rows] == [row["rank"] for row in expected]


some_items = st.lists(st.sampled_from([*ITEMS, 7, 8]), max_size=30)
sizes = st.integers(1, 40)


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(some_items, min_size=1, max_size=25), st.integers(1, N_ITEMS), sizes, sizes, st.integers(1, 4))
def test_any_users_get_the_same_as_in_a_plain_loop(
    lists: list[list[int]], top_k: int, chunk_size: int, batch_tokens: int, workers: int
) -> None:
    # A model that knows no item of the log is refused.
    model, histories = load_model(trained_model()), dict(enumerate([*lists, [ITEMS[0]]]))
    with TemporaryDirectory() as folder:
        options: dict[str, Any] = {"chunk_size": chunk_size, "batch_tokens": batch_tokens, "workers": workers}
        recs = scored(Path(folder), histories, top_k=top_k, **options)
    for user, history in histories.items():
        rows, known = recs.get(user, []), [item for item in history if item in set(ITEMS)]
        if known:
            assert_best(rows, torch_scores(history, model), history, top_k)
        else:
            assert [(row["item_id"], row["score"]) for row in rows] == popular_rows(histories, history, top_k)


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
def test_other_widths_of_the_types_are_accepted(user_type: pa.DataType, list_type: pa.DataType, tmp_path: Path) -> None:
    columns = sequences_table(HISTORIES).to_pydict()
    model, prefix = trained_model(), ""
    if pa.types.is_large_string(list_type.value_type) or pa.types.is_string(list_type.value_type):
        model, prefix = string_model(), "item-"
        columns["user_id"] = [str(user) for user in columns["user_id"]]
        columns["item_ids"] = [[f"{prefix}{item}" for item in items] for items in columns["item_ids"]]
    table = pa.table(
        {
            "user_id": pa.array(columns["user_id"], user_type),
            "item_ids": pa.array(columns["item_ids"], list_type),
            "timestamps": pa.array(columns["timestamps"], pa.large_list(pa.int32())),
        }
    )
    pq.write_table(table, tmp_path / "sequences.parquet")
    score(tmp_path / "sequences.parquet", model, ScoringConfig(device="cpu"), tmp_path / "recs.parquet")
    lists = [[f"{row['item_id']}" for row in rows] for rows in recs_of(tmp_path / "recs.parquet").values()]
    assert lists == [[f"{prefix}{row['item_id']}" for row in rows] for rows in reference_recs().values()]


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
def test_only_listed_users_are_scored(text: str, tmp_path: Path) -> None:
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
        assert [(row["item_id"], row["score"]) for row in recs[user]] == popular_rows(HISTORIES, [], 10)
        assert {row["source"] for row in recs[user]} == {"popular"}
    assert (report["users"], report["users_by_popularity"], report["users_skipped_all_seen"]) == (4, 2, 1)


def test_string_ids_of_listed_users_are_not_changed(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(("titled", "is_warned"), [(["tt1"], True), (ITEMS[:1], True), (ITEMS, False)])
def test_a_catalogue_without_most_items_of_the_model_is_a_warning(
    titled: list[object], is_warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "".join(f"{item},Film\n" for item in titled)
    (tmp_path / "movies.csv").write_text(f"movieId,title\n{rows}", encoding="utf-8")
    scored(tmp_path, {1: [1005]}, items=str(tmp_path / "movies.csv"))
    known = len(set(titled) & set(ITEMS))
    warning = f"movies.csv: has titles for {known} of {N_ITEMS} items of the model; none for '1"
    assert (warning in caplog.text) == is_warned
    assert (f"look like '{titled[0]}'" in caplog.text) == is_warned


def test_titles_do_not_change_recommendations(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text("movieId,title\n1001,One\n", encoding="utf-8")
    recs = scored(tmp_path, items=str(tmp_path / "movies.csv"))
    for rows in recs.values():
        for row in rows:
            row.pop("title")
    assert recs == reference_recs()
