"""run: a rule table that lost rows, or that the finished table breaks, fails the night."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from batchrec.errors import GateError, InputError
from batchrec.nightly import night as night_module
from batchrec.scoring.score import score
from tests.support.nights import FIRST, Company
from tests.support.plain_rules import ITEMS, write_table


def use(shop: Company, option: str, header: str, rows: list[tuple[object, ...]]) -> None:
    table: dict[str, Any] = {option: str(write_table(shop.folder / f"{option}.csv", header, rows))}
    shop.scoring = replace(shop.scoring, **table)


def test_a_table_that_breaks_a_rule_is_not_published_whatever_the_scorer_reports(
    shop: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(shop, "block", "item_id", [(item,) for item in ITEMS[:30]])

    def forgetful(sequences: Path, model: Path, config: Any, out: Path, checkpoint_dir: Path, *_: Any) -> Any:
        return score(sequences, model, replace(config, block=None), out, checkpoint_dir)

    monkeypatch.setattr(night_module, "score_file", forgetful)
    said = r"rules gate: rows that break --block is \d+, expected at most 0 \(user '\d+', rank \d, item '10[012]\d'\)"
    with pytest.raises(GateError, match=said):
        shop.run()
    assert not (shop.folder / "recs.parquet").exists()


def test_the_report_counts_the_rows_that_break_each_rule(shop: Company) -> None:
    use(shop, "block", "item_id", [(ITEMS[0],)])
    use(shop, "pins", "item_id,position", [(ITEMS[3], 2)])
    report = shop.run()
    checks = {check["figure"]: (check["gate"], check["value"], check["maximum"]) for check in report.checks}
    assert checks["rows that break --block"] == checks["rows that break --pins"] == ("rules", 0, 0)
    assert report.stages["score"]["rule_rows"] == {"--block": 1, "--pins": 1}


def test_an_empty_rule_table_fails_the_night_as_an_input_error(shop: Company) -> None:
    use(shop, "block_for_user", "user_id,item_id", [])
    with pytest.raises(InputError, match=r"block_for_user.csv: holds no rows"):
        shop.run()
    shop.scoring = replace(shop.scoring, allow_empty_rules=True)
    assert shop.run().failed is None


def test_a_rule_table_that_lost_half_its_rows_fails_the_night(shop: Company) -> None:
    use(shop, "block", "item_id", [(item,) for item in ITEMS[:9]])
    shop.run()
    use(shop, "block", "item_id", [(item,) for item in ITEMS[:4]])
    with pytest.raises(GateError, match=r"rules gate: rows of --block is 4, expected at least 4\.5"):
        shop.run(1)
    assert shop.run(1, gate_min_rule_rows=0.4).failed is None
    assert shop.run(2).failed is None


def test_a_list_of_users_that_lost_half_its_rows_fails_the_night(shop: Company) -> None:
    use(shop, "users", "user_id", [(user,) for user in range(1, 10)])
    shop.run()
    use(shop, "users", "user_id", [(user,) for user in range(1, 5)])
    with pytest.raises(GateError, match=r"rules gate: rows of --users is 4, expected at least 4\.5"):
        shop.run(1)
    assert shop.run(1, gate_min_rule_rows=0.4).users == 4


def test_the_eligible_items_must_not_shrink_by_more_than_half(shop: Company) -> None:
    use(shop, "allow", "item_id", [(item,) for item in ITEMS])
    shop.run()
    # As many rows as before, but most ids belong to no item.
    use(shop, "allow", "item_id", [*((item,) for item in ITEMS[:19]), *((number,) for number in range(21))])
    with pytest.raises(GateError, match="eligible items is 19, expected at least 20"):
        shop.run(1)


def test_a_rule_that_is_new_or_gone_is_not_compared(shop: Company, caplog: pytest.LogCaptureFixture) -> None:
    use(shop, "pins", "item_id,position", [(ITEMS[3], 2)])
    shop.run()
    shop.scoring = replace(shop.scoring, pins=None)
    use(shop, "boost", "item_id,factor", [(ITEMS[3], 2)])
    assert shop.run(1).failed is None
    assert "rules that were given last night but not tonight: --pins" in caplog.text


def test_rule_tables_are_not_compared_with_a_report_without_their_row_counts(
    shop: Company, caplog: pytest.LogCaptureFixture
) -> None:
    use(shop, "block", "item_id", [(item,) for item in ITEMS[:9]])
    shop.run()
    file = shop.archive.table(FIRST).with_name("report.json")
    report = json.loads(file.read_text(encoding="utf-8"))
    del report["stages"]["score"]["rule_rows"], report["seal"]
    file.write_text(json.dumps(report), encoding="utf-8")
    use(shop, "block", "item_id", [(ITEMS[0],)])
    assert shop.run(1).failed is None
    assert "last night's report has no row counts of rule tables" in caplog.text


@pytest.mark.slow
def test_a_query_sees_the_date_of_the_night(shop: Company) -> None:
    write_table(shop.folder / "days.csv", "day,item_id", [(FIRST + timedelta(days=n), ITEMS[n]) for n in range(3)])
    query = shop.folder / "pins.sql"
    text = "select item_id, 1 as position from '{}' where cast(day as date) = getvariable('run_date')"
    query.write_text(text.format(shop.folder / "days.csv"), encoding="utf-8")
    shop.scoring = replace(shop.scoring, pins=str(query), keep_seen=True)
    for n in range(3):
        shop.run(n)
        assert {row["item_id"] for row in shop.rows() if row["rank"] == 1} == {ITEMS[n]}
