"""run: reading reports of earlier nights, writing metrics for a monitor, and refusing outputs within the inputs."""

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import EvaluationConfig, RunConfig, ScoringConfig, SequencesConfig, TrainingConfig
from batchrec.errors import ConfigError, GateError, InputError
from batchrec.nightly.gates.input import measure_histories
from batchrec.nightly.report import read_report, report_to_json
from batchrec.nightly.run import run
from batchrec.system.json_text import to_json
from tests.support.models import run_cli, sequences_table, training_histories, write_sequences
from tests.support.nights import FIRST, Company, company


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    with company(tmp_path, monkeypatch) as made:
        yield made


def night(number: int) -> date:
    return FIRST + timedelta(days=number)


def report_of(shop: Company, number: int) -> Path:
    return shop.archive.table(night(number)).parent / "report.json"


def test_a_report_with_a_changed_digit_is_left_out(shop: Company, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(2):
        shop.run(number)
    report = report_of(shop, 0)
    text = report.read_text(encoding="utf-8")
    n_rows = read_report(report, FIRST)
    assert n_rows is not None
    rows = n_rows["stages"]["build-sequences"]["rows_read"]
    assert text.count(f'"rows_read": {rows}') == 1
    report.write_text(text.replace(f'"rows_read": {rows}', f'"rows_read": {rows + 1}'), encoding="utf-8")
    shop.run(2)
    assert f"night {FIRST}: its report is lost or damaged, and is left out" in caplog.text


def test_a_report_of_an_earlier_version_without_a_seal_counts(shop: Company) -> None:
    shop.run()
    kept = json.loads(report_of(shop, 0).read_text(encoding="utf-8"))
    seal = kept.pop("seal")
    report_of(shop, 0).write_text(json.dumps(kept, indent=2), encoding="utf-8")
    assert read_report(report_of(shop, 0), FIRST) == kept
    # A seal under a changed name is damage, not a missing seal.
    report_of(shop, 0).write_text(json.dumps(kept | {"saal": seal}), encoding="utf-8")
    assert read_report(report_of(shop, 0), FIRST) is None


def test_the_night_fails_if_every_report_is_damaged_until_the_option_is_passed(
    shop: Company, caplog: pytest.LogCaptureFixture
) -> None:
    shop.run()
    report_of(shop, 0).write_text("{", encoding="utf-8")
    with pytest.raises(GateError, match="intact reports of earlier nights is 0, expected at least 1"):
        shop.run(1)
    assert "pass --gate-min-input 0 to publish once without them" in caplog.text
    shop.run(1, gate_min_input=0.0)
    shop.run(2)


def test_the_night_fails_if_every_table_is_damaged_until_the_option_is_passed(
    shop: Company, caplog: pytest.LogCaptureFixture
) -> None:
    shop.run(gate_min_overlap=0.02)
    shop.archive.table(FIRST).unlink()
    with pytest.raises(GateError, match="intact tables of earlier nights is 0, expected at least 1"):
        shop.run(1, gate_min_overlap=0.02)
    assert "pass --gate-min-overlap 0" in caplog.text
    shop.run(1, gate_min_overlap=0.0)
    shop.run(2, gate_min_overlap=0.02)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"stages":' * 100_000, "1" * 100_000, "NaN", "3", "[]", '"text"'])
def test_text_that_is_not_a_report_counts_as_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    assert read_report(tmp_path / "report.json", FIRST) is None


def test_a_pipe_in_place_of_a_report_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "report.json")
    assert read_report(tmp_path / "report.json", FIRST) is None


def test_a_rollback_skips_a_report_that_is_nested_too_deeply(shop: Company) -> None:
    for number in range(3):
        shop.run(number)
    shop.write_log(training_histories() | {5: [1000, 1001, 1002]})
    shop.run(3)
    report_of(shop, 2).write_text("[" * 200_000, encoding="utf-8")
    assert shop.archive.roll_back() == night(1)


@pytest.mark.parametrize("text", ["{", "[]", "null", "[" * 200_000], ids=["half", "list", "null", "deep"])
def test_a_list_of_rollbacks_that_cannot_be_read_fails_the_night(shop: Company, text: str) -> None:
    shop.run(0)
    shop.write_log(training_histories() | {5: [1000, 1001, 1002]})
    shop.run(1)
    assert shop.archive.roll_back() == night(0)
    rolled_back, out = shop.folder / "nights" / "rolled-back.json", shop.jobs.out.read_bytes()
    rolled_back.write_text(text, encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"rolled-back\.json: cannot be read; .*Restore it, or remove it if no"
    ) as error:
        shop.run(1)
    assert (error.value.exit_code, shop.jobs.out.read_bytes()) == (2, out)


def test_a_folder_in_place_of_the_list_of_rollbacks_is_refused(shop: Company) -> None:
    (shop.archive.decisions.folder / "rolled-back.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"rolled-back\.json: cannot be read"):
        shop.archive.decisions.is_rolled_back(night(0), "0")


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_number_that_is_not_finite_is_null() -> None:
    value = {"a": [math.nan, 1.5, (math.inf,)], "b": -math.inf, "c": "inf", "d": True}
    assert strict(to_json(value)) == {"a": [None, 1.5, [None]], "b": None, "c": "inf", "d": True}


def test_a_report_is_valid_json_even_with_nan(shop: Company) -> None:
    shop.run()
    report = read_report(report_of(shop, 0), FIRST)
    assert report is not None
    report["checks"] = [{"gate": "input", "figure": "x", "value": math.nan, "maximum": math.inf}]
    file = shop.folder / "report.json"
    file.write_text(report_to_json(report), encoding="utf-8")
    assert strict(file.read_text(encoding="utf-8"))["checks"][0]["value"] is None
    read = read_report(file, FIRST)
    assert read is not None
    assert read["checks"][0] == {"gate": "input", "figure": "x", "value": None, "maximum": None}


def test_a_log_line_is_valid_json_even_with_nan(
    shop: Company, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(*_: Any, **__: Any) -> None:
        logging.getLogger("batchrec.x").warning("measured", extra={"counts": {"loss": math.nan}})
        raise InputError("x")

    monkeypatch.setattr("batchrec.nightly.run.run", measured)
    monkeypatch.chdir(shop.folder)
    assert run_cli("run", "--log-format", "json") == 3
    lines = [strict(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0]["counts"] == {"loss": None}


FLOATS = [
    (config, field.name)
    for config in (RunConfig, ScoringConfig, SequencesConfig, TrainingConfig, EvaluationConfig)
    for field in fields(config)
    if "float" in str(field.type)
]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(("config", "name"), FLOATS, ids=[f"{config.__name__}.{name}" for config, name in FLOATS])
def test_options_refuse_infinity_and_nan(config: Any, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} {value}: expected a"):
        config(**{name: value})


def test_the_list_of_float_options_is_not_empty() -> None:
    assert {"gate_max_age_days", "max_minutes", "min_rating", "diversity", "test_days"} <= {name for _, name in FLOATS}


@pytest.mark.parametrize("moment", [-90_000_000_000, 2**60])
def test_event_times_outside_the_calendar_are_an_input_error(tmp_path: Path, moment: int) -> None:
    table = sequences_table({1: [10]})
    times = pa.array([[moment]], pa.list_(pa.int64()))
    pq.write_table(table.set_column(2, "timestamps", times), tmp_path / "s.parquet")
    with pytest.raises(
        InputError, match=rf"the newest event is {moment} seconds after 1970; expected a time in the years"
    ):
        measure_histories(tmp_path / "s.parquet", FIRST, None)


def test_an_event_at_the_unix_epoch_is_measured(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "s.parquet", {1: [10]})
    assert measure_histories(sequences, FIRST, None).newest == datetime(1970, 1, 1, tzinfo=UTC)


def test_a_future_event_does_not_hide_the_newest_event(shop: Company, caplog: pytest.LogCaptureFixture) -> None:
    def write(newest: int) -> None:
        shop.write_log(training_histories())
        with (shop.folder / "ratings.csv").open("a", encoding="utf-8", newline="") as file:
            file.write(f"1,1000,{newest}\r\n2,1001,4070908800\r\n")

    write(1_700_100_000)
    shop.run()
    write(1_700_200_000)
    shop.run(1)
    assert "the newest event is last night's" not in caplog.text
    shop.run(2)
    assert "the newest event is last night's" in caplog.text


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
@pytest.mark.parametrize("given", ["command line", "environment", "file"])
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


# Places that a night reads and writes, and the option that is refused; None if they do not overlap.
APART: list[tuple[dict[str, Any], str | None]] = [
    ({"ratings": ["plays"], "out": "plays/recs.parquet"}, "--out"),
    ({"ratings": ["plays"], "out": "plays/deeper/recs.parquet"}, "--out"),
    ({"ratings": ["plays/*.parquet"], "out": "plays/recs.parquet"}, "--out"),
    ({"ratings": ["plays/*.csv"], "out": "plays/recs.parquet"}, None),
    ({"ratings": ["**/*.parquet"], "out": "recs.parquet"}, "--out"),
    ({"ratings": ["plays"], "nights": "plays/nights"}, "--nights"),
    ({"ratings": ["plays"], "models": "plays/models"}, "--models"),
    ({"ratings": ["p*/**/*.parquet"], "nights": "plays/nights"}, "--nights"),
    ({"ratings": ["p*/*.parquet"], "nights": "plays/nights"}, None),
    ({"ratings": ["p*/**/*.csv"], "nights": "plays/nights"}, "--nights"),
    ({"ratings": ["plays"], "nights": "plays/_nights"}, None),
    ({"ratings": ["plays"], "nights": "elsewhere"}, None),
    ({"ratings": ["linked"], "out": "plays/recs.parquet"}, "--out"),
    ({"block": "rules", "out": "rules/recs.parquet"}, "--out"),
    ({"users": "rules/*", "models": "rules"}, None),
    ({"users": "rules/*/*", "models": "rules"}, "--models"),
    ({"query": "events.sql", "out": "events.sql"}, "--out"),
    ({"ratings": ["plays"], "query": "events.sql", "out": "plays/recs.parquet"}, None),
    ({"ratings": ["plays"], "metrics": "plays/b.prom"}, None),
    ({"ratings": ["plays/*"], "metrics": "plays/b.prom"}, "--metrics-file"),
    ({"query": "events.sql", "metrics": "events.sql"}, "--metrics-file"),
]


@pytest.mark.parametrize(("places", "refused"), APART)
def test_outputs_within_the_inputs_are_refused(
    shop: Company, monkeypatch: pytest.MonkeyPatch, places: dict[str, Any], refused: str | None
) -> None:
    monkeypatch.chdir(shop.folder)
    for folder in ("plays/deeper", "rules"):
        Path(folder).mkdir(parents=True)
    shutil.copyfile("ratings.csv", "plays/ratings.csv")
    Path("linked").symlink_to("plays")
    # Reading this would raise InputError, so the paths must be refused before that.
    Path("events.sql").write_text("nothing", encoding="utf-8")
    jobs = replace(
        shop.jobs,
        ratings=places.get("ratings", ["ratings.csv"]),
        sequences=SequencesConfig(query=places.get("query")),
        scoring=ScoringConfig(block=places.get("block"), users=places.get("users")),
        out=Path(places.get("out", "recs.parquet")),
    )
    config = replace(shop.run_config, nights=places.get("nights", "nights"), models=places.get("models", "models"))
    metrics_file = Path(places["metrics"]) if "metrics" in places else None
    before = sorted(path for path in shop.folder.rglob("*") if path.is_file())

    def begun(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("batchrec.nightly.stages.Night.run", begun)
    if refused is None:
        with pytest.raises(KeyboardInterrupt):
            run(jobs, config, FIRST, metrics_file)
    else:
        with pytest.raises(ConfigError, match=f"is also an input. Pass another .*{refused}"):
            run(jobs, config, FIRST, metrics_file)
        assert sorted(path for path in shop.folder.rglob("*") if path.is_file()) == before
