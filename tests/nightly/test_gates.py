"""The gates: input, model and output. test_rules_gate.py has the rules gate."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig
from batchrec.errors import GateError, InputError
from batchrec.nightly import night as night_module
from batchrec.nightly.gates.input import measure_histories
from batchrec.nightly.gates.output import measure_table
from batchrec.nightly.report import ModelFigures
from batchrec.scoring.score import score
from tests.support.models import (
    names_in,
    sequences_table,
    training_histories,
    write_sequences,
)
from tests.support.nights import FIRST, Company, ids, report_of
from tests.support.plain_rules import write_table


def test_an_event_in_the_future_does_not_hide_that_the_log_is_old(shop: Company) -> None:
    with (shop.folder / "ratings.csv").open("a", encoding="utf-8", newline="") as file:
        file.write("1,1000,4102444800\r\n")
    with pytest.raises(GateError, match="days since the newest event is 108, expected at least 0 and at most 3"):
        shop.run(gate_max_age_days=3.0)


def test_a_log_with_only_future_events_is_not_published(shop: Company) -> None:
    with pytest.raises(GateError, match="days since the newest event is -"):
        shop.run(-1000, gate_max_age_days=3.0)


def test_a_log_that_no_longer_grows_is_logged_as_a_warning(shop: Company, caplog: pytest.LogCaptureFixture) -> None:
    shop.run()
    assert "the newest event is last night's" not in caplog.text
    shop.run(1)
    assert "the newest event is last night's" in caplog.text


def test_a_log_that_was_delivered_twice_is_logged_as_a_warning(shop: Company, caplog: pytest.LogCaptureFixture) -> None:
    shop.run()
    log = shop.folder / "ratings.csv"
    lines = log.read_text(encoding="utf-8").splitlines()
    log.write_text("\n".join([*lines, *lines[1:]]), encoding="utf-8")
    shop.run(1)
    n_rows = len(lines) - 1
    assert f"{2 * n_rows} rows are read, and {n_rows} were last night. If a part" in caplog.text
    shop.run(2)
    assert caplog.text.count("were last night") == 1


def test_a_log_that_lost_its_newest_events_is_logged_as_a_warning(
    shop: Company, caplog: pytest.LogCaptureFixture
) -> None:
    with (shop.folder / "ratings.csv").open("a", encoding="utf-8", newline="") as file:
        file.write("1,1000,1700200000\r\n")
    shop.run()
    shop.write_log(training_histories())
    shop.run(1)
    assert "the newest event is older than last night's of 2023-11-17, 109 days old" in caplog.text


@pytest.mark.slow
def test_users_whose_ids_have_become_text_are_other_users(shop: Company) -> None:
    shop.run()
    shop.write_log({f"user {user}": items for user, items in training_histories().items()})
    with pytest.raises(GateError, match="id columns whose type has changed is 1, expected at most 0"):
        shop.run(1)
    with pytest.raises(GateError, match=r"overlap with last night is 0, expected at least 0\.02"):
        shop.run(1, gate_min_overlap=0.02, gate_new_id_types=True)
    shop.run(1, gate_new_id_types=True)


def test_gates_measure_full_lists_and_coverage_by_the_allowed_items(
    shop: Company,
) -> None:
    allowed = write_table(shop.folder / "allowed.csv", "item_id", [(1003,), (1004,)])
    few = replace(shop.scoring, allow=str(allowed), keep_seen=True)
    shop.scoring = few
    report = shop.run(gate_min_full_lists=1.0, gate_min_coverage=1.0, gate_min_users=1.0)
    assert {row["item_id"] for row in shop.rows()} == {1003, 1004}
    assert report.stages["score"]["eligible_items"] == 2


def test_ids_that_differ_only_in_surrounding_blanks_are_measured_as_one(tmp_path: Path) -> None:
    # For u1: i2 was seen, i3 is listed twice, only i9 is right. Last night's lists overlap in i2 and in i9.
    sequences = write_sequences(
        tmp_path / "sequences.parquet", {"u1  ": ["i1  ", "i2  "], "u2": ["i4"]}, pa.string(), pa.string()
    )
    recs, previous = tmp_path / "recs.parquet", tmp_path / "previous.parquet"
    lists = {
        recs: {"u1": ["i2", "i3", "i3 ", "i9"], "u2": ["i9"]},
        previous: {"u1 ": ["i2\t", "i5"], "u2": ["i9  "]},
    }
    for file, users in lists.items():
        rows = [
            {"user_id": user, "item_id": item, "rank": rank, "score": 1.0}
            for user, items in users.items()
            for rank, item in enumerate(items, 1)
        ]
        pq.write_table(pa.Table.from_pylist(rows), file)
    figures = measure_table(recs, sequences, previous, ScoringConfig(top_k=4))
    assert (figures.faults["seen_items"], figures.faults["duplicates"]) == (1, 1)
    assert figures.overlap == pytest.approx((1 / 4 + 1) / 2)
    assert measure_table(recs, sequences, None, ScoringConfig(top_k=4, keep_seen=True)).faults["seen_items"] == 0


def test_users_without_a_history_do_not_count_as_covered_users(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [10], 2: [11], 3: [12]})
    rows = [{"user_id": user, "item_id": 10 + user, "rank": 1, "score": 1.0} for user in (1, 8, 9)]
    recs = tmp_path / "recs.parquet"
    pq.write_table(pa.Table.from_pylist(rows), recs)
    figures = measure_table(recs, sequences, None, ScoringConfig(top_k=1))
    assert (figures.users, figures.users_with_full_list, figures.histories) == (1, 1, 3)
    listed = measure_table(recs, sequences, None, ScoringConfig(top_k=1, users="some.csv"))
    assert (listed.users, listed.users_with_full_list) == (3, 3)


@pytest.mark.parametrize(
    ("ndcg", "said"),
    [
        (0.05, "NDCG@10 is 0.05, expected at least 0.1"),
        (0.17, "NDCG@10 against the model in use is 0.17, expected at least 0.18"),
    ],
)
def test_a_new_model_that_ranks_badly_is_not_used(shop: Company, ndcg: float, said: str) -> None:
    shop.run()
    before = shop.state()
    shop.figures[ids()[1]] = ModelFigures(ids()[1], ndcg, 0.1, 0.0)
    with pytest.raises(GateError, match=said):
        shop.run(7)
    assert shop.state() == before
    report = json.loads((shop.folder / f"nights/failed/{FIRST + timedelta(days=7)}.json").read_text())
    assert said in report["failed"]
    assert [check["figure"] for check in report["checks"] if not check["passed"]]


@pytest.mark.parametrize("ndcg", [0.05, 0.17])
def test_a_new_model_that_ranks_worse_by_chance_is_used(shop: Company, ndcg: float) -> None:
    shop.run()
    shop.figures[ids()[1]] = ModelFigures(ids()[1], ndcg, 0.1, 0.0, popularity_margin=0.06, in_use_margin=0.14)
    shop.run(7)
    in_use = shop.registry.current
    assert in_use is not None
    assert in_use.manifest.model_id == ids()[1]


def test_half_a_log_is_not_published_and_the_next_complete_one_is(shop: Company) -> None:
    shop.run()
    before = shop.state()
    shop.write_log(dict(list(training_histories().items())[:20]))
    with pytest.raises(GateError, match=r"input gate: rows read is .* expected at least"):
        shop.run(1)
    assert shop.state() == before
    assert f"run_date={FIRST + timedelta(days=1)}" not in names_in(shop.folder / "nights")
    shop.write_log(training_histories())
    shop.run(1)
    assert shop.archive.dates() == [FIRST, FIRST + timedelta(days=1)]
    assert names_in(shop.folder / "nights/failed") == set()


def test_an_old_log_is_not_published(shop: Company) -> None:
    with pytest.raises(GateError, match="days since the newest event is 108, expected at least 0 and at most 3"):
        shop.run(gate_max_age_days=3.0)


def test_a_table_with_too_few_items_is_not_published(shop: Company) -> None:
    with pytest.raises(GateError, match=r"output gate: share of the items recommended is .*, expected at least 1"):
        shop.run(gate_min_coverage=1.0)
    assert not (shop.folder / "recs.parquet").exists()
    assert shop.registry.current is None


@pytest.mark.parametrize(("n_rows", "said"), [(0, "is 0, expected"), (30, r"is 0\.\d+, expected")])
def test_a_table_that_lost_users_is_not_published_whatever_the_scorer_reports(
    shop: Company, monkeypatch: pytest.MonkeyPatch, n_rows: int, said: str
) -> None:
    def losing(sequences: Path, model: Path, config: Any, out: Path, checkpoint_dir: Path, *_: Any) -> Any:
        report = score(sequences, model, config, out, checkpoint_dir)
        pq.write_table(pq.read_table(out).slice(0, n_rows), out)
        return replace(report, users=n_rows // 3)

    monkeypatch.setattr(night_module, "score_file", losing)
    with pytest.raises(GateError, match=f"output gate: share of users covered {said}"):
        shop.run(gate_min_users=0.5)
    assert not (shop.folder / "recs.parquet").exists()


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


@pytest.mark.slow
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
