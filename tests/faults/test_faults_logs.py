"""Damaged logs, rule tables and states give the right table, or an error of one line.

Logs and rules are compared with an independent reader: see mutated_logs.py, mutated_rules.py and plain_logs.py. States
are those of mutated_states.py.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults import counts
from tests.support.pages import ROOT

pytestmark = pytest.mark.slow

N_MUTATIONS = 10_000 if counts.IS_LONG else 60
# If a library crashes the process, the rest of its mutations is lost.
AT_A_TIME = 1000
PATIENCE_S = 1800


@pytest.mark.parametrize("first", range(0, N_MUTATIONS, AT_A_TIME))
def test_a_mutated_csv_log_gives_the_right_table_or_is_refused(first: int, tmp_path: Path) -> None:
    found = _mutate("tests.faults.mutated_logs", ["csv"], first, tmp_path)
    n_mutations = sum(found.values())
    assert found["equal to an independent table"] > 0.2 * n_mutations
    assert found["nothing lost, nothing invented"] > 0.02 * n_mutations
    assert found["refused"] > 0.05 * n_mutations


@pytest.mark.parametrize("first", range(0, N_MUTATIONS, AT_A_TIME))
def test_a_mutated_parquet_log_gives_the_right_table_or_is_refused(first: int, tmp_path: Path) -> None:
    found = _mutate("tests.faults.mutated_logs", ["parquet"], first, tmp_path)
    n_mutations = sum(found.values())
    assert found["equal to an independent table"] > 0.2 * n_mutations
    assert found["refused"] > 0.1 * n_mutations
    assert found["a table of a file that pyarrow refuses"] < 0.2 * n_mutations


@pytest.mark.parametrize("first", range(0, N_MUTATIONS, AT_A_TIME))
def test_a_mutated_rule_table_is_read_correctly_or_is_refused(first: int, tmp_path: Path) -> None:
    found = _mutate("tests.faults.mutated_rules", [], first, tmp_path)
    n_mutations = sum(found.values())
    assert found["equal to an independent table"] > 0.2 * n_mutations
    assert found["refused"] > 0.1 * n_mutations


@pytest.mark.parametrize("first", range(0, N_MUTATIONS, AT_A_TIME))
def test_only_complete_tables_are_published_from_a_damaged_state(first: int, tmp_path: Path) -> None:
    found = _mutate("tests.faults.mutated_states", [], first, tmp_path)
    n_mutations = sum(found.values())
    assert found["done"] > 0.2 * n_mutations
    assert found["refused"] > 0.2 * n_mutations


def _mutate(module: str, arguments: Sequence[str], first: int, folder: Path) -> Counter[str]:
    """Run some mutations in a process of their own; return the number of each outcome. None may be wrong."""
    last = min(first + AT_A_TIME, N_MUTATIONS)
    with (folder / "said").open("w", encoding="utf-8") as said:
        ended = subprocess.run(
            [sys.executable, "-m", module, *arguments, str(folder), str(first), str(last)],
            cwd=ROOT,
            stdout=said,
            stderr=said,
            check=False,
            timeout=PATIENCE_S,
        )
    lines = [json.loads(line) for line in (folder / "outcomes").read_text(encoding="utf-8").splitlines()]
    assert ended.returncode == 0, (lines[-1:], (folder / "said").read_text(encoding="utf-8")[-2000:])
    done = {line["number"]: line["done"] for line in lines if "done" in line}
    ends = [line for line in lines if "outcome" in line]
    assert [line["number"] for line in ends] == list(range(first, last))
    assert [(done[line["number"]], line) for line in ends if line["outcome"].startswith("WRONG")] == []
    found = Counter(line["outcome"] for line in ends)
    name = " ".join([module.rpartition("_")[2], *arguments])
    for outcome, number in found.items():
        counts.add(f"mutated {name}: {outcome}", number)
    return found
