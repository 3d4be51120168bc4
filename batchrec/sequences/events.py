"""Load raw events into DuckDB with their types, and count the rows that cannot be used."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from batchrec.config import SequencesConfig
from batchrec.errors import InputError
from batchrec.sequences.event_times import TimesOfKind, problem_of, times_of, unit_needed, warnings_of
from batchrec.sequences.id_types import (
    BINARY_IDS,
    COMMA_AND_ZEROS,
    FLOAT_IDS,
    LIKELY_SEVERAL,
    PARTED_DIGITS,
    QUOTED_IDS,
    SEVERAL_IDS,
    SHOWN_IDS,
    WHOLE_IDS,
    IdTypes,
    Role,
    mixed_types,
)
from batchrec.sequences.log import find_merged, leave_out_merged, open_log, refuse_lost_digits, refuse_quotes
from batchrec.sequences.reject_texts import advice_on
from batchrec.sequences.scans import Scans, Typing
from batchrec.sources import ESCAPED_QUOTE, Reject, rejects_of_lines, shown_files, sql_name
from batchrec.tables.ids import BLANKS
from batchrec.tables.queries import materialize, table_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedEvents:
    """How many rows were read, which of them are not events of a history, and how the others are typed."""

    n_rows: int
    n_before_since: int
    n_below_min_rating: int
    rejects: list[Reject]
    typing: Typing


def load_events(con: duckdb.DuckDBPyConnection, ratings: Sequence[str], config: SequencesConfig) -> LoadedEvents:
    """Fill the table loaded_events, one row per event: user_id, item_id, moment, problem and what leaves it out.

    user_id, item_id: int64 if every id is an integer, else text; moment: int64, microseconds UTC.
    Raises InputError if more rows than `config.max_bad_rows` are unusable, naming file, line and value of the first, or
    if the unit of times is mixed or unknown; ConfigError if a query fails.
    """
    log = open_log(con, ratings, config)
    refuse_lost_digits(con, log)
    refuse_quotes(con, log)
    merged = find_merged(con, log)
    leave_out_merged(con, log, merged)
    loaded = check_events(Scans(con, log, merged), log.has_quoted_fields)
    for name, query in (("user", "sequences/respelled_users"), ("item", "sequences/respelled_items")):
        if loaded.typing.types.has_blanks(name):
            materialize(con, query, blanks=BLANKS)
            con.execute(f"drop table loaded_events; alter table {table_of(query)} rename to loaded_events")
    return loaded


def check_events(scans: Scans, has_quotes: bool) -> LoadedEvents:
    """Decide how the values of a log are typed, and count the rows that cannot be used. Raises as `load_events`."""
    typing, warnings = _decide(scans, has_quotes)
    loaded = _check_rejects(scans, typing)
    # Only now, because an error must be the only line.
    for warning in warnings:
        _log.warning("%s", warning)
    return loaded


def _decide(scans: Scans, has_quotes: bool) -> tuple[Typing, list[str]]:
    """Type the events, and type them again if an id is not an integer or the times have another unit than expected.

    Returns how they are typed, and warnings about ids and times.
    """
    log, config = scans.log, scans.log.config
    typing = Typing(IdTypes.expected(log.sources, log.user, log.item, config), config.timestamp_unit, has_quotes)
    wanted = ((log.user, config.user_id_type), (log.item, config.item_id_type))
    warnings = [mixed_types(log.sources, column) for column, id_type in wanted if id_type == "auto"]
    # Per role, the number of ids that are not integers, and the first of them.
    unfit: dict[Role, tuple[int, Reject]] = {}
    while True:
        checks = scans.checks(typing)
        times = times_of(checks)
        types = typing.types.fitting(checks)
        if typing.unit == "auto":
            _refuse_times(scans, times)
        needed = unit_needed(times) if typing.unit == "auto" else typing.unit
        if not types.to_change and needed == typing.unit:
            break
        for role in types.to_change:
            example = scans.example(role)
            warnings.append(types.warning(role, example))
            unfit[role] = types.unfit(role), example
        typing = Typing(types.changed(), needed, has_quotes)
    for role in types.guessed_texts:
        n_unfit, first_unfit = unfit.get(role, (0, None))
        warnings.append(_missing_word(scans, role, n_unfit, first_unfit))
        _refuse_ids_of_form(scans, role)
        if n_unfit == 0:
            warnings.append(_likely_several(scans, role))
    about_times = warnings_of(times, config.timestamp_unit)
    warnings += [f"{scans.example(kind)}: {warning}" for warning, kind in about_times]
    return Typing(types, needed, has_quotes), [warning for warning in warnings if warning is not None]


def _refuse_times(scans: Scans, times: Sequence[TimesOfKind]) -> None:
    """Raise InputError if numeric times need an explicit unit or format."""
    problem = problem_of(scans.con, times, is_query=scans.log.config.query is not None)
    if problem is not None:
        kinds, text = problem
        examples = [scans.example(kind) for kind in kinds]
        others = "".join(f", {example.value!r}" for example in examples[1:])
        raise InputError(f"{examples[0]}{others}: {text}")


def _refuse_ids_of_form(scans: Scans, role: Role) -> None:
    """Raise InputError if a column of texts holds lists that are written as text, or ids that are spelled oddly."""
    log = scans.log
    column, query = log.user if role == "user" else log.item, log.config.query
    where, name = query or ", ".join(shown_files(source.places) for source in log.sources), sql_name(column)
    confirm = f"or --{role}-id-type text to confirm that each is one id"
    of_column = f"{where}: column {column!r} of --{role}-column has"
    several = scans.id_of_form(role, SEVERAL_IDS)
    if several is not None:
        raise InputError(
            f"{of_column} several ids per row, objects or separated digits, like {several[:60]!r}; expected one id. "
            f"Pass a query that {_one_id(several, name)}, {confirm}"
        )
    floats = None if scans.id_of_form(role, WHOLE_IDS) else scans.id_of_form(role, FLOAT_IDS)
    if floats is not None:
        raise InputError(
            f"{of_column} whole numbers that are written as floats, like {floats!r}. Pass --{role}-id-type integer if "
            rf"every id is one, a query with regexp_replace({name}, '\.0+$', ''), {confirm}"
        )
    quoted = scans.id_of_form(role, QUOTED_IDS) or scans.id_of_form(role, SHOWN_IDS)
    if quoted is not None:
        text = quoted.strip()
        marks = {"=": '="', "'": "''", "\u201c": "\u201c\u201d"}.get(text[0], text[0])
        remove = rf"regexp_extract({name}, '\W+(.+?)\W+$', 1)" if text[0].isalpha() else f"trim({name}, '{marks}')"
        option = """--quote "'", """ if text[0] == text[-1] == "'" and log.has_csv else ""
        raise InputError(
            f"{of_column} ids within quotes, like {text[:60]!r}; expected ids without them. Pass {option}a query that "
            f"removes them, as {remove} does, {confirm}"
        )
    binary = scans.id_of_form(role, BINARY_IDS)
    if binary is not None:
        raise InputError(
            f"{of_column} ids that are no text, like {binary[:60]!r}; expected text or integers of 64 bits. Write them "
            f"as such, pass a query that spells their bytes, as hex({name}) does, {confirm}"
        )


def _likely_several(scans: Scans, role: Role) -> str | None:
    """Return a warning if some ids of a column of texts look like several; None if not."""
    several = scans.id_of_form(role, SEVERAL_IDS, LIKELY_SEVERAL)
    if several is None:
        return None
    column = sql_name(scans.log.user if role == "user" else scans.log.item)
    return (
        f"some {role} ids look like several in one, like {several[:60]!r}, and are read as one id each. If they are "
        f"several pass a query that {_one_id(several, column)}, or --{role}-id-type text to confirm"
    )


def _one_id(several: str, name: str) -> str:
    """Return what makes one id per row of a text that looks like several, in a query. name: the column in SQL."""
    if re.fullmatch(PARTED_DIGITS, several):
        digits = rf"regexp_replace({name}, '\D', '', 'g')"
        return f"removes what parts the digits, as {digits} does, or takes the ids apart, as unnest does"
    if re.fullmatch(COMMA_AND_ZEROS, several):
        return f"removes the decimals, as regexp_replace({name}, ',0+$', '') does"
    return "takes them apart, as unnest does"


def _missing_word(scans: Scans, role: Role, n_unfit: int, first: Reject | None) -> str | None:
    """Return a warning if ids of a role are words that others write for a missing value; None if not.

    n_unfit: how many ids are not integers, first: the first of them. Raises InputError if such a word is the only id
    that is not an integer: as text, it would change all others.
    """
    found = scans.missing_word(role)
    if found is None:
        return None
    word, n_events = found
    if 0 < n_unfit <= n_events:
        raise InputError(
            f"{first}: all {role} ids are integers except {word!r}, which has {n_events} event(s). Pass --null "
            f"{word.strip()!r} if it means a missing id, or --{role}-id-type text to confirm that it is one"
        )
    return f"{role} id {word!r} has {n_events} event(s). If it means a missing id pass --null {word.strip()!r}"


def _check_rejects(scans: Scans, typing: Typing) -> LoadedEvents:
    config, counts = scans.log.config, scans.counts()
    n_used, n_old, n_below = (counts.get(reason, 0) for reason in (None, "before --since", "below --min-rating"))
    not_parsed = rejects_of_lines(scans.malformed(), scans.merged)
    n_unusable = sum(counts.values()) - n_used - n_old - n_below
    n_bad, n_rows = n_unusable + len(not_parsed), sum(counts.values()) + len(not_parsed)
    if n_bad <= config.bad_rows_allowed(n_rows):
        unusable = list(scans.unusable(n_unusable)) if n_unusable else []
        return LoadedEvents(n_rows, n_old, n_below, not_parsed + unusable, typing)
    first = not_parsed[0] if not_parsed else next(scans.unusable(1))
    advice = f"Fix them, or allow as many with --max-bad-rows (now {config.max_bad_rows})"
    if scans.merged and ESCAPED_QUOTE not in first.value:
        advice = f"If quotes are ordinary characters in this file pass --quote none. {advice}"
    else:
        advice = f"{advice_on(first, 2 * n_bad >= n_rows, scans.log.timestamp)}{advice}"
    raise InputError(f"{first}; {n_bad} of {n_rows} rows cannot be used. {advice}")
