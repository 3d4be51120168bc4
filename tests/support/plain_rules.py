"""An independent implementation of the rules to compare with: plain Python, one user at a time, over all items."""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from batchrec.model.directory import write_manifest
from batchrec.model.vocabulary import Vocabulary
from batchrec.training.encoder import Encoder
from tests.support.models import CONFIG, N_ITEMS, next_item_scores, small_encoder
from tests.support.shared import made_once, write_exported

ITEMS = [1000 + number for number in range(N_ITEMS)]
# How often the model's items were in the log that it was trained on.
N_EVENTS = range(2 * N_ITEMS, N_ITEMS, -1)
Row = tuple[int, float, str]


@cache
def encoder() -> Encoder:
    return small_encoder(N_ITEMS + 2)


@cache
def model() -> Path:
    """A model of the ITEMS with weights so large that no two scores are nearly equal."""

    def make(folder: Path) -> None:
        folder.mkdir()
        write_exported(encoder(), folder)
        write_manifest(folder, Vocabulary(pa.array(ITEMS), np.array(N_EVENTS)), encoder().shape, CONFIG, {})

    return made_once("random-model", make)


@cache
def embeddings() -> np.ndarray[Any, np.dtype[np.float64]]:
    weights: np.ndarray[Any, np.dtype[np.float64]] = encoder().item_embeddings.weight.detach().double().numpy()
    return weights


def cosine(one: int, other: int) -> float:
    if one not in ITEMS or other not in ITEMS:
        return 0.0
    first, second = (embeddings()[item - ITEMS[0] + 2] for item in (one, other))
    return float(first @ second / math.sqrt((first @ first) * (second @ second)))


@dataclass(frozen=True)
class Night:
    """The rules of a night."""

    top_k: int = 5
    keep_seen: bool = False
    allow: Sequence[int] | None = None
    block: Sequence[int] = ()
    block_for_user: Mapping[int, Sequence[int]] = field(default_factory=dict)
    candidates: Mapping[int, Sequence[int]] | None = None
    boost: Mapping[int, float] = field(default_factory=dict)
    pins: Mapping[int, int] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)
    max_per_category: int | None = None
    diversity: float = 0.0
    segments: Mapping[int, str] = field(default_factory=dict)
    # By segment, in addition to the items for all users above.
    allow_in: Mapping[str, Sequence[int]] = field(default_factory=dict)
    block_in: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def may_have(self, user: int, item: int, history: Iterable[int]) -> bool:
        segment = self.segments.get(user, "")
        allowed = [*(self.allow or ()), *self.allow_in.get(segment, ())]
        return (
            (self.keep_seen or item not in history)
            and (item in allowed or (self.allow is None and not self.allow_in))
            and item not in self.block
            and item not in self.block_in.get(segment, ())
            and item not in self.block_for_user.get(user, ())
            and (self.candidates is None or item in self.candidates.get(user, ()))
        )

    def options(self, folder: Path) -> dict[str, Any]:
        """Write the tables that say something, and return the options of a ScoringConfig."""
        tables: dict[str, tuple[str, Sequence[Sequence[object]]]] = {
            "block": ("item_id,segment", rows_by_segment(self.block, self.block_in)),
            "block_for_user": ("user_id,item_id", pairs_of(self.block_for_user)),
            "boost": ("item_id,factor", list(self.boost.items())),
            "pins": ("item_id,position", list(self.pins.items())),
        }
        tables = {name: (header, rows) for name, (header, rows) in tables.items() if rows}
        # Without a row, these say something too.
        if self.allow is not None or self.allow_in:
            tables["allow"] = ("item_id,segment", rows_by_segment(self.allow or (), self.allow_in))
        if self.candidates is not None:
            tables["candidates"] = ("user_id,item_id", pairs_of(self.candidates))
        if self.segments or self.allow_in or self.block_in:
            tables["segments"] = ("user_id,segment", list(self.segments.items()))
        options: dict[str, Any] = {
            "allow_empty_rules": True,
            "top_k": self.top_k,
            "keep_seen": self.keep_seen,
            "diversity": self.diversity,
        }
        for name, (header, rows) in tables.items():
            options[name] = str(write_table(folder / f"{name}.csv", header, rows))
        if self.max_per_category is not None:
            catalogue = [(item, f"Item {item}", self.categories.get(item, "")) for item in [*ITEMS, 7]]
            options["items"] = str(write_table(folder / "movies.csv", "movieId,title,genre", catalogue))
            options |= {"category_column": "genre", "max_per_category": self.max_per_category}
        return options


def pairs_of(items_of: Mapping[int, Sequence[int]]) -> list[tuple[int, int]]:
    return [(user, item) for user, items in items_of.items() for item in items]


def rows_by_segment(items: Iterable[int], by_segment: Mapping[str, Sequence[int]]) -> list[tuple[int, str]]:
    return [(item, "") for item in items] + [(item, name) for name, own in by_segment.items() for item in own]


def write_table(file: Path, header: str, rows: Iterable[Sequence[object]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([header.split(","), *rows])
    return file


def scores_after(history: Sequence[int], night: Night) -> dict[int, float]:
    """The model's score of every item, with its boost."""
    known = [item - ITEMS[0] + 2 for item in history if item in ITEMS]
    scores = next_item_scores(encoder(), known)[2:]
    return {item: score + math.log(night.boost.get(item, 1)) for item, score in zip(ITEMS, scores, strict=True)}


def popular_items(histories: Mapping[int, Sequence[int]], user: int, night: Night) -> list[Row]:
    """Items by popularity in the user's segment, of all users, and of all time; all events are in the last days."""
    new = sorted({item for history in histories.values() for item in history} - set(ITEMS))
    order = [*ITEMS, *new]
    segment = night.segments.get(user)
    members = [history for other, history in histories.items() if segment and night.segments.get(other) == segment]
    tiers = {
        "popular_segment": Counter(item for history in members for item in history),
        "popular": Counter(item for history in histories.values() for item in history),
        "popular_all_time": Counter(dict(zip(ITEMS, N_EVENTS, strict=True))),
    }
    rows: dict[int, Row] = {}
    for source, counts in tiers.items():
        boosted = {item: n * night.boost.get(item, 1) for item, n in counts.items()}
        for item in sorted(boosted, key=lambda item: (-np.float32(boosted[item]), order.index(item))):
            rows.setdefault(item, (item, boosted[item], source))
    return list(rows.values())


def expected(user: int, histories: Mapping[int, Sequence[int]], night: Night) -> list[Row]:
    """The list of a user: item, score and source of each rank."""
    history = histories[user]
    if set(history) & set(ITEMS):
        scores = scores_after(history, night)
        ranked = [(item, scores[item], "model") for item in sorted(scores, key=lambda item: -scores[item])]
    else:
        ranked = popular_items(histories, user, night)
    eligible = [row for row in ranked if night.may_have(user, row[0], history)]
    taken: Counter[str] = Counter()
    pins: dict[int, Row] = {}
    values = {item: score for item, score, _ in ranked}
    for item, position in sorted(night.pins.items(), key=lambda pin: pin[1]):
        if night.may_have(user, item, history) and has_room(item, taken, night):
            taken[night.categories.get(item, "")] += 1
            pins[position] = (item, values.get(item, 0.0), "pinned")
    is_by_model = any(source == "model" for _, _, source in ranked)
    choose = unlike if night.diversity and is_by_model else in_order
    others = choose(eligible, [row[0] for row in pins.values()], taken, night)[: night.top_k - len(pins)]
    return laid_out(pins, others, night.top_k)


def has_room(item: int, taken: Counter[str], night: Night) -> bool:
    category = night.categories.get(item, "")
    return night.max_per_category is None or category == "" or taken[category] < night.max_per_category


def in_order(eligible: list[Row], pinned: Sequence[int], taken: Counter[str], night: Night) -> list[Row]:
    chosen = []
    for row in eligible:
        if row[0] not in night.pins and has_room(row[0], taken, night):
            taken[night.categories.get(row[0], "")] += 1
            chosen.append(row)
    return chosen


def unlike(eligible: list[Row], pinned: Sequence[int], taken: Counter[str], night: Night) -> list[Row]:
    """Maximal marginal relevance; the pool holds the whole catalogue, which has fewer than 100 items."""
    highest, lowest = (pick([row[1] for row in eligible], default=0.0) for pick in (max, min))
    chosen: list[Row] = []
    while True:
        before = [*pinned, *(row[0] for row in chosen)]
        rest = [r for r in eligible if r[0] not in {*before, *night.pins} and has_room(r[0], taken, night)]
        if not rest:
            return chosen

        def marginal(row: Row, before: Sequence[int] = before) -> float:
            relevance = (row[1] - lowest) / (highest - lowest) if highest > lowest else 1.0
            alike = max((cosine(row[0], other) for other in before), default=0.0)
            return (1 - night.diversity) * relevance - night.diversity * alike

        chosen.append(max(rest, key=marginal))
        taken[night.categories.get(chosen[-1][0], "")] += 1


def laid_out(pins: Mapping[int, Row], others: Iterable[Row], top_k: int) -> list[Row]:
    waiting = iter(others)
    rows = [pins.get(position) or next(waiting, None) for position in range(1, top_k + 1)]
    return [row for row in rows if row is not None]
