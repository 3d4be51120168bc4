import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig
from batchrec.errors import InputError
from batchrec.scoring.inputs import ScoringInputs, read_inputs
from batchrec.scoring.score import score
from batchrec.scoring.scorer import ScorerParts, open_scorer
from tests.support.models import sequences_table, trained_model, training_histories, write_sequences

# Of the last three, two are cold and one has no history.
HISTORIES = training_histories() | {501: [7, 8], 502: [7], 503: []}


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    return write_sequences(tmp_path / "sequences.parquet", HISTORIES)


@pytest.fixture
def rules(tmp_path: Path) -> dict[str, Any]:
    tables = {
        "block": "item_id\n1003\n",
        "pins": "item_id,position\n1005,2\n",
        "segments": "user_id,segment\n1,a\n501,b\n900,b\n",
        "items": "movieId,title,genre\n1005,Five,x\n1030,Thirty,x\n",
        "block_for_user": "user_id,item_id\n2,1007\n",
    }
    for name, text in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return {name: str(tmp_path / f"{name}.csv") for name in tables}


def inputs_of(sequences: Path, **options: Any) -> ScoringInputs:
    return read_inputs(sequences, trained_model(), ScoringConfig(device="cpu", **options))


def shipped(parts: ScorerParts) -> ScorerParts:
    """Return what a worker gets."""
    copy: ScorerParts = pickle.loads(pickle.dumps(parts))  # noqa: S301 - pickled in the line itself
    return copy


def test_a_worker_makes_the_rows_of_score_without_the_files(
    sequences: Path, rules: dict[str, Any], tmp_path: Path
) -> None:
    score(sequences, trained_model(), ScoringConfig(device="cpu", **rules), tmp_path / "recs.parquet")
    inputs = inputs_of(sequences, **rules)
    chunks = list(inputs.chunks("cpu"))
    parts = shipped(inputs.parts)
    for file in (sequences, *map(Path, rules.values())):
        file.unlink()
    recs = open_scorer(parts).recs(pa.Table.from_batches(chunks))
    assert recs.equals(pq.read_table(tmp_path / "recs.parquet"))
    assert set(recs["user_id"].to_pylist()) == {*HISTORIES, 900}


def test_recs_take_any_width_of_the_types_and_no_also_seen(sequences: Path) -> None:
    scorer = open_scorer(inputs_of(sequences).parts)
    table = sequences_table(HISTORIES)
    wide = table.cast(
        pa.schema(
            [
                ("user_id", pa.int32()),
                ("item_ids", pa.large_list(pa.int32())),
                ("timestamps", pa.large_list(pa.int64())),
            ]
        )
    )
    assert scorer.recs(wide.append_column("country", pa.nulls(len(wide)))).equals(scorer.recs(table))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user_id", ["a"], "the sequences: Failed to parse string: 'a' as a scalar of type int64"),
        ("item_ids", [None], "the sequences: 1 null(s) in column 'item_ids'; expected none"),
        ("timestamps", [[5]], "the sequences: user 1: item_ids and timestamps are of unequal length"),
    ],
)
def test_recs_refuse_what_breaks_the_contract(column: str, values: list[Any], message: str, sequences: Path) -> None:
    table = sequences_table({1: [1000, 1001]})
    broken = table.set_column(table.schema.get_field_index(column), column, pa.array(values))
    with pytest.raises(InputError) as raised:
        open_scorer(inputs_of(sequences).parts).recs(broken)
    assert str(raised.value) == message
