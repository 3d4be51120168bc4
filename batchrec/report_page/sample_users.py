"""The section of sample users: what they took last, what they get, and why."""

from datetime import UTC, datetime
from typing import Any

from batchrec.report_page.blocks import Block, Cell, Group, MissingError, Note, Table
from batchrec.report_page.night_files import NightTables
from batchrec.report_page.titles import Titles, read_titles
from batchrec.tables.schemas import REASON_COLUMNS

_N_EVENTS = 10
_K = 10
_REASONS = (
    "Because of: items of the history, with the share of each in what the history adds to the score. Where the encoder "
    "carries an item they are approximated, for the whole table; batchrec explore and recommend --why score again "
    "without each item, and may name others."
)


def sample_users(tables: NightTables) -> list[Block]:
    """Return a few users: with a short, a median and a long history, and a cold one if there is any."""
    recs, sequences = tables.files.table, tables.files.sequences
    chosen = tables.rows("sample_users", recs=recs, sequences=sequences)
    if not chosen:
        raise MissingError("The table has no list whose user could be shown.")
    users = [row["user_id"] for row in chosen]
    events = {
        row["user_id"]: row
        for row in tables.rows("newest_events", sequences=sequences, users=users, n_events=_N_EVENTS)
    }
    lists: dict[Any, list[dict[str, Any]]] = {user: [] for user in users}
    for row in tables.rows("lists_of_users", recs=recs, users=users, k=_K):
        lists[row["user_id"]].append(row)
    shown = {item for row in events.values() for item in row["item_ids"]}
    shown |= {
        item for rows in lists.values() for row in rows for item in [row["item_id"], *(row.get("because_items") or [])]
    }
    titles = read_titles(tables, shown)
    blocks: list[Block] = [Note(f"Without titles: {titles.problem}")] if titles.problem else []
    if "carried_by" in tables.columns:
        blocks.append(Note(_REASONS))
    for row in chosen:
        user = row["user_id"]
        heading = f"User {user}: {row['chosen_as']}, {row['n_events']:,} events"
        blocks.append(Group(heading, [*_taken(events.get(user), titles), _received(lists[user], titles)]))
    return blocks


def _taken(row: dict[str, Any] | None, titles: Titles) -> list[Block]:
    if row is None or not row["item_ids"]:
        return [Note("This user has no history.")]
    rows: list[list[Cell]] = [
        [titles.name(item), f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}"]
        for item, time in zip(row["item_ids"], row["timestamps"], strict=True)
    ]
    return [Table("Took last, newest first", ["Item", "On"], rows)]


def _received(rows: list[dict[str, Any]], titles: Titles) -> Table:
    has_reasons = rows[0].keys() >= set(REASON_COLUMNS)
    columns = ["Item", "Rank", "Score", "Source", *(["Carried by", "Because of"] if has_reasons else [])]
    cells: list[list[Cell]] = []
    for row in rows:
        line: list[Cell] = [titles.name(row["item_id"]), row["rank"], round(row["score"], 3), row["source"]]
        if has_reasons:
            because = zip(row["because_items"], row["because_weights"], strict=True)
            line += [row["carried_by"], "; ".join(f"{titles.name(item)} ({weight:.0%})" for item, weight in because)]
        cells.append(line)
    return Table("Gets", columns, cells)
