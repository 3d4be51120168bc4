"""The changes between two tables, compared with the lists themselves."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.damage import flip_a_bit
from tests.support.models import run_cli
from tests.support.night_pages import COLD, two_nights
from tests.support.nights import Company, night

BEFORE = {1: [10, 11, 12], 2: [10, 11, 12], 3: [10, 11], 4: [13]}
AFTER = {1: [12, 11, 10], 2: [11, 14, 15], 3: [11, 10], 5: [10]}


def write_lists(file: Path, lists: dict[int, list[int]], source: str = "model") -> Path:
    rows = [
        {"user_id": user, "item_id": item, "rank": rank, "source": source}
        for user, items in lists.items()
        for rank, item in enumerate(items, 1)
    ]
    if file.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        file.write_text("\n".join(lines), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def diff_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert run_cli("diff", *arguments, "--json") == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


@pytest.fixture
def in_two_nights(monkeypatch: pytest.MonkeyPatch) -> Company:
    shop = Company(two_nights())
    monkeypatch.chdir(shop.folder)
    monkeypatch.setenv("BATCHREC_SCORE_ITEMS", "items.csv")
    return shop


@pytest.mark.parametrize("suffixes", [("parquet", "parquet"), ("csv", "parquet"), ("csv", "csv")])
def test_users_items_and_lists_that_changed_are_counted(
    suffixes: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = write_lists(tmp_path / f"before.{suffixes[0]}", BEFORE)
    after = write_lists(tmp_path / f"after.{suffixes[1]}", AFTER, "popular")
    report = diff_of(capsys, before, after)
    (moved,) = report["changes"].pop("moved")
    assert report["changes"] == {
        "users_in_both": 3,
        "users_in": 1,
        "users_out": 1,
        "items_in_both": 3,
        "items_in": 2,
        "items_out": 1,
        "same_lists": 2,
        "overlap": pytest.approx((1 + 1 / 3 + 1) / 3),
    }
    assert report["changed_share"] == pytest.approx(1 / 3)
    assert {name: str(value) for name, value in moved.items()} == {
        "user_id": "2",
        "n_tonight": "3",
        "n_kept": "1",
        "came": str([14, 15]) if suffixes == ("parquet", "parquet") else "['14', '15']",
        "gone": str([10, 12]) if suffixes == ("parquet", "parquet") else "['10', '12']",
    }
    assert report["sources"] == [
        {"name": "popular", "before": None, "after": 9},
        {"name": "model", "before": 9, "after": None},
    ]
    assert report["figures"] == []


def test_two_nights_are_compared_by_their_tables_and_reports(
    in_two_nights: Company, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = in_two_nights
    lists: list[dict[Any, list[Any]]] = [{}, {}]
    for number in range(2):
        for row in shop.rows(night(number)):
            lists[number].setdefault(row["user_id"], []).append(row["item_id"])
    report = diff_of(capsys, night(0), night(1))
    both = lists[0].keys() & lists[1].keys()
    kept = {user: len(set(lists[0][user]) & set(lists[1][user])) / len(lists[1][user]) for user in both}
    assert report["changes"]["users_in_both"] == len(both)
    assert report["changes"]["overlap"] == pytest.approx(sum(kept.values()) / len(kept))
    assert report["changes"]["same_lists"] == list(kept.values()).count(1)
    assert [row["user_id"] for row in report["changes"]["moved"]] == sorted(
        (user for user in both if kept[user] < 1), key=lambda user: (kept[user], user)
    )[:10]
    reports = [shop.archive.report(night(number)) for number in range(2)]
    figures = {row["name"]: [row["before"], row["after"]] for row in report["figures"]}
    assert reports[0] is not None
    assert reports[1] is not None
    assert figures["Rows"] == [reports[0]["rows"], reports[1]["rows"]]
    assert figures["rows read"] == [each["stages"]["build-sequences"]["rows_read"] for each in reports if each]
    assert figures["overlap with last night"][1] == pytest.approx(report["changes"]["overlap"])
    assert COLD in both


def test_without_names_the_last_two_nights_are_compared(
    in_two_nights: Company, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("diff", "--lists", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{'before':30} {night(0)}", f"{'after':30} {night(1)}"]
    assert ["source", str(night(0)), str(night(1))] in [line.split() for line in lines]
    # The titles of the items, not their ids.
    head = next(number for number, line in enumerate(lines) if line.split() == ["user", "kept", "came", "gone"])
    assert "alert(1)" in lines[head + 1]
    assert lines[head + 3] == ""


@pytest.mark.parametrize(
    ("names", "exit_code", "says"),
    [
        (["2024-03-01"], 2, "found 2024-03-01 to compare; expected two run dates or tables"),
        (["2024-03-01", "2024-04-01"], 2, "night 2024-04-01 is not published. batchrec nights lists the nights"),
        (["2024-03-01", "none.parquet"], 3, "none.parquet: no file found"),
        (["2024-03-01", "items.csv"], 3, "items.csv: no column 'user_id'; found movieId, title"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    names: list[str], exit_code: int, says: str, in_two_nights: Company, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("diff", *names) == exit_code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert says in said[0]


@pytest.mark.parametrize("name", ["later.csv", "later.parquet"])
def test_a_table_with_an_item_or_a_rank_twice_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = write_lists(tmp_path / "earlier.parquet", BEFORE)
    later = write_lists(tmp_path / name, {1: [10, 11, 10]})
    assert run_cli("diff", earlier, later) == 3
    id_ = "'10'" if name.endswith("csv") else "10"
    assert f"{name}: user_id" in (said := capsys.readouterr().err)
    assert f"has item_id {id_} in several rows" in said


def test_without_two_nights_the_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli("diff") == 2
    assert "found no night to compare" in (said := capsys.readouterr().err)
    assert "Run another night first, or name two" in said


def test_a_table_that_has_changed_since_it_was_published_is_not_compared(
    in_two_nights: Company, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = in_two_nights.archive.table(night(0))
    changed = Path(shutil.copyfile(table, tmp_path / "changed.parquet"))
    flip_a_bit(changed)
    assert run_cli("diff", changed, table) == 3
    assert "its SHA-256 has changed" in capsys.readouterr().err
