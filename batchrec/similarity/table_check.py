"""Check a finished table of similar items: in SQL, from the table and the rules as they are read."""

from dataclasses import dataclass
from pathlib import Path

from batchrec.config import SimilarConfig
from batchrec.errors import GateError, InputError, one_line
from batchrec.rules.rule_tables import RuleTables
from batchrec.rules.rulebook import read_rule_tables
from batchrec.rules.table_check import BrokenRule, check_item_lists
from batchrec.tables.ids import BLANKS
from batchrec.tables.queries import connect, literal, rows_of
from batchrec.tables.sealed_parquet import open_parquet


@dataclass(frozen=True)
class SimilarFigures:
    """Figures of a finished table of similar items.

    faults: number of violations of each part of its contract. broken_rules: number of rows that break each rule.
    """

    faults: dict[str, int]
    broken_rules: list[BrokenRule]


def measure_similar(similar: Path, config: SimilarConfig, rules: RuleTables | None = None) -> SimilarFigures:
    """Measure a table of similar items by its contract and its rules; rules: as they were read, None to read them.

    Raises InputError if the table has changed since it was written, which SQL would not notice.
    """
    try:
        open_parquet(similar)
    except OSError as error:
        raise InputError(f"{similar}: cannot be read: {one_line(error)}. Make it again") from error
    rules = read_rule_tables(config.rules) if rules is None else rules
    with connect(similar.parent) as con:
        (faults,) = rows_of(con, "similarity/table_faults", similar=literal(similar), blanks=BLANKS)
    n_faults = {name: int(number) for name, number in faults.items()}
    return SimilarFigures(n_faults, check_item_lists(similar, rules, config.night))


def refuse_broken(finished: Path, out: Path, rules: RuleTables, config: SimilarConfig) -> None:
    """Raise GateError if a finished table breaks its contract or a rule; out: the table that it would replace."""
    figures = measure_similar(finished, config, rules)
    broken = [f"{number} {name.replace('_', ' ')}" for name, number in figures.faults.items() if number]
    broken += [
        f"{rule.n_rows} rows that break {rule.rule} ({rule.example})" for rule in figures.broken_rules if rule.n_rows
    ]
    if broken:
        raise GateError(f"the table has {', '.join(broken)}: a bug. {out} stays as it was")
