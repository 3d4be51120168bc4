"""Model directories with flipped, cut, inserted and swapped bytes, with their old hashes and with new ones."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import counts
from tests.support.models import trained_model, training_sequences
from tests.support.pages import ROOT

pytestmark = pytest.mark.slow

N_MUTATIONS = 10_000 if counts.IS_LONG else 200
# If onnxruntime crashes the process, the rest of its mutations is lost.
AT_A_TIME = 1000
PATIENCE_S = 1800


@pytest.mark.parametrize("first", range(0, N_MUTATIONS, AT_A_TIME))
def test_a_mutated_model_gives_the_same_table_or_is_refused(first: int, tmp_path: Path) -> None:
    last = min(first + AT_A_TIME, N_MUTATIONS)
    command = [sys.executable, "-m", "tests.faults.mutated_models", trained_model(), training_sequences(), tmp_path]
    with (tmp_path / "said").open("w", encoding="utf-8") as said:
        ended = subprocess.run(
            [*map(str, command), str(first), str(last)],
            cwd=ROOT,
            stdout=said,
            stderr=said,
            check=False,
            timeout=PATIENCE_S,
        )
    lines = [json.loads(line) for line in (tmp_path / "outcomes").read_text(encoding="utf-8").splitlines()]
    assert ended.returncode == 0, (lines[-1], (tmp_path / "said").read_text(encoding="utf-8")[-2000:])
    done = {line["number"]: line["done"] for line in lines if "done" in line}
    ends = [line for line in lines if "outcome" in line]
    assert [line["number"] for line in ends] == list(range(first, last))
    assert [(done[line["number"]], line) for line in ends if line["outcome"].startswith("WRONG")] == []
    found = Counter((line["sealed"], line["outcome"]) for line in ends)
    # A few mutations change nothing, and some of those with new hashes are valid models.
    assert found[False, "refused"] > 0.9 * (last - first) / 2
    assert found[True, "refused"] > 0.4 * (last - first) / 2
    assert found[True, "other"] > 0
    for (is_sealed, what), number in found.items():
        counts.add(f"mutated models {'with new hashes' if is_sealed else 'with old hashes'}: {what}", number)
