import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from batchrec.benchmark import bench, isolated, limits
from batchrec.benchmark.bench import ENCODER
from batchrec.benchmark.isolated import Measurement, run_isolated
from batchrec.benchmark.models import write_instant
from batchrec.benchmark.polars_sequences import polars_sequences
from batchrec.benchmark.synthetic import SHAPES, Shape, shorten_histories, take_users, write_ratings
from batchrec.config import EncoderShape, Objective, ScoringConfig, SequencesConfig
from batchrec.errors import ConfigError
from batchrec.model.directory import load_model
from batchrec.scoring.score import score
from batchrec.sequences.build import build_sequences
from batchrec.training import wide_top_k
from batchrec.training.encoder import Encoder
from tests.support.forkserver import CONTEXT, start_server
from tests.support.holding import hold
from tests.support.models import longs, run_cli, trained_model, training_histories, training_sequences

SMALL = Shape(users=300, items=200, ratings=12_000)


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("log") / "ratings.csv"
    write_ratings(SMALL, 3, file)
    return file


def test_a_log_has_its_shape_and_no_item_twice(ratings: Path) -> None:
    log = pd.read_csv(ratings)
    assert list(log) == ["userId", "movieId", "rating", "timestamp"]
    assert (len(log), log["userId"].nunique()) == (SMALL.ratings, SMALL.users)
    assert not log.duplicated(["userId", "movieId"]).any()
    assert 0.8 * SMALL.items < log["movieId"].nunique() <= SMALL.items


def test_a_log_is_as_uneven_as_movielens(tmp_path: Path) -> None:
    shape = SHAPES["ml-25m"].fraction(1 / 64)
    write_ratings(shape, 0, tmp_path / "ratings.csv")
    log = pd.read_csv(tmp_path / "ratings.csv")
    by_user = log["userId"].value_counts()
    # MovieLens-25M: minimum 20, median 71.
    assert by_user.min() == 20
    assert 60 < by_user.median() < 85
    by_item = log["movieId"].value_counts()
    assert by_item.head(len(by_item) // 100).sum() > 0.3 * shape.ratings


def test_one_seed_gives_one_log_and_another_seed_another(ratings: Path, tmp_path: Path) -> None:
    for seed in (3, 4):
        write_ratings(SMALL, seed, tmp_path / f"{seed}.csv")
    assert (tmp_path / "3.csv").read_bytes() == ratings.read_bytes()
    assert (tmp_path / "4.csv").read_bytes() != ratings.read_bytes()


@pytest.mark.parametrize("ratings", [9, 251])
def test_an_impossible_shape_is_refused(ratings: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--ratings"):
        write_ratings(Shape(10, 50, ratings), 0, tmp_path / "ratings.csv")
    write_ratings(Shape(10, 50, 250), 0, tmp_path / "ratings.csv")


@pytest.mark.parametrize("length", [3, 8, 20])
def test_arithmetic_is_what_torch_counts(length: int, objective: Objective) -> None:
    shape = EncoderShape(objective, max_len=12, hidden_size=16, n_layers=3, n_heads=2, dropout=0.0)
    encoder = Encoder(52, shape).eval()
    n_places = min(length + (objective == "masked"), 12)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder.score_last_place(torch.full((1, n_places), 5))
    # torch also counts pairs of places that a causal encoder skips, and the scores of PAD and MASK.
    counted = counter.get_total_flops() - 2 * 16 * 2
    if objective == "causal":
        counted -= 2 * 4 * 16 * (n_places * (n_places - 1) // 2)
    assert limits.scoring_flops(longs([length]), shape, n_items=50) == pytest.approx(counted)


def test_arithmetic_adds_up_over_users() -> None:
    alone = [limits.scoring_flops(longs([length]), ENCODER, 1000) for length in (5, 128, 4000)]
    assert limits.scoring_flops(longs([5, 128, 4000]), ENCODER, 1000) == pytest.approx(sum(alone))
    assert alone[1] == alone[2]


def test_the_instant_model_gives_different_lists_without_repeats(tmp_path: Path) -> None:
    write_instant(trained_model(), tmp_path / "instant")
    config = ScoringConfig(device="cpu", top_k=7)
    report = score(training_sequences(), tmp_path / "instant", config, tmp_path / "recs.parquet")
    assert report.rows == 7 * len(training_histories())
    lists: dict[int, list[int]] = {}
    for row in pq.read_table(tmp_path / "recs.parquet").to_pylist():
        lists.setdefault(row["user_id"], []).append(row["item_id"])
    assert all(len(set(items)) == 7 for items in lists.values())
    assert len({tuple(items) for items in lists.values()}) > 20
    assert load_model(tmp_path / "instant").vocabulary.item_ids.equals(load_model(trained_model()).vocabulary.item_ids)


def test_polars_makes_the_same_histories(ratings: Path, tmp_path: Path) -> None:
    build_sequences([str(ratings)], SequencesConfig(), tmp_path / "sequences.parquet")
    polars_sequences(ratings, tmp_path / "polars.parquet")
    own, others = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("sequences", "polars"))
    assert len(own) == len(others) == SMALL.users
    for mine, other in zip(own, others, strict=True):
        assert mine["user_id"] == other["userId"]
        assert mine["timestamps"] == other["timestamps"]
        assert sorted(mine["item_ids"]) == sorted(other["item_ids"])


def test_every_nth_user_loses_the_newest_item(tmp_path: Path) -> None:
    shorten_histories(training_sequences(), 7, tmp_path / "shorter.parquet")
    before, after = (pq.read_table(path).to_pylist() for path in (training_sequences(), tmp_path / "shorter.parquet"))
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        end = -1 if number % 7 == 0 else None
        shortened = {"item_ids": old["item_ids"][:end], "timestamps": old["timestamps"][:end]}
        assert new == {**old, **shortened, "also_seen": []}


def test_the_first_users_are_scored(tmp_path: Path) -> None:
    take_users(training_sequences(), 7, tmp_path / "first.parquet")
    before, after = (pq.read_table(path).to_pylist() for path in (training_sequences(), tmp_path / "first.parquet"))
    assert after == [{**row, "also_seen": []} for row in before[:7]]


@pytest.mark.slow
def test_a_stage_is_measured_in_its_own_process() -> None:
    small, large = run_isolated(hold, 1), run_isolated(hold, 300)
    assert large.value == 300 << 20
    assert 250 < large.peak_mib - small.peak_mib < 400
    assert large.seconds > 0


@pytest.mark.slow
def test_bench_reports_each_stage_next_to_its_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # A process that is forked measures the same as one that first imports torch.
    start_server()
    monkeypatch.setattr(isolated, "get_context", lambda _: CONTEXT)
    options = ("--users", 160, "--items", 150, "--ratings", 4000, "--top-k", 5, "--repeats", 1)
    assert run_cli("bench", *options, "--folder", tmp_path, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["device"] in {"cpu", "cuda"}
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert list(stages) == [
        "build-sequences",
        "the same by polars",
        "score",
        "score, all but the model",
        "score, 5% of users changed",
    ]
    for stage in stages.values():
        assert stage["ratio"] == pytest.approx(stage["seconds"] / stage["limit_seconds"])
        assert stage["peak_mib"] > 50
    assert (stages["build-sequences"]["n"], stages["score"]["n"]) == (4000, 160)
    assert (report["users"], report["scored_users"], report["has_groups"]) == (160, 160, False)
    assert report["items"] <= 150
    for growth in report["growth"]:
        assert growth["users"] == [10, 40, 160]
        slope = math.log(growth["seconds"][2] / growth["seconds"][0]) / math.log(16)
        assert growth["exponent"] == pytest.approx(slope)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_few_users_of_a_wide_catalogue_are_scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def in_this_process(function: Callable[..., Any], *arguments: Any) -> Measurement:
        started = time.perf_counter()
        value = function(*arguments)
        return Measurement(time.perf_counter() - started, 1.0, value)

    monkeypatch.setattr(bench, "run_isolated", in_this_process)
    monkeypatch.setitem(SHAPES, "3m-items", Shape(160, 150, 4000))
    monkeypatch.setitem(bench._SCORED_USERS, "3m-items", 30)
    monkeypatch.setattr(wide_top_k, "WIDE", 20)
    monkeypatch.setattr(bench, "is_installed", lambda: False)
    options = ("--shape", "3m-items", "--top-k", 5, "--repeats", 1, "--folder", tmp_path)
    assert run_cli("bench", *options) == 0
    text = capsys.readouterr().out
    assert "4,000 ratings of 160 users and" in text
    assert "30 of the users are scored" in text
    (scored,) = re.findall(r"^score  .* users .*$", text, re.MULTILINE)
    (ratio,) = re.findall(r"MiB +([\d.]+)", scored)
    (share,) = re.findall(r"score takes the top 5 by the maxima of groups, and reaches (\d+)% of the speed", text)
    assert float(share) == pytest.approx(100 / float(ratio), rel=0.1, abs=1)
    assert "by users:" not in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--users", 5), "--users, --items and --ratings together"),
        (("--users", 160, "--items", 3, "--ratings", 1600), "half of the items"),
        (("--repeats", 0), "--repeats"),
    ],
)
def test_impossible_options_are_refused(
    options: tuple[object, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("bench", *options) == 2
    assert said in capsys.readouterr().err
