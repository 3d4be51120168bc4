import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig, SequencesConfig
from batchrec.model.directory import load_model
from batchrec.rules.known_ids import KnownIds
from batchrec.scoring.cold_start import PopularItems
from batchrec.scoring.offer import read_offer
from batchrec.scoring.popular_lists import PopularLists
from batchrec.scoring.score import score
from batchrec.sequences.build import build_sequences
from batchrec.training.train import train
from tests.rules.test_rules import assert_as_by_hand, items, run
from tests.scoring.test_score import recs_of
from tests.support.models import CONFIG
from tests.support.plain_rules import ITEMS, Night, model, write_table

DAY = 86400
NEW = 2001


def write_events(path: Path, events: Mapping[int, Sequence[tuple[int, int]]]) -> Path:
    """Histories of items and days."""
    columns = {
        "user_id": pa.array(list(events), pa.int64()),
        "item_ids": [[item for item, _ in history] for history in events.values()],
        "timestamps": [[day * DAY for _, day in history] for history in events.values()],
    }
    pq.write_table(pa.table(columns), path)
    return path


def popular_of(folder: Path, events: Mapping[int, Sequence[tuple[int, int]]], user: int, **options: Any) -> list[Any]:
    sequences = write_events(folder / "sequences.parquet", events)
    score(sequences, model(), ScoringConfig(device="cpu", **options), folder / "recs.parquet")
    return [(row["item_id"], row["score"], row["source"]) for row in recs_of(folder / "recs.parquet")[user]]


EVENTS = {
    1: [(ITEMS[30], 1), (ITEMS[31], 69), (ITEMS[32], 71)],
    2: [(ITEMS[30], 2), (ITEMS[32], 100)],
    3: [(NEW, 100)],
    4: [],
    5: [(NEW, 80)],
}


def test_new_users_get_recent_popular_items_then_those_of_all_time(tmp_path: Path) -> None:
    rows = popular_of(tmp_path, EVENTS, 4, top_k=4)
    assert rows[:2] == [(ITEMS[32], 2, "popular"), (NEW, 2, "popular")]
    # These have the most events in training: 80 and 79.
    assert rows[2:] == [(ITEMS[0], 80, "popular_all_time"), (ITEMS[1], 79, "popular_all_time")]


@pytest.mark.parametrize(("days", "expected"), [(1, []), (31, []), (32, [ITEMS[31]]), (100, [ITEMS[30], ITEMS[31]])])
def test_days_count_from_the_newest_event(days: int, expected: list[int], tmp_path: Path) -> None:
    rows = popular_of(tmp_path, EVENTS, 4, top_k=6, popular_days=days)
    lately = {item for item, _, source in rows if source == "popular"}
    assert lately & {ITEMS[30], ITEMS[31]} == set(expected)


def test_a_new_item_is_not_recommended_to_a_new_user_who_has_seen_it(tmp_path: Path) -> None:
    assert NEW in [item for item, *_ in popular_of(tmp_path, EVENTS, 4)]
    assert NEW not in [item for item, *_ in popular_of(tmp_path, EVENTS, 3)]
    assert NEW in [item for item, *_ in popular_of(tmp_path, EVENTS, 3, keep_seen=True)]


SEGMENTED = {1: [ITEMS[5], ITEMS[6]], 2: [ITEMS[5]], 3: [ITEMS[7], ITEMS[8], ITEMS[9]], 4: [], 5: [], 6: []}
SEGMENTS = {1: "north", 2: "north", 3: "south", 4: "north", 5: "south", 99: "north", 98: "west"}


def test_new_users_get_the_popular_items_of_their_segment_first(tmp_path: Path) -> None:
    night = Night(segments=SEGMENTS, top_k=6)
    recs, report = run(tmp_path, night, SEGMENTED)
    by_segment = ["popular_segment"] * 2 + ["popular"] * 3 + ["popular_all_time"]
    assert [row["source"] for row in recs[4]] == by_segment
    assert items(recs[4])[:2] == [ITEMS[5], ITEMS[6]]
    assert set(items(recs[5])[:3]) == {ITEMS[7], ITEMS[8], ITEMS[9]}
    assert {row["source"] for row in recs[6]} == {"popular", "popular_all_time"}
    # Users of the table without a history come last.
    assert list(recs) == [*SEGMENTED, 99, 98]
    assert items(recs[99]) == items(recs[4])
    assert items(recs[98]) == items(recs[6])
    assert (report.users, report.users_by_popularity) == (8, 5)


def test_only_listed_users_are_scored_with_segments_too(tmp_path: Path) -> None:
    listed = write_table(tmp_path / "users.csv", "user_id", [(4,), (97,)])
    recs, _ = run(tmp_path, Night(segments=SEGMENTS), SEGMENTED, users=str(listed))
    assert list(recs) == [4, 97]


def test_segments_may_be_in_another_column(tmp_path: Path) -> None:
    table = write_table(tmp_path / "people.csv", "user_id,country", [(1, "dk"), (4, "dk")])
    recs, _ = run(tmp_path, Night(), SEGMENTED, segments=str(table), segment_column="country")
    assert {row["source"] for row in recs[4][:2]} == {"popular_segment"}


def test_new_items_have_titles_too(tmp_path: Path) -> None:
    sequences = write_events(tmp_path / "sequences.parquet", EVENTS)
    catalogue = write_table(tmp_path / "movies.csv", "movieId,title", [(NEW, "The new one"), (ITEMS[0], "Old")])
    score(sequences, model(), ScoringConfig(device="cpu", items=str(catalogue)), tmp_path / "recs.parquet")
    titles = {row["item_id"]: row["title"] for row in recs_of(tmp_path / "recs.parquet")[4]}
    assert (titles[NEW], titles[ITEMS[0]], titles[ITEMS[1]]) == ("The new one", "Old", None)


def test_popular_items_are_only_counted_for_cold_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[PopularItems] = []
    count = PopularItems._count

    def noted(popular: PopularItems) -> PopularLists:
        counted.append(popular)
        return count(popular)

    monkeypatch.setattr(PopularItems, "_count", noted)
    run(tmp_path, Night(), {1: ITEMS[:3], 2: ITEMS[:5]})
    assert counted == []
    run(tmp_path, Night(), {user: [] for user in range(40)}, chunk_size=1, workers=4)
    assert len(counted) == 1


def test_threads_share_one_count_of_popular_items(tmp_path: Path) -> None:
    sequences = write_events(tmp_path / "sequences.parquet", EVENTS)
    loaded = load_model(model())
    popular = read_offer(KnownIds(loaded.vocabulary, pa.int64(), sequences), ScoringConfig()).popular
    opened: list[int] = []
    threads = [threading.Thread(target=lambda: opened.append(id(popular.open()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 8
    assert len(set(opened)) == 1


def test_rules_apply_to_new_users_too() -> None:
    histories = {**SEGMENTED, 7: [NEW], 8: [NEW, 2002]}
    night = Night(
        top_k=6,
        block=[ITEMS[5]],
        block_for_user={4: [ITEMS[0]]},
        boost={2002: 10},
        pins={ITEMS[33]: 2, NEW: 3},
        segments={user: name for user, name in SEGMENTS.items() if user in histories},
    )
    recs = assert_as_by_hand(night, histories)
    assert items(recs[4])[:3] == [ITEMS[6], ITEMS[33], NEW]
    assert items(recs[6])[0] == 2002
    assert NEW not in items(recs[7])


WEIGHTS = {"view": 1.0, "cart": 2.5, "buy": 5.0, "skip": 0.0, "hate": -1.0}


@pytest.mark.slow
def test_popular_items_count_by_the_weights_of_their_events(tmp_path: Path) -> None:
    """The lists of cold users equal sums in plain loops: of the segment, of the last 3 days, and of the training."""
    generator = random.Random(3)  # noqa: S311 - no secret
    # Users from 90 on are cold: they have only skipped an item that nobody else has.
    events = [(user, 99, 0, "skip") for user in (90, 91, 92)]
    pairs = generator.sample([(user, item) for user in range(40) for item in range(20)], 150)
    events += [(user, item, generator.randrange(20), generator.choice(list(WEIGHTS))) for user, item in pairs]
    events.append((40, 0, 19, "view"))
    log = tmp_path / "log.csv"
    rows = [f"{user},{item},{1_600_000_000 + day * DAY},{kind}" for user, item, day, kind in events]
    log.write_text("\n".join(["userId,movieId,timestamp,kind", *rows]) + "\n")
    weights = ",".join(f"{kind}={weight:g}" for kind, weight in WEIGHTS.items())
    sequences, model = tmp_path / "sequences.parquet", tmp_path / "model"
    build_sequences([str(log)], SequencesConfig(event_column="kind", event_weights=weights), sequences)
    train(sequences, CONFIG, model)
    segments = write_table(tmp_path / "segments.csv", "user_id,segment", [(user, user % 2) for user in range(92)])
    config = ScoringConfig(device="cpu", segments=str(segments), popular_days=3, top_k=20)
    score(sequences, model, config, tmp_path / "recs.parquet")

    liked = [event for event in events if WEIGHTS[event[3]] > 0]
    recent = [event for event in liked if event[2] > 16]
    n_events = Counter(item for _, item, _, _ in liked)
    recs = recs_of(tmp_path / "recs.parquet")
    for user in (90, 91, 92):
        own = [event for event in recent if user < 92 and event[0] % 2 == user % 2]
        expected: dict[int, tuple[int, float, str]] = {}
        for source, counted in {"popular_segment": own, "popular": recent, "popular_all_time": liked}.items():
            sums = {item: sum(WEIGHTS[kind] for _, other, _, kind in counted if other == item) for item in n_events}
            for item in sorted(sums, key=lambda item: (-sums[item], -n_events[item], item)):
                if sums[item]:
                    expected.setdefault(item, (item, sums[item], source))
        assert [(row["item_id"], row["score"], row["source"]) for row in recs[user]] == list(expected.values())
