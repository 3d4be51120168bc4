"""A model of another log is refused, or causes a warning, before any user is scored."""

import logging
from pathlib import Path

import pyarrow as pa
import pytest

from batchrec.config import RecommendConfig, ScoringConfig, TrainingConfig
from batchrec.errors import ModelError
from batchrec.model.directory import load_model
from batchrec.nightly.gates.model import held_out_items
from batchrec.scoring.recommend import recommend
from batchrec.scoring.score import score
from tests.support.models import run_cli, string_model, trained_model, write_sequences


def items(*known: int, n_unknown: int = 0) -> dict[int, list[int]]:
    """Users with one item each: known ones, from 1000 to 1039, and unknown ones from 1 on."""
    return dict(enumerate([[item] for item in [*known, *range(1, n_unknown + 1)]]))


def scored(histories: dict[int, list[int]], folder: Path) -> int:
    sequences = write_sequences(folder / "sequences.parquet", histories)
    return score(sequences, trained_model(), ScoringConfig(device="cpu"), folder / "recs.parquet").users


def test_a_model_that_knows_none_of_the_items_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {7: [5, 6], 8: [4]})
    out = tmp_path / "recs.parquet"
    assert run_cli("score", "--sequences", sequences, "--model", trained_model(), "--out", out) == 4
    (line,) = capsys.readouterr().err.splitlines()
    first = load_model(trained_model()).vocabulary.item_ids[0]
    assert "knows 0 of the 3 items" in line
    assert f"its ids are int64, such as {first}, unknown ones such as 4" in line
    assert "train again" in line
    assert not out.exists()


def test_padded_ids_are_still_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = load_model(string_model()).vocabulary.item_ids.to_pylist()[:3]
    sequences = write_sequences(
        tmp_path / "sequences.parquet", {1: [f"{item}   " for item in known]}, item_type=pa.string()
    )
    with caplog.at_level(logging.WARNING):
        score(sequences, string_model(), ScoringConfig(device="cpu"), tmp_path / "recs.parquet")
    assert "knows" not in caplog.text


@pytest.mark.parametrize(("kind", "item"), [("text for integers", "'1001'"), ("integers for text", "1001")])
def test_a_model_whose_ids_have_another_type_is_refused(
    kind: str, item: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # As text, 1001 is an item that the model knows.
    is_text = kind == "text for integers"
    histories = {7: ["1001"]} if is_text else {7: [1001]}
    item_type = pa.string() if is_text else pa.int64()
    sequences = write_sequences(tmp_path / "sequences.parquet", histories, item_type=item_type)
    model, out = trained_model() if is_text else string_model(), tmp_path / "recs.parquet"
    assert run_cli("score", "--sequences", sequences, "--model", model, "--out", out) == 4
    (line,) = capsys.readouterr().err.splitlines()
    known = load_model(model).vocabulary.item_ids[0].as_py()
    types = ("int64", "string") if is_text else ("string", "int64")
    assert (
        f"its item ids are {types[0]}, such as {known!r}; those of {sequences} are {types[1]}, such as {item}" in line
    )
    assert not out.exists()


@pytest.mark.parametrize(("n_unknown", "is_warned"), [(0, False), (4, False), (5, True)])
def test_a_model_that_knows_less_than_half_of_the_items_is_a_warning(
    n_unknown: int, is_warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    histories = items(1001, 1002, 1003, 1004, n_unknown=n_unknown)
    # The share is of items, not of events.
    histories |= {100 + n: [1001] * 9 for n in range(20)}
    with caplog.at_level(logging.WARNING, "batchrec"):
        assert scored(histories, tmp_path) == len(histories)
    warnings = [record.getMessage() for record in caplog.records if "knows" in record.getMessage()]
    assert len(warnings) == is_warned
    if is_warned:
        assert "knows 4 of the 9 items" in warnings[0]
        assert "unknown ones such as 1." in warnings[0]


def test_a_log_without_items_is_scored(tmp_path: Path) -> None:
    assert scored({1: [], 2: []}, tmp_path) == 2


def test_ids_beyond_int64_are_an_error_of_the_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [2**64 - 1]}, item_type=pa.uint64())
    out = tmp_path / "recs.parquet"
    assert run_cli("score", "--sequences", sequences, "--model", trained_model(), "--out", out) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "sequences.parquet: cannot be read: Integer value 18446744073709551615 not in range" in line


def test_a_single_known_item_is_enough_to_score(tmp_path: Path) -> None:
    assert scored(items(1001, n_unknown=99), tmp_path) == 100


def test_a_catalogue_of_another_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text("movieId,title\ntt1,Film\ntt2,Other\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"knows none of the 2 items .* int64, such as 1\d+, theirs such as 'tt1'"):
        recommend(["Film"], trained_model(), RecommendConfig(items=str(tmp_path / "movies.csv")))


def test_the_error_for_an_unknown_id_shows_a_known_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("recommend", "--model", trained_model(), "item-1001") == 2
    first = load_model(trained_model()).vocabulary.item_ids[0]
    assert f"knows none of item-1001. Pass ids that are int64 like {first}" in capsys.readouterr().err


def test_the_nightly_evaluation_refuses_a_model_of_another_log(tmp_path: Path) -> None:
    for number, (item, item_type) in enumerate(((5, pa.int64()), ("1001", pa.string()))):
        histories = {user: [item, item, item] for user in range(9)}
        sequences = write_sequences(tmp_path / f"{number}.parquet", histories, item_type=item_type)
        with held_out_items(sequences, TrainingConfig()) as held_out, pytest.raises(ModelError):
            held_out.measure(trained_model(), ScoringConfig(device="cpu"))
