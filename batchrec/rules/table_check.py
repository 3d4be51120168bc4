"""Check that a finished recs table keeps the rules: in SQL, from the tables as they are read, without the scorer."""

import math
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchrec.config import ScoringConfig, Shard
from batchrec.rules.rule_tables import SEGMENT, RuleTable, RuleTables
from batchrec.sources.catalogue import read_categories
from batchrec.tables.ids import BLANKS, without_blanks
from batchrec.tables.queries import connect, literal, select
from batchrec.tables.schemas import WEIGHED_COLUMNS

_CAP, _PINS, _SEEN = "--max-per-category", "--pins", "--seen"
_UNLIMITED = 2**31 - 1


@dataclass(frozen=True)
class BrokenRule:
    """How many recommendations break a rule; rule: its option; example: one of them, None if none breaks it."""

    rule: str
    n_rows: int
    example: str | None = None


@dataclass(frozen=True)
class FinishedTable:
    """A recs table on disk and the histories of its users; listed: the users of --users, None without it.

    shard: the only users of the table; None for all.
    """

    recs: Path
    sequences: Path
    listed: pa.Array | None = None
    shard: Shard | None = None


def check_rules(table: FinishedTable, rules: RuleTables, config: ScoringConfig) -> list[BrokenRule]:
    """Count, for each given rule, the recommendations that break it.

    --seen is checked if it is an age, or if the sequences say what counts as seen or is disliked; in every other case
    seen items are those of the histories, and a night counts them (nightly/gates/output.py).
    Raises InputError and ConfigError for a catalogue that cannot be read.
    """
    names = set(pq.read_schema(table.sequences).names)
    has_seen = math.isfinite(config.seen_from) or not names.isdisjoint(WEIGHED_COLUMNS)
    if not rules and config.max_per_category is None and not has_seen:
        return []
    given = [option for option in ("--allow", "--block", "--block-for-user", "--candidates") if option in rules]
    counted = {rule: BrokenRule(rule, 0) for rule in given}
    with connect(table.recs.parent) as con:
        _open(con, table, rules, config)
        view_blocked_items(con, table.sequences, config)
        if has_seen:
            counted[_SEEN] = _broken(_SEEN, *select(con, "rules/blocked_recs").fetchall()[0])
        if given:
            _judge(con, "ruled_recs", "judged_recs", rules, config.night)
            for rule, n_rows, example in select(con, "rules/forbidden_recs").fetchall():
                counted[rule] = _broken(rule, n_rows, example)
        if config.max_per_category is not None:
            over_cap = select(con, "rules/recs_over_cap", maximum=config.max_per_category).fetchall()[0]
            counted[_CAP] = _broken(_CAP, *over_cap)
        if _PINS in rules:
            shard = table.shard or Shard(0, 1)
            pins = select(
                con,
                "rules/asked_pins",
                blanks=BLANKS,
                sequences=literal(table.sequences),
                is_listed=table.listed is not None,
                shard=shard.index,
                n_shards=shard.n_shards,
            )
            pins.create_view("asked_pins")
            select(con, "rules/seen_pins").create_view("seen_pins")
            _judge(con, "asked_pins", "judged_pins", rules, config.night)
            maximum = config.max_per_category or _UNLIMITED
            misplaced = select(con, "rules/misplaced_pins", maximum=maximum).fetchall()[0]
            counted[_PINS] = _broken(_PINS, *misplaced)
    return list(counted.values())


def check_item_lists(similar: Path, rules: RuleTables, night: date) -> list[BrokenRule]:
    """Count, for --allow and --block if they are given, the rows of a table of similar items that break them."""
    counted = {option: BrokenRule(option, 0) for option in rules}
    if rules:
        with connect(similar.parent) as con:
            types = {"item_id": pq.read_schema(similar).field("similar_item_id").type}
            select(con, "rules/ruled_similar", similar=literal(similar), blanks=BLANKS).create_view("ruled_similar")
            _register(con, rules, types)
            con.register("user_segments", _NO_SEGMENTS)
            _judge(con, "ruled_similar", "judged_recs", rules, night)
            for rule, n_rows, example in select(con, "rules/forbidden_recs").fetchall():
                counted[rule] = _broken(rule, n_rows, example, "item")
    return list(counted.values())


def view_blocked_items(con: duckdb.DuckDBPyConnection, sequences: Path, config: ScoringConfig) -> None:
    """Create the view blocked_items: what the users of a sequences table may not get by --seen and their dislikes."""
    parameters = {"sequences": literal(sequences), "blanks": BLANKS, "seen_from": config.seen_from}
    select(con, "rules/blocked_items", **parameters).create_view("blocked_items")


def _judge(con: duckdb.DuckDBPyConnection, asked: str, name: str, rules: RuleTables, night: date) -> None:
    has = {"has_allow": "--allow" in rules, "has_candidates": "--candidates" in rules}
    select(con, "rules/judged", asked=asked, night=night, **has).create_view(name)


def _broken(rule: str, n_rows: int, example: tuple[str, int, str] | None, of: str = "user") -> BrokenRule:
    """Return a broken rule with its example; of: whose lists the table holds."""
    text = None if example is None else f"{of} {example[0]!r}, rank {example[1]}, item {example[2]!r}"
    return BrokenRule(rule, n_rows, text)


def _open(con: duckdb.DuckDBPyConnection, table: FinishedTable, rules: RuleTables, config: ScoringConfig) -> None:
    """Create views of the table and the rules, with ids as trimmed text."""
    schema = pq.read_schema(table.recs)
    types = {name: schema.field(name).type for name in ("user_id", "item_id")}
    select(con, "rules/ruled_recs", recs=literal(table.recs), blanks=BLANKS).create_view("ruled_recs")
    _register(con, rules, types)
    segments, pins = _NO_SEGMENTS, _NO_PINS
    if "--segments" in rules:
        table_of_segments = rules["--segments"]
        columns = [_ids(table_of_segments, "user_id", types), table_of_segments.rows[config.segment_column]]
        segments = pa.table(columns, _NO_SEGMENTS.schema)
    if _PINS in rules:
        positions = pc.cast(rules[_PINS].rows["position"].cast(pa.float64()), pa.int64())
        pins = pa.table([_ids(rules[_PINS], "item_id", types), positions], _NO_PINS.schema)
    con.register("user_segments", segments)
    con.register("pins", pins.filter(pins["item_id"].is_valid()))
    con.register("categories", _categories(config, types["item_id"]))
    listed = pa.array([], pa.string()) if table.listed is None else _trimmed(table.listed)
    con.register("listed_users", pa.table({"user_id": listed}))


def _register(con: duckdb.DuckDBPyConnection, rules: RuleTables, types: dict[str, pa.DataType]) -> None:
    """Create the views item_lists and user_items, with ids as trimmed text; types: of user_id and item_id."""
    lists = [_item_list(option, rules[option], types) for option in ("--allow", "--block") if option in rules]
    con.register("item_lists", pa.concat_tables([_NO_LIST, *lists]))
    pairs = [_pairs(option, rules[option], types) for option in ("--block-for-user", "--candidates") if option in rules]
    con.register("user_items", pa.concat_tables([_NO_PAIRS, *pairs]))


_NO_LIST = pa.schema(
    [
        pa.field("option", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("segment", pa.string()),
        pa.field("valid_from", pa.date32()),
        pa.field("valid_to", pa.date32()),
    ]
).empty_table()
_NO_PAIRS = pa.schema([(name, pa.string()) for name in ("option", "user_id", "item_id")]).empty_table()
_NO_SEGMENTS = pa.schema([("user_id", pa.string()), ("segment", pa.string())]).empty_table()
_NO_PINS = pa.schema([("item_id", pa.string()), ("position", pa.int64())]).empty_table()


def _item_list(option: str, table: RuleTable, types: dict[str, pa.DataType]) -> pa.Table:
    columns = [
        pa.repeat(option, len(table.rows)),
        _ids(table, "item_id", types),
        table.rows[SEGMENT],
        table.days("valid_from"),
        table.days("valid_to"),
    ]
    return pa.table(columns, _NO_LIST.schema)


def _pairs(option: str, table: RuleTable, types: dict[str, pa.DataType]) -> pa.Table:
    columns = [pa.repeat(option, len(table.rows)), _ids(table, "user_id", types), _ids(table, "item_id", types)]
    return pa.table(columns, _NO_PAIRS.schema)


def _ids(table: RuleTable, column: str, types: dict[str, pa.DataType]) -> pa.Array:
    """Return ids as text in the form of a type, null for an id that cannot be of that type, so that no row has it."""
    return _trimmed(table.ids(column, types[column]))


def _trimmed(ids: pa.Array) -> pa.Array:
    return without_blanks(ids.cast(pa.string()))


def _categories(config: ScoringConfig, item_type: pa.DataType) -> pa.Table:
    categories = read_categories(config, item_type)
    if categories is None:
        return pa.table({"item_id": pa.array([], pa.string()), "category": pa.array([], pa.string())})
    return pa.table({"item_id": _trimmed(categories.item_ids), "category": categories.values})
