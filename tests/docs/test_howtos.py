"""The files of each how-to make a night on a small log, and its table is as the page says."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from batchrec.cli import run
from tests.docs.test_blocks import count_as_better_than_popularity
from tests.support.pages import blocks

RUN_DATE = "2024-06-01"
CON = duckdb.connect()
# A number from 0 to below `below` for row i, the same in every run; each column has a number of its own.
CON.execute("create macro draw(i, name, below) as (hash(i, name) % below)::bigint")
CON.execute(f"set variable run_date = timestamp '{RUN_DATE}'")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one, in which a night trains no encoder: the options of training are read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCHREC_TRAIN_MAX_EPOCHS", "0")
    monkeypatch.setenv("BATCHREC_SCORE_DEVICE", "cpu")
    count_as_better_than_popularity(monkeypatch)
    return tmp_path


def write_files_of(page: str) -> None:
    """Write the blocks of a page that begin with the name of a file."""
    for block in blocks():
        if block.page == page and block.language in {"toml", "sql"}:
            (name,) = re.findall(r"\A(?:#|--) ([\w.-]+)", block.text)
            Path(name).write_text(block.text, encoding="utf-8")


def write(file: str, query: str) -> None:
    Path(file).parent.mkdir(exist_ok=True)
    CON.sql(query).to_csv(file) if file.endswith(".csv") else CON.sql(query).to_parquet(file)


def recommended() -> dict[int, list[str]]:
    """Return the published list of each user."""
    rows = pq.read_table("recs.parquet", columns=["user_id", "rank", "item_id"]).to_pylist()
    lists: dict[int, list[str]] = {}
    for row in sorted(rows, key=lambda row: row["rank"]):
        lists.setdefault(row["user_id"], []).append(row["item_id"])
    return lists


def histories() -> list[dict[str, Any]]:
    """Return the rows of the histories that the options of the page build."""
    assert run(["build-sequences", "--run-date", RUN_DATE]) == 0
    rows: list[dict[str, Any]] = pq.read_table("sequences.parquet").to_pylist()
    return rows


def pairs(query: str) -> set[tuple[Any, ...]]:
    return set(CON.sql(query).fetchall())


@pytest.mark.slow
def test_the_shop_of_the_page_has_its_night(folder: Path) -> None:
    write_files_of("docs/howto-shop.md")
    # The last days have events of every kind; customer 41 has none.
    write(
        "events/all.csv",
        """select 1 + draw(i, 'user', 40) as customer_id, 'A' || draw(i, 'item', 60) as sku,
        getvariable('run_date') - interval 1 hour * draw(i, 'time', 120 * 24) as happened_at,
        ['view', 'cart', 'purchase'][1 + draw(i, 'kind', 3)] as event from range(900) t(i)""",
    )
    write(
        "catalogue.csv",
        "select 'A' || i as sku, 'Thing ' || i as name, 'shelf ' || i % 6 as category from range(60) t(i)",
    )
    write(
        "stock.csv",
        """select 'A' || i as sku, case when i < 3 then 0 else 5 end as in_stock,
        getvariable('run_date')::date + case when i = 3 then 1 else -400 end as on_sale_from from range(60) t(i)""",
    )
    write("customers.csv", "select 1 + i as user_id, ['DE', 'FR'][1 + i % 2] as country from range(41) t(i)")
    assert run(["run", "--run-date", RUN_DATE]) == 0
    lists = recommended()
    assert not {"A0", "A1", "A2", "A3"} & {item for items in lists.values() for item in items}
    assert max(max(Counter(int(item[1:]) % 6 for item in items).values()) for items in lists.values()) == 3
    bought = (
        "select customer_id, sku from 'events/all.csv' where event = 'purchase' group by all having max(happened_at)"
    )
    listed = {(user, item) for user, items in lists.items() for item in items}
    assert not listed & pairs(f"{bought} >= getvariable('run_date') - interval 59 days")
    assert listed & pairs(f"{bought} < getvariable('run_date') - interval 61 days")
    assert listed & pairs("select customer_id, sku from 'events/all.csv' where event = 'view'")
    assert CON.sql("select source from 'recs.parquet' where user_id = 41 and rank = 1").fetchall() == [
        ("popular_segment",)
    ]


@pytest.mark.slow
def test_the_games_of_the_page_have_their_night(folder: Path) -> None:
    write_files_of("docs/howto-games.md")
    write(
        "sessions/all.parquet",
        """select 1 + draw(i, 'user', 40) as player_id, 'g' || draw(i, 'item', 40) as game_id,
        getvariable('run_date') - interval 1 hour * draw(i, 'time', 60 * 24) as started_at,
        5 + draw(i, 'minutes', 40) as minutes from range(900) t(i)""",
    )
    write(
        "refunds.csv",
        "select 1 + i as player_id, 'g30' as game_id, getvariable('run_date') as refunded_at from range(9) t(i)",
    )
    write(
        "games.csv",
        "select 'g' || i as game_id, 'Game ' || i as name, case when i < 15 then 'free-to-play' end as cap_group "
        "from range(40) t(i)",
    )
    write("not-for-sale.csv", "select 'g39' as item_id")
    write("libraries.parquet", "select 1 + i as user_id, 'g38' as item_id from range(20) t(i)")
    assert run(["run", "--run-date", RUN_DATE]) == 0
    liked = {(row["user_id"], item) for row in histories() for item in row["item_ids"]}
    played = "select player_id, game_id from 'sessions/all.parquet' group by all having sum(minutes)"
    returned = {(user, "g30") for user in range(1, 10)}
    assert liked == pairs(f"{played} >= 30") - returned
    lists = recommended()
    listed = {(user, item) for user, items in lists.items() for item in items}
    assert not listed & (pairs(f"{played} < 30") | returned | {(user, "g38") for user in range(1, 21)})
    assert (30, "g39") not in listed
    assert max(sum(int(item[1:]) < 15 for item in items) for items in lists.values()) == 2
    assert pq.read_metadata("similar.parquet").num_rows > 0


@pytest.mark.slow
def test_the_music_of_the_page_has_its_night(folder: Path) -> None:
    write_files_of("docs/howto-music.md")
    write(
        "listens/all.parquet",
        """select 1 + draw(i, 'user', 30) as listener, 't' || draw(i, 'item', 80) as track,
        getvariable('run_date') - interval 1 hour * draw(i, 'time', 40 * 24) as played_at,
        10 + draw(i, 'seconds', 200) as seconds from range(2000) t(i)""",
    )
    write(
        "tracks.csv", "select 't' || i as track, 'Song ' || i as title, 'Band ' || i // 4 as artist from range(80) t(i)"
    )
    assert run(["run", "--run-date", RUN_DATE]) == 0
    heard = "select listener, track from 'listens/all.parquet' where seconds >= 30"
    days = pairs(heard.replace("listener,", "played_at::date, listener,"))
    assert sum(len(row["item_ids"]) for row in histories()) == len(days)
    lists = recommended()
    assert {len(items) for items in lists.values()} == {30}
    assert {(user, item) for user, items in lists.items() for item in items} & pairs(heard)
    assert max(max(Counter(int(item[1:]) // 4 for item in items).values()) for items in lists.values()) == 2
