"""A list for a segment acts like the same list for all users, and only on users of the segment."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batchrec.config import ScoringConfig
from batchrec.errors import ConfigError, InputError
from batchrec.model.directory import write_manifest
from batchrec.model.vocabulary import Vocabulary
from batchrec.rules import item_lists
from batchrec.scoring.report import ScoringReport
from batchrec.scoring.score import score
from tests.scoring.test_score import Row, recs_of
from tests.support.models import CONFIG, small_encoder, write_sequences
from tests.support.params import slow_except
from tests.support.plain_rules import write_table
from tests.support.shared import made_once, write_exported

N_ITEMS = 400
MANY = list(range(5000, 5000 + N_ITEMS))
HISTORIES = {user: [MANY[(user * 37 + 11 * place) % N_ITEMS] for place in range(1 + user % 4)] for user in range(1, 25)}
HISTORIES |= {25: [], 26: [], 27: []}
SEGMENTS = {user: ("few", "half", "most")[user % 3] for user in HISTORIES if user % 7}
LISTS = {"few": MANY[5::40], "half": MANY[::2], "most": MANY[:390]}


@cache
def model() -> Path:
    """A model of so many items that no list is chosen from all of them."""
    encoder = small_encoder(N_ITEMS + 2)
    n_events = np.arange(2 * N_ITEMS, N_ITEMS, -1)

    def make(folder: Path) -> None:
        folder.mkdir()
        write_exported(encoder, folder)
        write_manifest(folder, Vocabulary(pa.array(MANY), n_events), encoder.shape, CONFIG, {})

    return made_once("many-items", make)


def scored(
    folder: Path, option: str, rows: Sequence[tuple[object, ...]], **options: Any
) -> tuple[dict[int, list[Row]], ScoringReport]:
    sequences = write_sequences(folder / "sequences.parquet", HISTORIES)
    tables: dict[str, Any] = {
        option: str(write_table(folder / "list.csv", "item_id,segment", rows)),
        "segments": str(write_table(folder / "people.csv", "user_id,segment", [*SEGMENTS.items()])),
    }
    config = ScoringConfig(device="cpu", top_k=7, **{**tables, **options})
    report = score(sequences, model(), config, folder / "recs.parquet")
    return {int(user): rows for user, rows in recs_of(folder / "recs.parquet").items()}, report


def plainly(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [(row["rank"], row["item_id"], row["source"], round(row["score"], 4)) for row in rows]


OTHERS: dict[str, dict[str, Any]] = {
    "alone": {},
    "with unlike items": {"diversity": 0.5},
    "with pins": {"pins": [(MANY[5], 2), (MANY[6], 3)]},
    "with candidates": {"candidates": [(user, item) for user in HISTORIES for item in MANY[: 200 + user]]},
    "with seen items": {"keep_seen": True},
    "in chunks": {"chunk_size": 4, "workers": 3},
}


@pytest.mark.parametrize("others", slow_except(OTHERS, "with candidates", "with pins"))
@pytest.mark.parametrize("option", slow_except(["allow", "block"], "block"))
def test_a_segment_list_equals_the_same_list_for_all(option: str, others: dict[str, Any], tmp_path: Path) -> None:
    headers = {"pins": "item_id,position", "candidates": "user_id,item_id"}
    options = {
        name: str(write_table(tmp_path / f"{name}.csv", headers[name], value)) if name in headers else value
        for name, value in others.items()
    }
    lists = LISTS if option == "allow" else {name: [i for i in MANY if i not in own] for name, own in LISTS.items()}
    by_segment = [(item, name) for name, own in lists.items() for item in own]
    recs, _ = scored(tmp_path, option, by_segment, **options)
    for name, own in lists.items():
        expected, _ = scored(tmp_path, option, [(item, "") for item in own], **options)
        for user, segment in SEGMENTS.items():
            if segment == name:
                assert plainly(recs.get(user, [])) == plainly(expected.get(user, []))
    outside = [user for user in HISTORIES if user not in SEGMENTS]
    if option == "allow":
        assert not set(outside) & recs.keys()
    else:
        assert all(len(recs[user]) == 7 for user in outside)


def test_only_users_of_the_changed_segment_are_scored_again(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [(item, name) for name, own in LISTS.items() for item in own]
    previous = str(tmp_path / "recs.parquet")
    scored(tmp_path, "allow", rows)
    in_half = [user for user, name in SEGMENTS.items() if name == "half" and HISTORIES[user]]
    known = [user for user in SEGMENTS if HISTORIES[user]]
    assert scored(tmp_path, "allow", rows, previous=previous)[1].users_carried_over == len(known)
    fewer = [row for row in rows if row != (MANY[2], "half")]
    recs, report = scored(tmp_path, "allow", fewer, previous=previous)
    assert report.users_carried_over == len(known) - len(in_half)
    afresh, _ = scored(tmp_path, "allow", fewer)
    assert {user: plainly(rows) for user, rows in recs.items()} == {
        user: plainly(rows) for user, rows in afresh.items()
    }


def test_a_user_who_changes_segment_is_scored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[object, ...]] = [(item, name) for name, own in LISTS.items() for item in own]
    scored(tmp_path, "allow", rows)
    n_known = sum(1 for user in SEGMENTS if HISTORIES[user])
    monkeypatch.setitem(SEGMENTS, 1, "few")
    recs, report = scored(tmp_path, "allow", rows, previous=str(tmp_path / "recs.parquet"))
    assert report.users_carried_over == n_known - 1
    assert {row["item_id"] for row in recs[1]} <= set(LISTS["few"])


def test_more_segments_than_memory_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_lists, "_MAX_CELLS", 1000)
    with pytest.raises(ConfigError, match="3 segments of 400 items are more than 1000"):
        scored(tmp_path, "block", [(MANY[0], name) for name in LISTS])


def tables_of(folder: Path, header: str, rows: Sequence[tuple[object, ...]]) -> dict[str, Any]:
    """An --allow of these rows, and users by country."""
    return {
        "allow": str(write_table(folder / "allow.csv", header, rows)),
        "segments": str(write_table(folder / "people.csv", "user_id,country", [*SEGMENTS.items()])),
        "segment_column": "country",
    }


def listed(folder: Path, **tables: Any) -> dict[int, set[Any]]:
    """The items of each user."""
    sequences = write_sequences(folder / "sequences.parquet", HISTORIES)
    score(sequences, model(), ScoringConfig(device="cpu", top_k=7, **tables), folder / "recs.parquet")
    recs = recs_of(folder / "recs.parquet")
    return {int(user): {row["item_id"] for row in rows} for user, rows in recs.items()}


def test_the_segment_column_of_a_list_is_read(tmp_path: Path) -> None:
    rows = [(item, "2020-01-01", "2999-01-01", "most", "half") for item in MANY[:200]]
    lists = listed(tmp_path, **tables_of(tmp_path, "item_id,valid_from,valid_to,segment,country", rows))
    assert lists.keys() == {user for user, name in SEGMENTS.items() if name == "half"}


@pytest.mark.parametrize("header", ["item_id,country", "item_id,COUNTRY", "item_id,segment"])
def test_lists_and_segments_share_the_column_name(
    header: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(item, "half") for item in MANY[:200]]
    lists = listed(tmp_path, **tables_of(tmp_path, header, rows))
    assert lists.keys() == {user for user, name in SEGMENTS.items() if name == "half"}
    assert set().union(*lists.values()) <= set(MANY[:200])
    assert "not read" not in caplog.text


def test_a_query_names_the_segment_in_any_case(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, "item_id", [])
    (tmp_path / "allow.sql").write_text("select unnest(range(5000, 5200)) as item_id, 'half' as Country")
    lists = listed(tmp_path, **tables | {"allow": str(tmp_path / "allow.sql"), "segment_column": "Country"})
    assert lists.keys() == {user for user, name in SEGMENTS.items() if name == "half"}


def test_columns_that_are_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(item, "2020-01-01", "half", "most") for item in MANY[:200]]
    lists = listed(tmp_path, **tables_of(tmp_path, "item_id,from,country,segment", rows))
    assert lists.keys() == {user for user, name in SEGMENTS.items() if name == "half"}
    assert f"--allow {tmp_path / 'allow.csv'}: columns that are not read: from, segment" in caplog.text


@pytest.mark.parametrize("word", ["\\N", "NULL", " none ", "\u00a0"])
def test_words_for_null_are_not_a_segment(word: str, tmp_path: Path) -> None:
    rows = [(item, word) for item in MANY[:200]]
    lists = listed(tmp_path, **tables_of(tmp_path, "item_id,country", rows))
    assert lists.keys() == HISTORIES.keys()
    tables = tables_of(tmp_path, "item_id", [(item,) for item in MANY])
    write_table(tmp_path / "people.csv", "user_id,country", [(1, word), (2, "half")])
    with pytest.raises(InputError, match="1 of 2 rows have no country"):
        listed(tmp_path, **tables)


def test_words_for_null_are_not_a_category(tmp_path: Path) -> None:
    # All items but two have no category, so they do not count towards the maximum.
    rows = [(item, "drama" if item in MANY[:2] else "\\N") for item in MANY]
    items = write_table(tmp_path / "items.csv", "movieId,title,genre", [(item, "x", genre) for item, genre in rows])
    lists = listed(tmp_path, items=str(items), category_column="genre", max_per_category=1)
    assert {len(own) for own in lists.values()} == {7}


def test_the_segment_is_in_a_column_of_its_own() -> None:
    with pytest.raises(ConfigError, match="--segment-column item_id: expected a column other than"):
        ScoringConfig(segment_column="item_id")
