"""SQL finds the faults of a table of similar items, independently of the job."""

from pathlib import Path

import pyarrow as pa
import pytest

from batchrec.config import SimilarConfig
from batchrec.errors import GateError, InputError
from batchrec.rules.rulebook import read_rule_tables
from batchrec.similarity.table_check import measure_similar, refuse_broken
from batchrec.tables.parquet import write_parquet
from batchrec.tables.schemas import similar_schema
from tests.support.damage import flip_a_bit

Row = tuple[int, int, int, float]
RIGHT: list[Row] = [(1, 1, 2, 0.5), (1, 2, 3, 0.25), (2, 1, 1, 0.5)]


def write_similar(path: Path, rows: list[Row]) -> Path:
    schema = similar_schema(pa.int64(), with_titles=False, made_by={})
    columns = [*zip(*rows, strict=True), ["vectors"] * len(rows), ["m1"] * len(rows)]
    write_parquet(
        [pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema)], schema, path
    )
    return path


@pytest.mark.parametrize(
    ("rows", "faults"),
    [
        (RIGHT, {}),
        ([*RIGHT, (3, 1, 3, 0.5)], {"items_similar_to_themselves": 1}),
        ([*RIGHT, (2, 2, 1, 0.5)], {"duplicates": 1}),
        ([*RIGHT, (3, 2, 1, 0.5)], {"items_with_gaps_in_ranks": 1}),
        ([*RIGHT, (3, 1, 1, float("nan"))], {"scores_that_are_not_finite": 1}),
    ],
)
def test_each_fault_is_counted(tmp_path: Path, rows: list[Row], faults: dict[str, int]) -> None:
    table = write_similar(tmp_path / "s.parquet", rows)
    figures = measure_similar(table, SimilarConfig())
    assert {name: number for name, number in figures.faults.items() if number} == faults
    assert figures.broken_rules == []
    if faults:
        with pytest.raises(GateError, match=r"the table has 1 \w+.*: a bug. out.parquet stays as it was"):
            refuse_broken(table, Path("out.parquet"), {}, SimilarConfig())
    else:
        refuse_broken(table, Path("out.parquet"), {}, SimilarConfig())


def test_rows_that_break_a_rule_are_counted_with_an_example(tmp_path: Path) -> None:
    table = write_similar(tmp_path / "s.parquet", RIGHT)
    (tmp_path / "block.csv").write_text("item_id,valid_to\n2,\n3,2024-05-31\n", encoding="utf-8")
    (tmp_path / "allow.csv").write_text("item_id\n2\n3\n", encoding="utf-8")
    config = SimilarConfig(block=str(tmp_path / "block.csv"), allow=str(tmp_path / "allow.csv"), run_date="2024-06-01")
    broken = {rule.rule: (rule.n_rows, rule.example) for rule in measure_similar(table, config).broken_rules}
    assert broken == {
        "--allow": (1, "item '2', rank 1, item '1'"),
        "--block": (1, "item '1', rank 1, item '2'"),
    }
    with pytest.raises(GateError, match=r"1 rows that break --allow \(item '2', rank 1, item '1'\), 1 rows"):
        refuse_broken(table, Path("out.parquet"), read_rule_tables(config.rules), config)


def test_a_changed_table_is_an_error(tmp_path: Path) -> None:
    table = write_similar(tmp_path / "s.parquet", RIGHT)
    flip_a_bit(table)
    with pytest.raises(InputError, match=r"s\.parquet: cannot be read"):
        measure_similar(table, SimilarConfig())
