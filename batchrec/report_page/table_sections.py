"""The sections on the table: the users and items that it reaches, and the changes since the night before."""

from typing import Any

from batchrec.report_page.blocks import Block, Cell, Charts, Facts, MissingError, Note, Table
from batchrec.report_page.charts import Point, bars
from batchrec.report_page.charts import columns as column_chart
from batchrec.report_page.night_files import NightFiles, NightTables
from batchrec.report_page.table_changes import same_id_types, table_changes
from batchrec.report_page.titles import read_titles
from batchrec.tables.queries import literal, materialize

_N_LISTS = 10
# Items named per list.
_N_NAMED = 3


def histories(tables: NightTables) -> list[Block]:
    """Return how long the histories are."""
    data = tables.files.stage("build-sequences")
    rows = tables.rows("history_lengths", sequences=tables.files.sequences)
    points = [Point(_band(row["shortest"], max(0, 2 * row["shortest"] - 1)), row["users"]) for row in rows]
    facts: list[tuple[str, Cell]] = [
        ("Shortest", data["shortest_history"]),
        ("Median", data["median_history"]),
        ("Mean", round(data["mean_history"], 1)),
        ("99 % are at most", data["percentile_99_history"]),
        ("Longest", data["longest_history"]),
    ]
    return [
        Facts(facts),
        Charts([column_chart("Users by the length of their history", points, ("events", "users"), ",~f")]),
    ]


def popularity(tables: NightTables) -> list[Block]:
    """Return how popular the recommended items are, next to those that users took."""
    materialize(tables.con, "report/item_events", sequences=literal(tables.files.sequences))
    rows = tables.rows("popularity", recs=tables.files.table)
    bands = [(_band(row["first_rank"], row["last_rank"]), row) for row in rows]
    points = [Point(band, row["events_share"] or 0, "events") for band, row in bands]
    points += [Point(band, row["recs_share"] or 0, "recommendations") for band, row in bands]
    table: list[list[Cell]] = [
        [band, _percent(row["events_share"]), _percent(row["recs_share"]), row["items_recommended"]]
        for band, row in bands
    ]
    chart = column_chart("Share by popularity of the item", points, ("popularity rank", "share"), "~%")
    return [
        Note("Items are ranked by their events in the histories: 1 is the item that was taken most often."),
        Charts([chart]),
        Table(
            "Share of events and of recommendations by popularity rank",
            ["Popularity rank", "Share of events", "Share of recommendations", "Items recommended"],
            table,
        ),
    ]


def coverage(tables: NightTables) -> list[Block]:
    """Return how many items and users the table reaches."""
    scored, checked = tables.files.stage("score"), tables.files.stage("check")
    n_users = max(1, checked["histories"])
    facts: list[tuple[str, Cell]] = [
        ("Items recommended", checked["items"]),
        ("Items that may be recommended", scored["eligible_items"]),
        ("Share of the catalogue that is recommended", _percent(checked["items"] / max(1, scored["eligible_items"]))),
        ("Users with a list", checked["users"]),
        ("Users with a full list", checked["users_with_full_list"]),
        ("Full lists per user with a history", _percent(checked["users_with_full_list"] / n_users)),
        ("Recommendations that are one of the ten most frequent items", _percent(checked["top_items_share"])),
        ("Users who have seen all items", scored["users_skipped_all_seen"]),
        ("Users left without a list by rules", sum(scored["emptied_by"].values())),
    ]
    return [Facts(facts)]


def sources(tables: NightTables) -> list[Block]:
    """Return where the recommendations come from, and which part of the blend carries them."""
    recs = tables.files.table
    rows = tables.rows("sources", recs=recs)
    total = max(1, sum(row["n_rows"] for row in rows))
    charts = [bars("Source", [Point(row["source"], row["n_rows"] / total) for row in rows], ".1%")]
    source_rows: list[list[Cell]] = [
        [row["source"], row["n_rows"], _percent(row["n_rows"] / total), row["users"]] for row in rows
    ]
    blocks: list[Block] = [Table("Source of the recommendations", ["Source", "Rows", "Share", "Users"], source_rows)]
    if "carried_by" in tables.columns:
        carried = [
            (row["carried_by"] or "none: not by the model", row["n_rows"])
            for row in tables.rows("carried_by", recs=recs)
        ]
        charts.append(
            bars("Part of the blend that carries a row", [Point(name, n / total) for name, n in carried], ".1%")
        )
    training = _training(tables.files)
    if training.get("blend_shares"):
        points = [Point(name, share) for name, share in training["blend_shares"].items()]
        charts.append(bars("Share of the top 10 per part, at the training", points, ".1%"))
        gains = training.get("blend_ndcg_gains", {})
        signals: list[list[Cell]] = [
            [name.replace("_", " "), float(weight), gains.get(name)] for name, weight in training["blend"].items()
        ]
        blocks.append(Table("Signals of the blend, at the training", ["Signal", "Weight", "Gain in NDCG@10"], signals))
    return [Charts(charts), *blocks]


def _training(files: NightFiles) -> dict[str, Any]:
    """Return the report of the training of the night's model; empty if its night's report is not kept."""
    model_id = files.stages.get("score", {}).get("model_id")
    trainings = [report["stages"].get("train", {}) for report in [*files.earlier, files.report]]
    return next((training for training in reversed(trainings) if training.get("model_id") == model_id), {})


def changes(tables: NightTables) -> list[Block]:
    """Return what is different from the table of the published night before."""
    if tables.files.previous is None:
        return [Note("Nothing to compare with: no earlier night has an intact table.")]
    night, previous = tables.files.previous
    recs = tables.files.table
    if not same_id_types(recs, previous):
        raise MissingError(f"The ids have another type than on {night}, so the lists are not compared.")
    changed = table_changes(tables.con, recs, previous, _N_LISTS, _N_NAMED)
    facts: list[tuple[str, Cell]] = [
        ("Compared with the table of", str(night)),
        ("Users with a list on both nights", changed.users_in_both),
        ("Users who are new", changed.users_in),
        ("Users who are gone", changed.users_out),
        ("Items that are new in the lists", changed.items_in),
        ("Items that are gone from the lists", changed.items_out),
        ("Lists with the same items", changed.same_lists),
        ("Mean share of a list that was in it before", _percent(changed.overlap)),
    ]
    if not changed.moved:
        return [Facts(facts), Note("Every user who is in both tables has the same items.")]
    titles = read_titles(tables, {item for row in changed.moved for item in (*row.came, *row.gone)})
    lists: list[list[Cell]] = [
        [
            # An id is a name, not a number.
            str(row.user_id),
            f"{row.n_tonight - row.n_kept} of {row.n_tonight}",
            titles.names(row.came),
            titles.names(row.gone),
        ]
        for row in changed.moved
    ]
    caption = "The lists that moved most: those that keep the smallest share of items"
    columns = ["User", "New", "The first that came", "The first that are gone"]
    return [Facts(facts), Table(caption, columns, lists)]


def _band(first: Any, last: Any) -> str:
    return f"{first:,}" if first == last else f"{first:,}–{last:,}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
