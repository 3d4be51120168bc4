"""Small valid CSV logs in many formats, and mutations of them."""

import gzip
import random
from dataclasses import dataclass, field
from typing import Any

from tests.faults.byte_mutations import MUTATIONS, TEXT_MUTATIONS, mutated

_T = 1_700_000_000
# The start of the lines within a quoted title.
SECOND_LINE = "Part "


@dataclass(frozen=True)
class Base:
    """A valid log; wanted: its columns of users, items, times and, for some logs, ratings."""

    name: str
    text: str
    delimiter: str = ","
    quote: str = '"'
    wanted: tuple[str, ...] = ("userId", "movieId", "timestamp")
    names: tuple[str, ...] = ()
    is_gzipped: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def min_rating(self) -> float | None:
        found: float | None = self.options.get("min_rating")
        return found

    @property
    def repeats(self) -> str:
        return str(self.options.get("repeats", "last"))


def _lines(*rows: str, end: str = "\n") -> str:
    return "".join(f"{row}{end}" for row in rows)


_PAIRS = [(1 + number % 4, 20 + number * 7 % 5, _T + 86_400 * number) for number in range(12)]
_DAYS = [f"2023-11-{14 + number:02}T22:13:{number:02}" for number in range(12)]

BASES = [
    Base("integers", _lines("userId,movieId,timestamp", *(f"{u},{i},{t}" for u, i, t in _PAIRS))),
    Base(
        "texts",
        _lines("userId,movieId,timestamp", *(f"u{u},A{i},{d}Z" for (u, i, _), d in zip(_PAIRS, _DAYS, strict=True))),
        options={"repeats": "all"},
    ),
    Base(
        "tabs, quotes that are ordinary characters",
        _lines("userId\tmovieId\ttitle\ttimestamp", *(f'{u}\tA{i}\t12" disc {i}\t{t}000' for u, i, t in _PAIRS)),
        "\t",
        "",
    ),
    Base(
        "semicolons, decimal commas",
        _lines(
            "timestamp;rating;movieId;userId",
            *(f"{d.replace('T', ' ')};{u},5;{i};{u}" for (u, i, _), d in zip(_PAIRS, _DAYS, strict=True)),
        ),
        ";",
        wanted=("userId", "movieId", "timestamp", "rating"),
        options={"min_rating": 2.0, "repeats": "all"},
    ),
    Base(
        "titles with line ends",
        _lines(
            "userId,title,movieId,timestamp", *(f'{u},"Film, ""{i}""\n{SECOND_LINE}{u}",{i},{t}' for u, i, t in _PAIRS)
        ),
    ),
    Base(
        "Windows, all quoted",
        _lines('"movieId","userId","timestamp"', *(f'"{i}","u{u}","{t}.5"' for u, i, t in _PAIRS), end="\r\n"),
    ),
    Base(
        "padded, with nulls",
        _lines("userId|movieId|x|timestamp", *(f" {u}.0|A{i}  |{'NULL' if i % 2 else ''}|{t}" for u, i, t in _PAIRS))
        + _lines(rf"\N|A21||{_T}"),
        "|",
    ),
    Base(
        "without a header",
        _lines(*(f"{i}\x01{d}+02:00\x01{u}" for (u, i, _), d in zip(_PAIRS, _DAYS, strict=True))),
        "\x01",
        "",
        names=("movieId", "timestamp", "userId"),
        options={"header": "no", "columns": "movieId,timestamp,userId"},
    ),
    Base("gzipped", _lines("userId,movieId,timestamp", *(f"{u},{i},{t}" for u, i, t in _PAIRS)), is_gzipped=True),
]


def mutation(number: int) -> tuple[Base, str, bytes]:
    """Return the log of a mutation, a description of the changes, and the changed file."""
    chance = random.Random(number)  # noqa: S311 - a sample, no secret
    base = BASES[number % len(BASES)]
    contents = base.text.encode()
    if base.is_gzipped and chance.random() < 0.5:
        done, contents = mutated(gzip.compress(contents, mtime=0), chance, MUTATIONS)
        return base, f"compressed: {done}", contents
    done, contents = mutated(contents, chance, TEXT_MUTATIONS)
    return base, done, gzip.compress(contents, mtime=0) if base.is_gzipped else contents
