"""The validation of the tested model asks the question of the test, unless --validate is given."""

from pathlib import Path
from typing import Literal

import pytest

from batchrec.config import EvaluationConfig, TrainingConfig, Validation
from batchrec.evaluation.evaluate import evaluate
from tests.support.logs import spread_log, write_log


class Trained(Exception):  # noqa: N818 - not an error
    """The training has begun; nothing else is tested here."""


@pytest.mark.parametrize(
    ("protocol", "given", "expected"),
    [
        ("leave-one-out", "auto", "last-item"),
        ("leave-one-out", "temporal", "temporal"),
        ("temporal", "auto", "auto"),
        ("temporal", "last-item", "last-item"),
    ],
)
def test_the_validation_asks_the_question_of_the_test(
    protocol: Literal["leave-one-out", "temporal"],
    given: Validation,
    expected: Validation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs: list[TrainingConfig] = []

    def train(_: Path, config: TrainingConfig, __: Path) -> None:
        configs.append(config)
        raise Trained

    monkeypatch.setattr("batchrec.evaluation.evaluate.train", train)
    sequences = write_log(tmp_path / "log.parquet", spread_log())
    with pytest.raises(Trained):
        evaluate(sequences, EvaluationConfig(protocol), TrainingConfig(validate=given), tmp_path / "evaluation.parquet")
    assert [config.validate for config in configs] == [expected]
