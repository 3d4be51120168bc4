"""score --explain: the reasons of rows, whichever way a row was made."""

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig
from batchrec.scoring.commit import commit
from batchrec.scoring.publish import score_to
from batchrec.scoring.report import ScoringReport
from batchrec.scoring.score import score
from batchrec.tables.schemas import PARTS, REASON_COLUMNS
from tests.engines.test_scoring_workers import OneWorker
from tests.scoring.test_shards import TABLES
from tests.support.models import SUCCESSIONS, learned_model, run_cli, trained_model, write_sequences
from tests.support.params import slow_except
from tests.system.test_resume import Rankings, assert_stops

ITEMS = [1000 + number for number in range(30)]
# The last three are cold, without a history, and without an item left.
HISTORIES = SUCCESSIONS | {801: [7, 8], 802: [], 803: ITEMS}
# One user per run of the model: the last bits of scores do not depend on the other users of a batch.
EXACT: dict[str, Any] = {"device": "cpu", "batch_tokens": 1, "run_date": "2024-06-01", "top_k": 4}


def scored(folder: Path, name: str = "recs", histories: Any = HISTORIES, **options: Any) -> pa.Table:
    score_of(folder, name, histories, **options)
    return pq.read_table(folder / f"{name}.parquet")


def score_of(folder: Path, name: str, histories: Any = HISTORIES, **options: Any) -> ScoringReport:
    sequences = write_sequences(folder / "sequences.parquet", histories)
    config = ScoringConfig(**{**EXACT, "explain": True, **options})
    return score(sequences, learned_model("causal"), config, folder / f"{name}.parquet")


def reasons_of(table: pa.Table) -> dict[tuple[int, int], tuple[Any, ...]]:
    """The reasons of each user and item."""
    return {(row["user_id"], row["item_id"]): tuple(row[name] for name in REASON_COLUMNS) for row in table.to_pylist()}


def write_tables(folder: Path, *names: str) -> dict[str, str]:
    for name in names:
        (folder / f"{name}.csv").write_text(TABLES[name])
    return {name: str(folder / f"{name}.csv") for name in names}


@pytest.mark.slow
def test_the_parts_that_carry_rows_name_items_of_the_history(tmp_path: Path) -> None:
    table = scored(tmp_path)
    counts = dict.fromkeys(PARTS, 0)
    for row in table.to_pylist():
        items, weights = row["because_items"], row["because_weights"]
        assert len(items) == len(weights) == len(set(items)) <= 3
        assert set(items) <= set(HISTORIES[row["user_id"]])
        assert all(weight > 0 for weight in weights)
        assert sum(weights) < 1.002
        if row["source"] == "model":
            counts[row["carried_by"]] += 1
            assert (row["carried_by"] == "popularity") == (not items)
        else:
            assert (row["carried_by"], items) == (None, [])
    assert counts["encoder"]
    assert counts["neighbours"]
    assert len(table.filter(pa.compute.not_equal(table["source"], "model"))) == 8


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ((), {}),
        (("block", "pins", "segments", "items", "block_for_user"), {}),
        (("candidates",), {}),
        pytest.param((), {"pins": "pin.csv", "diversity": 0.5}, marks=pytest.mark.slow),
        pytest.param((), {"boost": "boost.csv", "seen": "allow"}, marks=pytest.mark.slow),
    ],
    ids=["plain", "rules", "candidates", "an unknown pin and diversity", "boost"],
)
def test_all_else_is_as_without_it_and_rules_change_no_reasons(
    names: tuple[str, ...], options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("boost.csv").write_text("item_id,factor\n1003,2\n1004,0.5\n")
    # The histories hold the pin, but the model does not know it.
    Path("pin.csv").write_text("item_id,position\n7,2\n")
    options = options | write_tables(tmp_path, *names)
    table = scored(tmp_path, **options)
    plain = scored(tmp_path, "plain", explain=False, **options)
    assert table.drop_columns(list(REASON_COLUMNS)).equals(plain)
    everything = reasons_of(scored(tmp_path, "all", top_k=len(ITEMS), seen="allow"))
    nothing: tuple[Any, ...] = (None, [], [])
    for (user, item), own in reasons_of(table).items():
        is_known = item in ITEMS and bool(set(HISTORIES.get(user, [])) & set(ITEMS))
        assert own == (everything[user, item] if is_known else nothing)


def test_without_it_nothing_of_the_table_names_it(tmp_path: Path) -> None:
    plain, table = scored(tmp_path, "plain", explain=False), scored(tmp_path)
    assert not set(REASON_COLUMNS) & set(plain.column_names)
    made_by = [json.loads(each.schema.metadata[b"batchrec.made_by"]) for each in (plain, table)]
    assert made_by[0] | {"explain": True} == made_by[1]


def test_carried_over_rows_keep_their_reasons(tmp_path: Path) -> None:
    scored(tmp_path, "earlier")
    tonight = HISTORIES | {3: [*HISTORIES[3], 1001], 4: HISTORIES[4][1:], 900: [1003, 1004]}
    report = score_of(tmp_path, "carried", tonight, previous=str(tmp_path / "earlier.parquet"))
    assert report.users_carried_over == len(SUCCESSIONS) - 2
    assert pq.read_table(tmp_path / "carried.parquet").equals(scored(tmp_path, "whole", tonight))


@pytest.mark.parametrize("earlier", [True, False])
def test_a_table_with_other_columns_is_not_carried_over(earlier: bool, tmp_path: Path) -> None:
    scored(tmp_path, "earlier", explain=earlier)
    report = score_of(tmp_path, "recs", previous=str(tmp_path / "earlier.parquet"), explain=not earlier)
    assert report.users_carried_over == 0


def test_a_stopped_scoring_resumes_to_the_same_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", HISTORIES)
    config = ScoringConfig(**{**EXACT, "explain": True, "chunk_size": 10, "workers": 1})

    def run(name: str) -> None:
        score(sequences, learned_model("causal"), config, tmp_path / name, tmp_path / "checkpoints")

    assert_stops(monkeypatch, lambda patch: Rankings(patch, maximum=5), lambda: run("recs.parquet"))
    ranked = Rankings(monkeypatch)
    run("recs.parquet")
    assert ranked.n == 13 - 5
    score(sequences, learned_model("causal"), config, tmp_path / "whole.parquet")
    assert (tmp_path / "recs.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_shards_and_workers_make_the_same_reasons(tmp_path: Path) -> None:
    plain, sequences = scored(tmp_path), tmp_path / "sequences.parquet"
    options = {**EXACT, "explain": True}
    for index in range(3):
        score_to(
            str(tmp_path / "shards"), sequences, learned_model("causal"), ScoringConfig(**options, shard=f"{index}/3")
        )
    commit(tmp_path / "shards", str(tmp_path / "merged.parquet"))
    assert pq.read_table(tmp_path / "merged.parquet").equals(plain, check_metadata=True)
    by_worker = ScoringConfig(**options, engine="ray")
    score(sequences, learned_model("causal"), by_worker, tmp_path / "by_worker.parquet", engine=OneWorker())
    assert pq.read_table(tmp_path / "by_worker.parquet").equals(plain, check_metadata=True)


@pytest.mark.parametrize("precision", slow_except(["fp16", "int8"], "fp16"))
def test_other_precisions_name_nearly_the_same_reasons(precision: str, tmp_path: Path) -> None:
    exact, other = reasons_of(scored(tmp_path)), reasons_of(scored(tmp_path, "other", precision=precision))
    both = exact.keys() & other.keys()
    assert len(both) > 0.9 * len(exact)
    assert np.mean([exact[key][0] == other[key][0] for key in both]) > 0.95


def test_a_model_without_a_blend_is_all_encoder(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [1000, 1001], 2: [1002], 3: [7]})
    assert (
        run_cli(
            *("score", "--sequences", sequences, "--model", trained_model(), "--out", tmp_path / "recs.parquet"),
            *("--device", "cpu", "--explain"),
        )
        == 0
    )
    rows = pq.read_table(tmp_path / "recs.parquet").to_pylist()
    assert {(row["source"], row["carried_by"]) for row in rows} == {
        ("model", "encoder"),
        ("popular", None),
        ("popular_all_time", None),
    }


def test_leaving_the_named_item_out_lowers_the_score_most(tmp_path: Path) -> None:
    """In the mean over rows by more than three standard errors, and for the encoder and the neighbours apart."""
    chance = Random(1)  # noqa: S311 - a sample, no secret
    users = {user: items for user, items in SUCCESSIONS.items() if len(items) >= 5}
    rows = [row for row in scored(tmp_path, histories=users).to_pylist() if row["because_items"]]
    shortened: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        history, named = users[row["user_id"]], row["because_items"][0]
        other = chance.choice([item for item in history if item != named])
        shortened[2 * number] = [item for item in history if item != named]
        shortened[2 * number + 1] = [item for item in history if item != other]
    everything = scored(tmp_path, "all", shortened, top_k=len(ITEMS), seen="allow")
    scores = {(row["user_id"], row["item_id"]): row["score"] for row in everything.to_pylist()}
    for part in ("encoder", "neighbours"):
        gains = np.array(
            [
                # The score without the other item less that without the named one.
                scores[2 * number + 1, row["item_id"]] - scores[2 * number, row["item_id"]]
                for number, row in enumerate(rows)
                if row["carried_by"] == part
            ]
        )
        assert len(gains) > 30
        assert gains.mean() > 3 * gains.std() / len(gains) ** 0.5
