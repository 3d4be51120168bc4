"""The rule tables that the options name, as they are read: text, before any id is looked up."""

from collections.abc import Mapping

from batchrec.config import RulesConfig
from batchrec.errors import ConfigError
from batchrec.rules.tables import RuleTable, read_rule_table

# Option -> the table that it names.
RuleTables = Mapping[str, RuleTable]

SEGMENT = "segment"
_LISTS = ("item_id",), (SEGMENT, "valid_from", "valid_to")
_PAIRS = ("user_id", "item_id"), ()


def read_rule_tables(config: RulesConfig) -> RuleTables:
    """Read the tables.

    Raises InputError for a table that cannot be read, ConfigError for a query that does not run, and for rows by
    segment where nobody says who is in which.
    """
    columns: Mapping[str, tuple[str | None, tuple[tuple[str, ...], tuple[str, ...]]]] = {
        "--allow": (config.allow, _LISTS),
        "--block": (config.block, _LISTS),
        "--boost": (config.boost, (("item_id", "factor"), ())),
        "--pins": (config.pins, (("item_id", "position"), ())),
        "--block-for-user": (config.block_for_user, _PAIRS),
        "--candidates": (config.candidates, _PAIRS),
        "--segments": (config.segments, (("user_id", config.segment_column), ())),
    }
    tables = {
        option: read_rule_table(file, option, required, optional, config.night)
        for option, (file, (required, optional)) in columns.items()
        if file is not None
    }
    for option in ("--allow", "--block"):
        table = tables.get(option)
        if table is not None and "--segments" not in tables and table.rows[SEGMENT].null_count < len(table.rows):
            raise ConfigError(
                f"{option} {table.file}: has rows by segment; expected --segments, a table of whose is which"
            )
    return tables
