"""--seen: seen items are blocked, allowed, or recommended again after a while; disliked items never are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrec.config import ScoringConfig
from batchrec.errors import ConfigError, GateError, InputError
from batchrec.nightly.gates.output import measure_table
from batchrec.rules.rulebook import read_rule_tables
from batchrec.rules.table_check import FinishedTable, check_rules
from batchrec.scoring.commit import commit
from batchrec.scoring.indexed_users import IndexedUsers, index_users
from batchrec.scoring.inputs import read_inputs
from batchrec.scoring.offer import Offer
from batchrec.scoring.publish import score_to
from batchrec.scoring.report import ScoringReport
from batchrec.scoring.score import score
from batchrec.scoring.scorer import open_scorer
from batchrec.tables.schemas import made_by
from tests.engines.test_scoring_workers import OneWorker
from tests.scoring.test_score import Row, recs_of
from tests.sequences.test_also_seen import NIGHTS
from tests.support.models import examples
from tests.support.params import slow_except
from tests.support.plain_rules import ITEMS, Night, model

pytestmark = pytest.mark.usefixtures("one_duckdb")

RUN_DATE = date(2024, 6, 1)
POLICIES = ("block", "allow", "30d", "5w", "1d")


@dataclass(frozen=True)
class User:
    """events: item, age in days at the run date, whether it counts as seen."""

    events: Sequence[tuple[int, int, bool]] = ()
    also_seen: Sequence[int] = ()
    disliked: Sequence[int] = ()

    def blocked(self, policy: str) -> list[int]:
        """Return what the user may not get, event by event."""
        days = {"block": math.inf, "allow": -math.inf, "30d": 30, "5w": 35, "1d": 1}[policy]
        items = [item for item, age, is_seen in self.events if is_seen and age < days]
        return [*items, *(self.also_seen if policy != "allow" else ()), *self.disliked]


# User 3 has only a new item, user 4 no history: they get popular items. User 5 has had an item twice.
USERS: Mapping[int, User] = {
    1: User([(ITEMS[n], 60 - 3 * n, n % 4 > 0) for n in range(20)], [ITEMS[30]], [ITEMS[31], ITEMS[32]]),
    2: User([(ITEMS[9], 36, True), (7, 35, True), (ITEMS[3], 34, True)], [8], [ITEMS[0], 6]),
    3: User([(7, 40, True)], [], [ITEMS[0], ITEMS[1]]),
    4: User([], [ITEMS[2]], [7, ITEMS[3]]),
    5: User([(ITEMS[20], 90, True), (ITEMS[21], 31, True), (ITEMS[22], 30, False), (ITEMS[20], 29, True)]),
    6: User([(ITEMS[5], 30, True), (ITEMS[6], 0, True), (ITEMS[7], -3, True)]),
}
# The columns that a table has, besides those of version 2.
ALL = ("is_seen", "disliked")


def write_users(path: Path, users: Mapping[int, User], columns: Sequence[str] = ALL) -> Path:
    noon = int(datetime(2024, 6, 1, 12, tzinfo=UTC).timestamp())
    lists = {
        "item_ids": [[item for item, _, _ in user.events] for user in users.values()],
        "timestamps": [[noon - 86400 * age for _, age, _ in user.events] for user in users.values()],
        "also_seen": [list(user.also_seen) for user in users.values()],
        "is_seen": [[is_seen for *_, is_seen in user.events] for user in users.values()],
        "disliked": [list(user.disliked) for user in users.values()],
    }
    kept = {
        name: pa.array(values, pa.list_(pa.bool_() if name == "is_seen" else pa.int64()))
        for name, values in lists.items()
        if name not in ALL or name in columns
    }
    pq.write_table(pa.table({"user_id": pa.array(list(users), pa.int64()), **kept}), path)
    return path


def config_of(folder: Path, night: Night = Night(), **options: Any) -> ScoringConfig:
    own = {"device": "cpu", "run_date": RUN_DATE.isoformat(), **night.options(folder), **options}
    if own.get("seen", "block") != "block":
        own["keep_seen"] = False
    return ScoringConfig(**own)


def without_digests(recs: Path) -> dict[Any, list[Row]]:
    return {user: [{**row, "history_digest": None} for row in rows] for user, rows in recs_of(recs).items()}


def scored(folder: Path, config: ScoringConfig) -> tuple[dict[Any, list[Row]], ScoringReport]:
    report = score(folder / "sequences.parquet", model(), config, folder / "recs.parquet")
    return without_digests(folder / "recs.parquet"), report


def assert_blocked_by_hand(folder: Path, night: Night, policy: str, users: Mapping[int, User]) -> None:
    """Compare with a scoring that allows all seen items and has the others in a table of --block-for-user."""
    sequences = write_users(folder / "sequences.parquet", users)
    config = config_of(folder, night, seen=policy)
    recs, report = scored(folder, config)
    assert measure_table(folder / "recs.parquet", sequences, None, config).faults["seen_items"] == 0
    blocked = {user: [*own.blocked(policy), *night.block_for_user.get(user, ())] for user, own in users.items()}
    for user, items in blocked.items():
        assert not {row["item_id"] for row in recs.get(user, [])} & set(items)
    write_users(sequences, users, ())
    by_hand, other = scored(folder, config_of(folder, replace(night, block_for_user=blocked), seen="allow"))
    assert recs == by_hand
    assert report.rows == other.rows


@pytest.mark.parametrize("policy", slow_except(POLICIES, "30d"))
@pytest.mark.parametrize("night", NIGHTS.values(), ids=NIGHTS.keys())
def test_blocked_items_are_excluded_like_items_blocked_for_the_user(night: Night, policy: str, tmp_path: Path) -> None:
    assert_blocked_by_hand(tmp_path, night, policy, USERS)


known, ages = st.sampled_from([*ITEMS[:12], 7, 8]), st.integers(-2, 40)
any_users = st.lists(
    st.builds(
        User,
        st.lists(st.tuples(known, ages, st.booleans()), max_size=8).map(
            lambda events: sorted(events, key=lambda e: -e[1])
        ),
        st.lists(known, max_size=3, unique=True),
        st.lists(known, max_size=3, unique=True),
    ),
    min_size=4,
    max_size=4,
).filter(lambda users: any(item in ITEMS for user in users for item, *_ in user.events))


@settings(max_examples=examples(20))
@given(any_users, st.sampled_from(POLICIES))
def test_any_histories_and_dislikes_are_blocked_as_by_hand(users: list[User], policy: str) -> None:
    with TemporaryDirectory() as folder:
        assert_blocked_by_hand(Path(folder), Night(pins={ITEMS[1]: 1, 8: 3}, top_k=9), policy, dict(enumerate(users)))


def test_an_item_may_come_back_when_its_last_event_is_so_many_days_before_the_run_date() -> None:
    for policy, days in (("90d", 90), ("12w", 84)):
        config = ScoringConfig(seen=policy, run_date="2024-06-01")
        first_that_blocks = datetime(2024, 6, 1, tzinfo=UTC) - timedelta(days=days - 1)
        assert (config.seen_from, config.seen_policy) == (first_that_blocks.timestamp(), f"{days}d")
    assert ScoringConfig().seen_from == -math.inf
    assert ScoringConfig(seen="allow").seen_from == ScoringConfig(keep_seen=True).seen_from == math.inf


def test_keep_seen_is_seen_allow(tmp_path: Path) -> None:
    write_users(tmp_path / "sequences.parquet", USERS)
    config = config_of(tmp_path, top_k=9)
    tables = []
    for options in ({"keep_seen": True}, {"seen": "allow"}, {"seen": "allow", "keep_seen": True}):
        score(tmp_path / "sequences.parquet", model(), replace(config, **options), tmp_path / "recs.parquet")
        tables.append((tmp_path / "recs.parquet").read_bytes())
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize("seen", ["", "90", "0d", "never", "-1d", "Block", "2024-06-01"])
def test_any_other_policy_is_refused(seen: str) -> None:
    with pytest.raises(ConfigError, match=r"^--seen .*: expected block, allow, or days like 90d, weeks like 12w"):
        ScoringConfig(seen=seen)
    with pytest.raises(ConfigError, match="--seen 90d: expected no --keep-seen with it"):
        ScoringConfig(seen="90d", keep_seen=True)


# Carrying over


def carried_over(folder: Path, config: ScoringConfig, users: Mapping[int, User] = USERS, **options: Any) -> int:
    """Score with carry-over from earlier.parquet, compare with scoring everybody, and return how many were carried."""
    write_users(folder / "sequences.parquet", users, **options)
    everybody, _ = scored(folder, config)
    recs, report = scored(folder, replace(config, previous=str(folder / "earlier.parquet")))
    assert recs == everybody
    return report.users_carried_over


def save(folder: Path, config: ScoringConfig, users: Mapping[int, User] = USERS, **options: Any) -> None:
    score(write_users(folder / "sequences.parquet", users, **options), model(), config, folder / "earlier.parquet")


# The users with an item that the model knows: 1, 2, 5 and 6.
N_KNOWN = 4


@pytest.mark.slow
def test_the_next_day_scores_the_users_whose_items_may_come_back(tmp_path: Path) -> None:
    config = config_of(tmp_path, seen="30d", top_k=len(ITEMS))
    save(tmp_path, config)
    assert carried_over(tmp_path, config) == N_KNOWN
    n_carried = []
    for day in range(1, 9):
        tomorrow = replace(config, run_date=(RUN_DATE + timedelta(days=day)).isoformat())
        freed = [
            user
            for user in (1, 2, 5, 6)
            if any(is_seen and 30 - day <= age < 30 for _, age, is_seen in USERS[user].events)
        ]
        n_carried.append(carried_over(tmp_path, tomorrow))
        assert n_carried[-1] == N_KNOWN - len(freed)
    assert sorted(set(n_carried)) == [2, 3]


@pytest.mark.slow
def test_with_block_a_list_does_not_depend_on_the_date(tmp_path: Path) -> None:
    for policy in ("block", "allow"):
        config = config_of(tmp_path, seen=policy)
        save(tmp_path, config)
        assert carried_over(tmp_path, replace(config, run_date="2025-06-01")) == N_KNOWN


@pytest.mark.parametrize("other", ["allow", "30d", "90d", "13w"])
def test_nothing_is_carried_over_from_another_policy(other: str, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    save(tmp_path, config)
    assert carried_over(tmp_path, config_of(tmp_path, seen=other)) == 0
    assert made_by(pq.read_schema(tmp_path / "recs.parquet").metadata)["seen"] == other.replace("13w", "91d")


@pytest.mark.slow
def test_a_change_of_what_counts_as_seen_or_is_disliked_scores_the_user_again(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    save(tmp_path, config)
    dislike = USERS[5].events, USERS[5].also_seen, [ITEMS[1]]
    assert carried_over(tmp_path, config, {**USERS, 5: User(*dislike)}) == N_KNOWN - 1
    unseen = [(item, age, False) for item, age, _ in USERS[6].events]
    assert carried_over(tmp_path, config, {**USERS, 6: User(unseen)}) == N_KNOWN - 1
    # An item that the model does not know changes nothing.
    assert carried_over(tmp_path, config, {**USERS, 5: User(USERS[5].events, [], [999])}) == N_KNOWN
    # A dislike is not the same as a seen item, although both are blocked: the digests differ.
    assert carried_over(tmp_path, config, {**USERS, 5: User(USERS[5].events, [ITEMS[1]])}) == N_KNOWN - 1


def test_columns_that_say_nothing_change_no_digest(tmp_path: Path) -> None:
    plain = {
        user: User([(item, age, True) for item, age, _ in own.events], own.also_seen) for user, own in USERS.items()
    }
    config = config_of(tmp_path)
    save(tmp_path, config, plain, columns=())
    assert carried_over(tmp_path, config, plain) == N_KNOWN
    write_users(tmp_path / "sequences.parquet", plain)
    score(tmp_path / "sequences.parquet", model(), config, tmp_path / "recs.parquet")
    assert (tmp_path / "recs.parquet").read_bytes() == (tmp_path / "earlier.parquet").read_bytes()


# Other ways to score


@pytest.mark.parametrize("policy", ["block", "30d"])
def test_workers_shards_and_recs_make_the_rows_of_plain_score(policy: str, tmp_path: Path) -> None:
    sequences = write_users(tmp_path / "sequences.parquet", USERS)
    config = config_of(tmp_path, seen=policy, top_k=9, batch_tokens=1)
    score(sequences, model(), config, tmp_path / "plain.parquet")
    plain = pq.read_table(tmp_path / "plain.parquet")
    of_engine = replace(config, engine="ray")
    score(sequences, model(), of_engine, tmp_path / "workers.parquet", engine=OneWorker())
    assert pq.read_table(tmp_path / "workers.parquet").equals(plain)
    for number in range(2):
        score_to(str(tmp_path / "shards"), sequences, model(), replace(config, shard=f"{number}/2"))
    commit(tmp_path / "shards", str(tmp_path / "merged.parquet"))
    assert pq.read_table(tmp_path / "merged.parquet").equals(plain)
    assert open_scorer(read_inputs(sequences, model(), config).parts).recs(pq.read_table(sequences)).equals(plain)


def test_shards_of_different_policies_are_refused(tmp_path: Path) -> None:
    sequences = write_users(tmp_path / "sequences.parquet", USERS)
    for number, policy in enumerate(("30d", "block")):
        config = config_of(tmp_path, seen=policy, shard=f"{number}/2")
        score_to(str(tmp_path / "shards"), sequences, model(), config)
    with pytest.raises(InputError, match=r"differs from .* in its seen: "):
        commit(tmp_path / "shards", str(tmp_path / "merged.parquet"))


# The finished table


def broken(
    folder: Path, recs: Sequence[tuple[int, int]], policy: str, columns: Sequence[str] = ALL
) -> dict[str, tuple[int, str | None]]:
    """Write lists of one item as if they were scored; return the rules that were checked."""
    table = pa.table(
        {
            "user_id": pa.array([user for user, _ in recs], pa.int64()),
            "rank": pa.array([1] * len(recs), pa.int32()),
            "item_id": pa.array([item for _, item in recs], pa.int64()),
            "score": pa.array([0.0] * len(recs), pa.float32()),
            "source": ["model"] * len(recs),
        }
    )
    pq.write_table(table, folder / "recs.parquet")
    sequences = write_users(folder / "sequences.parquet", USERS, columns)
    config = config_of(folder, seen=policy)
    rules = check_rules(FinishedTable(folder / "recs.parquet", sequences), read_rule_tables(config), config)
    return {rule.rule: (rule.n_rows, rule.example) for rule in rules if rule.rule == "--seen" or rule.n_rows}


LISTS = [(1, ITEMS[31]), (2, ITEMS[3]), (3, ITEMS[0]), (4, ITEMS[2]), (5, ITEMS[22]), (6, ITEMS[5])]


@pytest.mark.parametrize("policy", POLICIES)
def test_sql_finds_blocked_items_without_the_scorer(policy: str, tmp_path: Path) -> None:
    wrong = [(user, item) for user, item in LISTS if item in USERS[user].blocked(policy)]
    example = f"user '{wrong[0][0]}', rank 1, item '{wrong[0][1]}'" if wrong else None
    assert broken(tmp_path, LISTS, policy) == {"--seen": (len(wrong), example)}
    faults = measure_table(
        tmp_path / "recs.parquet", tmp_path / "sequences.parquet", None, config_of(tmp_path, seen=policy)
    ).faults
    assert faults["seen_items"] == len(wrong)
    assert len(wrong) == {"block": 5, "allow": 2, "30d": 3, "5w": 5, "1d": 3}[policy]


def test_a_table_without_those_columns_is_checked_if_seen_is_an_age(tmp_path: Path) -> None:
    lists = [(2, ITEMS[3]), (2, ITEMS[9]), (5, ITEMS[22])]
    assert broken(tmp_path, lists, "35d", ()) == {"--seen": (2, f"user '2', rank 1, item '{ITEMS[3]}'")}
    # Every night counts seen items (recs_faults.sql).
    assert broken(tmp_path, lists, "block", ()) == {}


def test_a_list_with_a_disliked_item_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = write_users(tmp_path / "sequences.parquet", USERS)

    def without_limits(batch: pa.RecordBatch, offer: Offer, _: float, *, with_days: bool) -> IndexedUsers:
        return index_users(batch.drop_columns(["disliked"]), offer, math.inf, with_days=with_days)

    monkeypatch.setattr("batchrec.scoring.scorer.index_users", without_limits)
    with pytest.raises(GateError, match=r"rows break --seen \(user '1', rank .*\): a bug"):
        score(sequences, model(), config_of(tmp_path, seen="30d"), tmp_path / "recs.parquet")
    assert not (tmp_path / "recs.parquet").exists()
