"""Model: its lists are those of score, its vectors those of export-vectors, its similar items those of similar."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec import CatalogueConfig, Model, RecommendConfig, ScoringConfig, recommend, score, similar
from batchrec.errors import BatchrecError, ConfigError, InputError, ModelError
from batchrec.interactive.rows import Rows
from batchrec.model.directory import load_model
from batchrec.scoring.vectors import UserEncoder, item_vectors
from tests.scoring.test_habits import USERS, write_model, write_users
from tests.support.models import (
    N_ITEMS,
    SHAPE,
    string_model,
    trained_model,
    training_histories,
    training_sequences,
    write_sequences,
)
from tests.support.shared import made_once

HISTORIES = list(training_histories().values())
COLUMNS = ["user_id", "rank", "item_id", "score", "source"]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(trained_model(), device="cpu", threads=2)


def scored(sequences: Path, model: Path, out: Path, **options: Any) -> pa.Table:
    score(sequences, model, ScoringConfig(device="cpu", **options), out)
    return pq.read_table(out)


def lists_by_score(table: pa.Table) -> pa.Table:
    return table.select(COLUMNS).replace_schema_metadata(None)


def test_every_form_of_histories_gets_the_lists_of_score(model: Model, tmp_path: Path) -> None:
    expected = lists_by_score(scored(training_sequences(), trained_model(), tmp_path / "recs.parquet", top_k=5))
    table = pq.read_table(training_sequences())
    frame: pd.DataFrame = table.to_pandas()
    forms = training_sequences(), str(training_sequences()), table, table.to_batches()[0], frame, pl.from_arrow(table)
    for histories in forms:
        assert model.recommend(histories, 5).table.equals(expected)
    # Users of a list are numbered from 0; those of the table from 1.
    numbered = expected.set_column(0, expected.schema.field(0), pa.array(expected["user_id"].to_numpy() - 1))
    texts = [[str(item) for item in history] for history in HISTORIES]
    arrays = [pa.array(history) for history in HISTORIES]
    for histories in (HISTORIES, frame[["item_ids"]], frame["item_ids"], texts, map(iter, HISTORIES), arrays):
        assert model.recommend(histories, 5).table.equals(numbered)


def test_seen_items_may_be_allowed(model: Model, tmp_path: Path) -> None:
    expected = lists_by_score(scored(training_sequences(), trained_model(), tmp_path / "recs.parquet", seen="allow"))
    assert model.recommend(training_sequences(), seen="allow").table.equals(expected)


def test_without_times_all_items_are_of_one_day_and_with_times_of_theirs(tmp_path: Path) -> None:
    folder = made_once("habit-model", write_model)
    model = Model.load(folder, device="cpu")
    histories = [[item for _, item in events] for events in USERS.values()]
    one_day = {user: [(0, item) for item in items] for user, items in enumerate(histories)}
    expected = {}
    for name, users in (("own", USERS), ("one", one_day)):
        sequences = write_users(tmp_path / f"{name}.parquet", users)
        table = scored(sequences, folder, tmp_path / f"{name}-recs.parquet", top_k=3, seen="allow")
        expected[name] = lists_by_score(table)
    assert model.recommend(histories, 3, seen="allow").table.equals(expected["one"])
    with_times = pq.read_table(tmp_path / "own.parquet")
    assert model.recommend(with_times, 3, seen="allow").table.equals(expected["own"])
    # Times as data frames have them: not as numbers of nanoseconds.
    moments = with_times["timestamps"].cast(pa.list_(pa.timestamp("s"))).cast(pa.list_(pa.timestamp("ns", "UTC")))
    dated = with_times.set_column(2, "timestamps", moments)
    assert model.recommend(dated, 3, seen="allow").table.equals(expected["own"])
    assert not expected["own"]["score"].equals(expected["one"]["score"])


def test_the_lists_are_those_of_recommend(model: Model) -> None:
    listed = recommend(HISTORIES[0], trained_model(), RecommendConfig(top_k=3)).recommendations
    rows = model.recommend([HISTORIES[0]], 3).table.to_pylist()
    assert [(row["rank"], row["item_id"], row["score"]) for row in rows] == [
        (one.rank, one.item_id, one.score) for one in listed
    ]


def test_histories_without_a_known_item_get_popular_items(model: Model, tmp_path: Path) -> None:
    rows = model.recommend([[5], [], HISTORIES[0]], 2).table.to_pylist()
    assert [row["source"] for row in rows] == ["popular_all_time"] * 4 + ["model"] * 2
    assert [row["item_id"] for row in rows[:2]] == model.item_ids[:2].to_pylist()
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [5], 2: [1003, 1004]})
    expected = lists_by_score(scored(sequences, trained_model(), tmp_path / "recs.parquet", top_k=2))
    assert expected["source"].to_pylist() == ["popular"] * 2 + ["model"] * 2
    assert model.recommend(sequences, 2).table.equals(expected)


def test_vectors_are_those_of_export_vectors(model: Model) -> None:
    loaded = load_model(trained_model())
    exported = np.stack(item_vectors(loaded)["vector"].to_numpy())
    assert np.array_equal(np.column_stack([model.item_vectors, model.item_biases]), exported)
    assert model.item_vectors.shape == (N_ITEMS, SHAPE.hidden_size)
    assert model.item_ids.equals(loaded.vocabulary.item_ids)
    states = model.encode([*HISTORIES, [5]])
    encoder = UserEncoder(loaded, model._ranker, pa.int64())
    rows = encoder.encode(pq.read_table(training_sequences()).to_batches()[0]).rows
    assert np.array_equal(states[:-1], np.stack(rows["vector"].to_numpy(zero_copy_only=False))[:, :-1])
    assert np.isnan(states[-1]).all()
    assert states.dtype == model.item_vectors.dtype == np.float32
    assert model.encode([]).shape == (0, SHAPE.hidden_size)
    # A score is the inner product and the bias.
    best = model.recommend([HISTORIES[0]], 1).table.to_pylist()[0]
    scores = states[0] @ model.item_vectors.T + model.item_biases
    assert scores[model.item_ids.to_pylist().index(best["item_id"])] == pytest.approx(best["score"], abs=1e-5)


def test_similar_items_are_those_of_similar(model: Model, tmp_path: Path) -> None:
    similar(trained_model(), out=tmp_path / "similar.parquet")
    table = pq.read_table(tmp_path / "similar.parquet").drop_columns("model_id").replace_schema_metadata(None)
    rows = model.similar(sorted(model.item_ids.to_pylist()))
    assert rows.table.equals(table)
    one = table.filter(pa.array(np.array(table["item_id"]) == 1003)).slice(0, 3)
    assert model.similar(1003, 3).table.equals(one)
    assert model.similar(np.int64(1003), 3).table.equals(one)  # type: ignore[arg-type]
    assert model.similar("1003", 3).table.equals(one)
    assert len(model.similar([])) == 0


def test_a_user_with_two_histories_is_refused(model: Model) -> None:
    table = pa.table({"user_id": ["a", "b", "a"], "item_ids": HISTORIES[:3]})
    with pytest.raises(InputError, match=r"^histories: a user has 2 rows; expected one row per user$"):
        model.recommend(table)


def test_a_catalogue_gives_titles(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("sku,name\n" + "".join(f"{item},Item {item}\n" for item in range(1000, 1040)))
    catalogue = CatalogueConfig(items=str(tmp_path / "items.csv"), item_column="sku", title_column="name")
    model = Model.load(trained_model(), device="cpu", catalogue=catalogue)
    for rows, item in ((model.recommend(HISTORIES, 3), "item_id"), (model.similar(1003), "similar_item_id")):
        assert [f"Item {row[item]}" for row in rows.table.to_pylist()] == rows.table["title"].to_pylist()
    with pytest.raises(ModelError, match="knows none of the 40 items"):
        Model.load(string_model(), device="cpu", catalogue=catalogue)


def test_a_catalogue_of_the_usual_columns_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text("movieId,title\n1003,Heat\n")
    model = Model.load(trained_model(), device="cpu", catalogue=tmp_path / "movies.csv")
    rows = model.similar(1004, N_ITEMS).table.to_pylist()
    assert [row["title"] for row in rows if row["similar_item_id"] == 1003] == ["Heat"]


ONE_LIST = "histories: found ids; expected a list of ids for each history, like [[1003]]"
UNKNOWN = "the model knows none of 5, 6. Pass ids that are int64 like "


@pytest.mark.parametrize(
    ("histories", "error", "message"),
    [
        ([1003, 1004], InputError, ONE_LIST),
        ([[5, 6]], ConfigError, UNKNOWN),
        ([["5"], ["6"]], ConfigError, UNKNOWN),
        ([[1003.5]], InputError, "histories: column 'item_ids' is double; expected int64 or string"),
        ([[1003, None]], InputError, "histories: 1 null(s) in column 'item_ids'; expected none"),
        ([[1003, "a"]], InputError, "histories: Could not convert 'a'"),
        ([[1003], {1003, 1004}], InputError, "histories: found a set, which has no order; expected a list of ids"),
        ([[2**63]], InputError, "histories: Python int too large"),
        (7, InputError, "histories: 'int' object is not iterable; expected a list of ids for each"),
        (pd.DataFrame({"item": [1003]}), InputError, "histories: expected one column 'item_ids'; found item"),
        (
            pd.DataFrame({"item_ids": [1003]}),
            InputError,
            "histories: column 'item_ids' is int64; expected lists of ids",
        ),
        (
            pd.DataFrame({"item_ids": [[1003, 1004]], "timestamps": [[9, 3]]}),
            InputError,
            "histories: user 0: the history is not in time order, oldest first",
        ),
        ("recs.parquet", InputError, "recs.parquet: no such file"),
    ],
)
def test_histories_that_cannot_be_used_are_one_line(
    model: Model, histories: Any, error: type[BatchrecError], message: str
) -> None:
    with pytest.raises(error) as refused:
        model.recommend(histories)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_unknown_items_and_too_many_are_refused_as_by_recommend(model: Model) -> None:
    with pytest.raises(ConfigError, match=r"^the model knows none of 5, 6\. Pass ids that are int64 like \d+$"):
        model.similar([1003, 5, 6])
    with pytest.raises(InputError, match=r"^items: .*; expected ids$"):
        model.similar([[1003]])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"^k 41: the model knows 40 items\. Pass 40 or less$"):
        model.recommend(HISTORIES, 41)
    for job in (model.recommend, model.similar):
        with pytest.raises(ConfigError, match=r"^--top-k 0: expected 1 or more$"):
            job([], 0)


def test_text_ids_are_shown_as_they_are() -> None:
    rows = Rows(pa.table({"item_id": ["007", "<b>"], "score": [1.23456, 2]}))
    assert [line.split() for line in repr(rows).split("\n")] == [
        ["item_id", "score"],
        ["007", "1.2346"],
        ["<b>", "2.0000"],
    ]
    assert "&lt;b&gt;" in rows._repr_html_()
    assert rows.to_pandas()["item_id"].tolist() == ["007", "<b>"]
    assert (len(rows), repr(Rows(pa.table({"item_id": range(21)}))).splitlines()[-1]) == (2, "21 rows")


def test_the_model_says_what_it_is(model: Model) -> None:
    expected = f"Model(causal encoder, 40 items, newest 8 of a history, {trained_model()})"
    assert (repr(model), model.manifest.n_items) == (expected, N_ITEMS)
