"""The check of a GPU: run on the CPU at tiny sizes, with sections that fail, and with a time limit."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import gpu_check
from examples.gpu.workspace import Row, Workspace

Outcome = dict[str, Any]


def run(out: Path, *options: str) -> tuple[int, dict[str, Outcome], str]:
    """The exit code, the sections of the JSON file, and the Markdown."""
    code = gpu_check.main(["--out", str(out), "--tiny", "--device", "cpu", *options])
    sections: dict[str, Outcome] = json.loads((out / "gpu-check.json").read_text())["sections"]
    return code, sections, (out / "gpu-check.md").read_text()


def figures(outcome: Outcome) -> dict[str, float | None]:
    return {row["what"]: row["value"] for row in outcome["rows"]}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_every_section_runs_on_the_cpu(tmp_path: Path) -> None:
    code, sections, text = run(tmp_path, "--max-minutes", "30")
    assert {name: outcome["error"] for name, outcome in sections.items()} == dict.fromkeys(gpu_check.SECTIONS)
    assert code == 0
    parity = figures(sections["parity"])
    # On the CPU, fp32 is compared with itself.
    assert parity["causal, seen allow, fp32"] == parity["masked, seen block, fp32"] == 1
    assert parity["masked, seen block, fp16: seen items recommended"] == 0
    assert set(figures(sections["ties"]).values()) == {1}
    assert len(sections["score"]["rows"]) >= 14
    assert {what for what in figures(sections["many-items"]) if "top 100" in what}
    assert figures(sections["train"])["training"] > 0  # type: ignore[operator]
    assert text.count("```text") == 4
    assert all(f"### {name}" in text for name in gpu_check.SECTIONS)


def good(_: Workspace) -> Iterator[Row]:
    yield Row("a figure", "5 s", 5.0)


def bad(_: Workspace) -> Iterator[Row]:
    yield Row("before", "1 s", 1.0)
    raise ValueError("two\nlines | and a bar")


def endless(_: Workspace) -> Iterator[Row]:
    yield Row("before", "1 s", 1.0)
    while True:
        time.sleep(0.01)


def test_an_error_in_one_section_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "SECTIONS", {"bad": bad, "good": good})
    code, sections, text = run(tmp_path)
    assert code == 1
    assert figures(sections["bad"]) == {"before": 1.0}
    assert sections["bad"]["error"].startswith("ValueError: two lines | and a bar (test_gpu_check.py:")
    assert figures(sections["good"]) == {"a figure": 5.0}
    assert sections["good"]["error"] is None
    assert "| error | ValueError: two lines / and a bar (" in text
    assert run(tmp_path, "--only", "good")[0] == 0


def test_the_time_limit_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "SECTIONS", {"endless": endless, "good": good})
    code, sections, text = run(tmp_path, "--max-minutes", "0.005")
    assert code == 1
    assert list(sections) == ["endless"]
    assert figures(sections["endless"]) == {"before": 1.0}
    assert "--max-minutes is over" in sections["endless"]["error"]
    assert "| before | 1 s |" in text
