"""The metrics file that a monitor reads."""

from pathlib import Path

import pytest

from batchrec.errors import GateError, NothingToDo
from batchrec.nightly.rollback import roll_back
from tests.support.models import run_cli, training_histories
from tests.support.nights import Company, metric
from tests.support.params import slow_except


def metrics(file: Path) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


BROKEN = {
    "an option on the command line": (None, ["--gate-min-users", "7"]),
    "an unknown option": (None, ["--gate-min-user", "7"]),
    "an option of another type": (None, ["--keep", "many"]),
    "a value in the file": ("[run]\nkeep = 0\n", []),
    "a key in the file": ("[run]\nkeeep = 3\n", []),
    "a job's option in the file": ("[score]\ntop-k = 0\n", []),
    "a file that is not TOML": ("[run\n", []),
    "a missing file": (None, ["--config", "nowhere.toml"]),
    "a rule table that is also the output": ("[score]\nblock = 'recs.parquet'\n", []),
    "a date in the future": (None, ["--run-date", "2999-01-01"]),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("given", slow_except(["command line", "environment", "file"], "file"))
def test_the_metrics_report_a_run_that_fails_before_its_night_begins(
    shop: Company, monkeypatch: pytest.MonkeyPatch, what: str, given: str
) -> None:
    text, options = BROKEN[what]
    if given == "file" and what == "a missing file":
        pytest.skip("nothing would name the metrics file")
    monkeypatch.chdir(shop.folder)
    shop.run()
    (shop.folder / "metrics.prom").rename(shop.folder / "m.prom")
    before = metrics(shop.folder / "m.prom")
    options = list(options)
    if given == "command line":
        options += ["--metrics-file", "m.prom"]
    elif given == "environment":
        monkeypatch.setenv("BATCHREC_RUN_METRICS_FILE", "m.prom")
    else:
        text = f"{text or ''}\n[run]\n".replace("[run]\n", "[run]\nmetrics-file = 'm.prom'\n", 1).removesuffix(
            "[run]\n"
        )
    if text:
        (shop.folder / "batchrec.toml").write_text(text, encoding="utf-8")
    assert run_cli("run", *options) == 2
    after = metrics(shop.folder / "m.prom")
    assert after["batchrec_exit_code"] == 2
    assert after["batchrec_last_run_timestamp_seconds"] >= before["batchrec_last_run_timestamp_seconds"]
    for standing in ("last_success_timestamp_seconds", "newest_night_timestamp_seconds", "out_is_newest"):
        assert after[f"batchrec_{standing}"] == before[f"batchrec_{standing}"]
    # The figures of the previous run are not reported for this one.
    assert not [name for name in after if "stage" in name or "gate" in name]


def test_the_metrics_report_an_error_in_the_config_file_of_the_group(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.folder)
    (shop.folder / "bad.toml").write_text("[run]\nmetrics-file = 'm.prom'\nkeeep = 3\n", encoding="utf-8")
    assert run_cli("--config", "bad.toml", "run") == 2
    assert metrics(shop.folder / "m.prom")["batchrec_exit_code"] == 2


def test_a_dry_run_writes_no_metrics(shop: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.folder)
    for option in (["--keep", "many"], ["--keep", "0"]):
        assert run_cli("run", "--dry-run", "--metrics-file", "m.prom", *option) == 2
    assert not (shop.folder / "m.prom").exists()


def test_a_file_that_is_not_a_metrics_file_is_not_replaced(
    shop: Company, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(shop.folder)
    before = (shop.folder / "ratings.csv").read_bytes()
    for options in (["--keep", "0"], ["--keep", "many"], []):
        assert run_cli("run", "--metrics-file", "ratings.csv", *options) == 2
    assert (shop.folder / "ratings.csv").read_bytes() == before
    assert "ratings.csv: does not hold metrics of batchrec, so it is not replaced" in caplog.text
    # Neither by a night that would pass.
    notes = shop.folder / "notes.txt"
    notes.write_text("mine", encoding="utf-8")
    assert run_cli("run", "--metrics-file", notes) == 2
    assert notes.read_text(encoding="utf-8") == "mine"


def test_the_metrics_tell_success_from_failure(shop: Company) -> None:
    shop.run()
    read = (shop.folder / "metrics.prom").read_text()
    assert "batchrec_exit_code 0.0" in read
    assert 'batchrec_ndcg_at_10{model="new"} 0.2' in read
    assert f'batchrec_stage_rows{{stage="score"}} {float(len(shop.rows()))}' in read
    success = next(line for line in read.splitlines() if line.startswith("batchrec_last_success_timestamp_seconds "))
    with pytest.raises(GateError):
        shop.run(1, gate_min_coverage=1.0)
    read = (shop.folder / "metrics.prom").read_text()
    assert "batchrec_exit_code 6.0" in read
    assert 'batchrec_gate_passed{figure="share of the items recommended",gate="output"} 0.0' in read
    assert success in read


@pytest.mark.slow
def test_the_metrics_say_whether_the_newest_night_is_current(shop: Company) -> None:
    shop.run()
    assert metric(shop, "out_is_newest") == 1
    shop.write_log(training_histories() | {5: [1000, 1001, 1002]})
    shop.run(1)
    roll_back(shop.archive)
    with pytest.raises(NothingToDo):
        shop.run(1)
    assert metric(shop, "out_is_newest") == 0
    (shop.folder / "recs.parquet").write_bytes(b"x")
    with pytest.raises(GateError):
        shop.run(2, gate_min_coverage=1.0)
    assert metric(shop, "out_is_newest") == 0
