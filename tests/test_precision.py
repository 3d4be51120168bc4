import logging
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest

from batchrec.batching import scoring_tokens, seen_pairs
from batchrec.config import Objective, ScoringConfig, ScoringPrecision
from batchrec.precision import at_precision
from batchrec.ranker import Ranker, Ranking
from batchrec.schemas import FIRST_ITEM
from batchrec.scoring import score
from batchrec.training.export import export_encoder
from tests.models import (
    SUCCESSIONS,
    indexed,
    learned_model,
    run_cli,
    small_encoder,
    succession_sequences,
    trained_model,
    training_sequences,
)

FEWER_BITS: list[ScoringPrecision] = ["fp16", "int8"]
fewer_bits = pytest.mark.parametrize("precision", FEWER_BITS)
SIZE = 200


@fewer_bits
def test_scores_are_rounded_and_nothing_else(precision: ScoringPrecision, objective: Objective, tmp_path: Path) -> None:
    encoder = small_encoder(SIZE, objective=objective)
    export_encoder(encoder, tmp_path / "encoder.onnx")
    contents = (tmp_path / "encoder.onnx").read_bytes()
    chance = np.random.default_rng(5)
    histories = indexed(*(chance.integers(FIRST_ITEM, SIZE, chance.integers(1, 9)).tolist() for _ in range(40)))
    users = np.arange(40)

    def ranking(precision: ScoringPrecision) -> Ranking:
        ranker = Ranker(contents, "cpu", precision)
        return ranker.rank(
            scoring_tokens(histories, users, encoder.shape), seen_pairs(histories, users), SIZE - FIRST_ITEM
        )

    exact, rounded = ranking("fp32"), ranking(precision)
    by_item = [dict(zip(*row, strict=True)) for row in zip(exact.items.tolist(), exact.scores.tolist(), strict=True)]
    expected = np.array(
        [[scores[item] for item in row] for scores, row in zip(by_item, rounded.items.tolist(), strict=True)]
    )
    is_there = np.isfinite(expected)
    assert (np.isfinite(rounded.scores) == is_there).all()
    errors = np.abs(rounded.scores[is_there] - expected[is_there])
    spread = exact.scores[np.isfinite(exact.scores)].std()
    assert errors.max() > 0
    assert errors.mean() < (0.002 if precision == "fp16" else 0.03) * spread


@fewer_bits
def test_offsets_hold_in_fewer_bits(precision: ScoringPrecision, tmp_path: Path) -> None:
    encoder = small_encoder(SIZE)
    export_encoder(encoder, tmp_path / "encoder.onnx")
    offsets = np.zeros(SIZE, np.float32)
    offsets[FIRST_ITEM : SIZE - 10], offsets[SIZE - 1] = -np.inf, 50
    ranker = Ranker((tmp_path / "encoder.onnx").read_bytes(), "cpu", precision, offsets)
    histories, users = indexed([3, 4], [5]), np.arange(2)
    tokens = scoring_tokens(histories, users, encoder.shape)
    ranking, states = ranker.rank_and_encode(tokens, seen_pairs(histories, users), 12)
    assert {item for row in ranking.items[:, :10].tolist() for item in row} == set(range(SIZE - 10, SIZE))
    assert (ranking.items[:, 0] == SIZE - 1).all()
    assert (ranking.scores[:, 10:] == -np.inf).all()
    assert states.dtype == np.float32


@fewer_bits
def test_what_was_learned_is_still_known(precision: ScoringPrecision, objective: Objective, tmp_path: Path) -> None:
    config = ScoringConfig(device="cpu", precision=precision, top_k=1)
    score(succession_sequences(), learned_model(objective), config, tmp_path / "recs.parquet")
    recs = pq.read_table(tmp_path / "recs.parquet").to_pylist()
    hits = [row["item_id"] == SUCCESSIONS[row["user_id"]][-1] for row in recs]
    assert len(hits) == len(SUCCESSIONS)
    assert sum(hits) > 0.95 * len(hits)


def test_int8_leaves_the_embeddings_that_are_looked_up_as_they_are(tmp_path: Path) -> None:
    encoder = small_encoder(SIZE)
    export_encoder(encoder, tmp_path / "encoder.onnx")
    graph = onnx.load_model_from_string(at_precision((tmp_path / "encoder.onnx").read_bytes(), "int8")).graph
    weights = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
    (looked_up,) = (
        node.input[0]
        for node in graph.node
        if node.op_type == "Gather"
        and weights.get(node.input[0]) is not None
        and weights[node.input[0]].shape[:1] == (SIZE,)
    )
    assert np.array_equal(weights[looked_up], encoder.item_embeddings.weight.detach().numpy())
    assert {node.op_type for node in graph.node} & {"MatMulInteger"}


def test_the_tools_have_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    contents = (trained_model() / "encoder.onnx").read_bytes()
    caplog.clear()
    for precision in FEWER_BITS:
        at_precision(contents, precision)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_int8_on_a_gpu_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "recs.parquet"
    options = ("--precision", "int8", "--device", "cuda")
    assert (
        run_cli("score", "--sequences", training_sequences(), "--model", trained_model(), "--out", out, *options) == 2
    )
    assert "--precision int8: expected fp16 or fp32 on a GPU" in capsys.readouterr().err
    assert not out.exists()
