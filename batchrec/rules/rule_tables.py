"""The rule tables that the options name, as they are read: text, before any id is looked up."""

from collections.abc import Mapping
from dataclasses import replace

from batchrec.config import RulesConfig
from batchrec.errors import ConfigError
from batchrec.rules.rule_table import RuleTable, read_rule_table

# Option -> the table that it names.
RuleTables = Mapping[str, RuleTable]

# What the segment's column is called in the tables of --allow and --block once they are read.
SEGMENT = "segment"
_DATES = ("valid_from", "valid_to")
_PAIRS = ("user_id", "item_id")


def read_rule_tables(config: RulesConfig) -> RuleTables:
    """Read the tables.

    Raises InputError for a table that cannot be read, ConfigError for a query that does not run, and for rows by
    segment where nobody says who is in which.
    """
    columns: Mapping[str, tuple[str | None, tuple[str, ...]]] = {
        "--boost": (config.boost, ("item_id", "factor")),
        "--pins": (config.pins, ("item_id", "position")),
        "--block-for-user": (config.block_for_user, _PAIRS),
        "--candidates": (config.candidates, _PAIRS),
        "--segments": (config.segments, ("user_id", config.segment_column)),
    }
    lists = {"--allow": config.allow, "--block": config.block}
    tables = {option: _read_list(file, option, config) for option, file in lists.items() if file is not None}
    tables |= {
        option: read_rule_table(file, option, required, (), config.night)
        for option, (file, required) in columns.items()
        if file is not None
    }
    if "--segments" in tables:
        tables["--segments"] = tables["--segments"].without_null_words(config.segment_column)
    for option in lists:
        table = tables.get(option)
        if table is not None and "--segments" not in tables and table.rows[SEGMENT].null_count < len(table.rows):
            raise ConfigError(
                f"{option} {table.file}: has rows by segment; expected --segments, a table that says which user is in "
                "which segment"
            )
    return tables


def _read_list(file: str, option: str, config: RulesConfig) -> RuleTable:
    """Read a table of --allow or --block; its segments are in the column --segment-column, or else in `segment`."""
    own = config.segment_column
    # Of the five, the last is not read where all are there.
    others = tuple(dict.fromkeys((own, *_DATES, SEGMENT)))
    table = read_rule_table(file, option, ("item_id",), others, config.night)
    segment = own if own.lower() in {name.lower() for name in table.names} else SEGMENT
    rows = table.rows.select(["item_id", segment, *_DATES]).rename_columns(["item_id", SEGMENT, *_DATES])
    read = {"item_id", segment.lower(), *_DATES}
    unread = tuple(name for name in table.names if name.lower() not in read)
    return replace(table, rows=rows, unread=unread).without_null_words(SEGMENT)
