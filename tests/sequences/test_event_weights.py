"""Events that weigh: by type or value, only seen, disliked, or trained on without being seen."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchrec.sequences.build
from batchrec.benchmark.synthetic import shorten_histories
from batchrec.config import EvaluationConfig, SequencesConfig
from batchrec.errors import ConfigError, InputError
from batchrec.evaluation.splits import split_sequences
from batchrec.sequences.build import SequencesReport, build_sequences
from batchrec.tables.queries import connect
from batchrec.tables.sequences_table import open_sequences
from tests.conftest import BuildSequences
from tests.support.log_files import fails, write
from tests.support.models import examples, write_sequences

WEIGHTS = {"view": 1.0, "cart": 3.0, "purchase": 5.0, "skip": 0.0, "hate": -2.0}
TYPES = ",".join(f"{name}={weight:g}" for name, weight in WEIGHTS.items())
HEADER = "userId,movieId,timestamp,type,amount"


class Event(NamedTuple):
    user: Any
    item: Any
    time: int
    type: str = "view"
    amount: float = 1.0


def built(folder: Path, rows: Sequence[Event], **options: Any) -> tuple[list[dict[str, Any]], SequencesReport]:
    log = folder / "ratings.csv"
    log.write_text("\n".join([HEADER, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    config = SequencesConfig(timestamp_unit="s", **options)
    report = build_sequences([str(log)], config, folder / "sequences.parquet")
    return pq.read_table(folder / "sequences.parquet").to_pylist(), report


def by_type(folder: Path, rows: Sequence[Event], **options: Any) -> tuple[list[dict[str, Any]], SequencesReport]:
    return built(folder, rows, event_column="type", event_weights=TYPES, **options)


def expected(
    rows: list[Event], weights: list[float], seen_types: list[str], options: dict[str, Any]
) -> tuple[dict[Any, dict[str, Any]], Counter[str]]:
    """Return each user's history (sorted by repr), also_seen and disliked, and the events left out; in plain loops."""
    disliked = {(row.user, row.item) for row, weight in zip(rows, weights, strict=True) if weight < 0}
    usable = [
        (row, weight)
        for row, weight in zip(rows, weights, strict=True)
        if weight > 0 and (row.user, row.item) not in disliked
    ]
    kept: list[tuple[Any, Any, int, float, bool]] = []
    if options["repeats"] == "all":
        kept = [(row.user, row.item, row.time, weight, row.type in seen_types) for row, weight in usable]
    else:
        choose = min if options["repeats"] == "first" else max
        pairs: dict[tuple[Any, Any], list[tuple[Event, float]]] = {}
        for row, weight in usable:
            pairs.setdefault((row.user, row.item), []).append((row, weight))
        for (user, item), own in pairs.items():
            time, weight = choose(row.time for row, _ in own), max(weight for _, weight in own)
            kept.append((user, item, time, weight, any(row.type in seen_types for row, _ in own)))
    per_item = Counter(item for _, item, *_ in kept)
    frequent = [event for event in kept if per_item[event[1]] >= options["min_item_events"]]
    per_user = Counter(user for user, *_ in frequent)
    counted = [event for event in frequent if per_user[event[0]] >= options["min_user_events"]]
    users = {row.user for row in rows} if options["min_user_events"] == 1 else {event[0] for event in counted}
    table = {}
    for user in users:
        history = [event[1:] for event in counted if event[0] == user]
        shown_as_seen = {item for item, _, _, is_seen in history if is_seen}
        own_dislikes = {item for one, item in disliked if one == user}
        others = {row.item for row in rows if row.user == user and row.type in seen_types}
        others -= own_dislikes | shown_as_seen
        table[user] = {"history": sorted(history), "also_seen": sorted(others), "disliked": sorted(own_dislikes)}
    n_disliked = sum((row.user, row.item) in disliked for row in rows)
    left_out = Counter(
        {
            "disliked items": n_disliked,
            "weight 0": len(rows) - n_disliked - len(usable),
            "below --min-item-events": len(kept) - len(frequent),
            "below --min-user-events": len(frequent) - len(counted),
        }
    )
    return table, +left_out


events = st.builds(
    Event,
    st.integers(1, 4),
    st.sampled_from([-5, 7, 10**12, 3]),
    st.integers(0, 4),
    st.sampled_from(sorted(WEIGHTS)),
    st.sampled_from([0.0, 0.5, 1.0, 29.5, 30.0, 1000.0]),
)
FUNCTIONS: dict[str, Callable[[float], float]] = {
    "linear": lambda amount: amount,
    "log": lambda amount: math.log(1 + amount),
    "0=-1,1=0,30=1.5": lambda amount: -1.0 if amount < 1 else 0.0 if amount < 30 else 1.5,
    "1=2,30=0.5": lambda amount: 0.0 if amount < 1 else 2.0 if amount < 30 else 0.5,
}


@settings(max_examples=examples(40), deadline=None)
@given(
    st.lists(events, min_size=1, max_size=25),
    st.fixed_dictionaries(
        {
            "repeats": st.sampled_from(["last", "first", "all"]),
            "min_item_events": st.integers(1, 3),
            "min_user_events": st.integers(1, 3),
        }
    ),
    st.none() | st.lists(st.sampled_from(sorted(WEIGHTS)), min_size=1, unique=True),
    st.none() | st.sampled_from(sorted(FUNCTIONS)),
)
def test_weighed_histories_equal_those_of_a_plain_loop(
    rows: list[Event],
    filters: dict[str, Any],
    seen_types: list[str] | None,
    value_weight: str | None,
) -> None:
    options: dict[str, Any] = dict(filters)
    if seen_types is not None:
        options["seen_events"] = ",".join(seen_types)
    weights = [WEIGHTS[row.type] for row in rows]
    if value_weight is not None:
        options |= {"value_column": "amount", "value_weight": value_weight}
        factors = [FUNCTIONS[value_weight](row.amount) for row in rows]
        weights = [
            (-1 if min(weight, factor) < 0 else 1) * abs(weight * factor)
            for weight, factor in zip(weights, factors, strict=True)
        ]
    table, left_out = expected(rows, weights, list(WEIGHTS) if seen_types is None else seen_types, filters)
    n_events = sum(len(row["history"]) for row in table.values())
    with TemporaryDirectory() as folder:
        if n_events == 0:
            with pytest.raises(InputError, match="no event is left"):
                by_type(Path(folder), rows, **options)
            return
        table_rows, report = by_type(Path(folder), rows, **options)
    assert [row["user_id"] for row in table_rows] == sorted(table)
    for row in table_rows:
        history = zip(row["item_ids"], row["timestamps"], row["weights"], row["is_seen"], strict=True)
        wanted = table[row["user_id"]]
        assert [(item, time, pytest.approx(weight), seen) for item, time, weight, seen in wanted["history"]] == sorted(
            history
        )
        assert row["timestamps"] == sorted(row["timestamps"])
        assert (row["also_seen"], row["disliked"]) == (wanted["also_seen"], wanted["disliked"])
    assert report.left_out == dict(left_out)
    assert (report.events, report.users) == (n_events, len(table))
    assert report.disliked == sum(len(row["disliked"]) for row in table.values())
    assert report.also_seen == sum(len(row["also_seen"]) for row in table.values())
    assert report.rows_read == report.events + sum(report.left_out.values()) + report.duplicates_folded


ROWS = [
    Event(1, 10, 1, "view"),
    Event(1, 11, 2, "purchase"),
    Event(1, 10, 3, "cart"),
    Event(1, 12, 4, "skip"),
    Event(1, 13, 5, "hate"),
    Event(2, 10, 1, "view"),
    Event(2, 13, 2, "view"),
    Event(3, 14, 2, "hate"),
]


def test_a_short_play_is_seen_and_not_liked_and_a_view_is_trained_on_and_not_seen(tmp_path: Path) -> None:
    rows, _ = by_type(tmp_path, ROWS, seen_events="purchase,skip")
    assert rows[0] == {
        "user_id": 1,
        "item_ids": [11, 10],
        "timestamps": [2, 3],
        "also_seen": [12],
        "weights": [5.0, 3.0],
        "is_seen": [True, False],
        "disliked": [13],
    }
    assert (rows[2]["item_ids"], rows[2]["disliked"]) == ([], [14])
    plays = [Event(1, 10, 1, amount=29), Event(1, 11, 2, amount=31), Event(2, 11, 1, amount=500)]
    rows, _ = built(tmp_path, plays, value_column="amount", value_weight="30=1,300=2")
    assert [(row["item_ids"], row["weights"], row["also_seen"]) for row in rows] == [
        ([11], [1.0], [10]),
        ([11], [2.0], []),
    ]


def test_weights_of_1_change_nothing_but_the_columns_of_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [Event(*row) for row in rng.integers([50, 80, 30], size=(3000, 3)).tolist()]
    for options in ({}, {"repeats": "all"}, {"min_item_events": 30, "min_user_events": 5}):
        plain, report = built(tmp_path, rows, **options)
        contract = pq.read_schema(tmp_path / "sequences.parquet")
        assert contract.names == ["user_id", "item_ids", "timestamps", "also_seen"]
        assert contract.metadata[b"batchrec.contract"] == b"sequences/2"
        weighed, weighed_report = by_type(tmp_path, rows, **options)
        contract = pq.read_schema(tmp_path / "sequences.parquet")
        assert contract.metadata[b"batchrec.contract"] == b"sequences/3"
        ones = [
            {**row, "weights": [1.0] * len(row["item_ids"]), "is_seen": [True] * len(row["item_ids"]), "disliked": []}
            for row in plain
        ]
        assert weighed == ones
        assert {**vars(weighed_report), "seconds": 0} == {**vars(report), "seconds": 0}


@pytest.mark.slow
def test_weighed_histories_may_span_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    users = [5] * 5000 + rng.integers(200, size=5000).tolist()
    types = rng.choice(sorted(WEIGHTS), size=10_000, p=[0.3, 0.01, 0.3, 0.2, 0.19]).tolist()
    items = rng.integers(3000, size=10_000).tolist()
    rows = [Event(user, item, 0, kind) for user, item, kind in zip(users, items, types, strict=True)]
    monkeypatch.setattr(batchrec.sequences.build, "BATCH_EVENTS", 2048)
    table_rows, _ = by_type(tmp_path, rows)
    options = {"repeats": "last", "min_item_events": 1, "min_user_events": 1}
    table, _ = expected(rows, [WEIGHTS[row.type] for row in rows], list(WEIGHTS), options)
    assert len(table[5]["history"]) > 2048 // 2
    for row in table_rows:
        history = zip(row["item_ids"], row["timestamps"], row["weights"], row["is_seen"], strict=True)
        assert {"history": sorted(history), "also_seen": row["also_seen"], "disliked": row["disliked"]} == table[
            row["user_id"]
        ]


def test_events_of_several_types_at_one_time_have_one_order(tmp_path: Path) -> None:
    rows = [Event(1, 10, 1, kind) for kind in ("purchase", "view", "cart")]
    for threads in (1, 2):
        assert by_type(tmp_path, rows, repeats="all", threads=threads)[0][0]["weights"] == [1.0, 3.0, 5.0]


def test_low_ratings_are_left_out_and_dislikes_among_them_stay(tmp_path: Path) -> None:
    rows = [Event(1, 10, 1, "view", 5), Event(1, 11, 1, "view", 1), Event(1, 12, 1, "hate", 1), Event(1, 12, 2)]
    table_rows, report = by_type(tmp_path, rows, min_rating=1.5, rating_column="amount")
    assert (table_rows[0]["item_ids"], table_rows[0]["also_seen"], table_rows[0]["disliked"]) == ([10], [11], [12])
    assert report.left_out == {"below --min-rating": 3}
    row = built(tmp_path, rows, value_column="amount")[0][0]
    assert dict(zip(row["item_ids"], row["weights"], strict=True)) == {10: 5.0, 11: 1.0, 12: 1.0}


# Input


OPTIONS = ("--event-column", "type", "--event-weights", "view=1,hate=-1")


def test_a_type_without_a_weight_is_a_bad_row_that_is_named(build: BuildSequences) -> None:
    write("ratings.csv", f"{HEADER}\n1,2,3,view,\n1,3,4,wish,\n1,4,5, hate ,\n1,5,6,,\n")
    fails(
        build("--ratings", "ratings.csv", *OPTIONS),
        "ratings.csv: line 3: unknown event type: 'wish'; 2 of 4 rows cannot be used",
        "Name every type in --event-weights",
    )
    outcome = build("--ratings", "ratings.csv", *OPTIONS, "--max-bad-rows", "2")
    assert outcome.report["rejected"] == {"unknown event type": 1, "no event type": 1}
    assert Path("sequences.rejects.csv").read_text(encoding="utf-8").splitlines()[1:] == [
        "ratings.csv,3,unknown event type,wish",
        'ratings.csv,5,no event type,"1,5,6"',
    ]
    assert [(row["item_ids"], row["disliked"]) for row in outcome.rows] == [([2], [4])]


@pytest.mark.parametrize(
    ("value", "function", "reason"),
    [
        ("", "linear", "no value"),
        ("much", "linear", "unusable value"),
        ("nan", "30=1", "unusable value"),
        ("inf", "linear", "unusable value"),
        ("1e300", "linear", "unusable value"),
        ("-1", "log", "unusable value"),
    ],
)
def test_a_value_that_gives_no_weight_is_a_bad_row(
    build: BuildSequences, value: str, function: str, reason: str
) -> None:
    write("ratings.csv", f"{HEADER}\n1,2,3,view,70\n1,3,4,view,{value}\n")
    options = ("--ratings", "ratings.csv", "--value-column", "amount", "--value-weight", function)
    shown = f"'{value}'" if value else "'1,3,4,'"
    fails(build(*options), f"ratings.csv: line 3: {reason}: {shown}; 1 of 2 rows")
    outcome = build(*options, "--max-bad-rows", "1")
    assert (outcome.report["rejected"], outcome.histories) == ({reason: 1}, {1: [2]})


def test_a_negative_value_is_a_dislike(build: BuildSequences) -> None:
    write("ratings.csv", f"{HEADER}\n1,2,3,view,2\n1,3,4,view,-1\n")
    outcome = build("--ratings", "ratings.csv", "--value-column", "amount")
    assert [(row["item_ids"], row["weights"], row["disliked"]) for row in outcome.rows] == [([2], [2.0], [3])]


def test_other_formats_and_queries_have_types_too(build: BuildSequences) -> None:
    pq.write_table(
        pa.table({"userId": [1, 1], "movieId": [2, 3], "timestamp": [3, 4], "type": ["view", "hate"]}), "log.parquet"
    )
    write("log.sql", "select userId as user_id, movieId as item_id, timestamp, type from read_parquet('log.parquet')")
    write("log.jsonl", '{"userId": 1, "movieId": 2, "timestamp": 3, "type": "view"}\n')
    for source in (("--ratings", "log.parquet"), ("--query", "log.sql"), ("--ratings", "log.jsonl")):
        outcome = build(*source, *OPTIONS)
        assert outcome.exit_code == 0, outcome.stderr
        assert outcome.histories == {1: [2]}
    fails(build("--query", "log.sql", *OPTIONS[2:], "--event-column", "kind"), "has no column 'kind'")
    fails(build("--ratings", "log.parquet", *OPTIONS[2:], "--event-column", "kind"), "'kind'", "--event-column")


def test_weights_are_a_table_in_batchrec_toml(build: BuildSequences) -> None:
    rows = ["1,2,3,view,10", "1,3,4,hate,10", "1,4,4,add to cart,40"]
    write("ratings.csv", "\n".join([HEADER, *rows]) + "\n")
    write(
        "batchrec.toml",
        '[build-sequences]\nratings = "ratings.csv"\nevent-column = "type"\nvalue_column = "amount"\n'
        '[build-sequences.event_weights]\nview = 1\n"add to cart" = 2.5\nhate = -1\n'
        "[build-sequences.value-weight]\n0 = 1\n30 = 4\n",
    )
    outcome = build()
    assert [(row["item_ids"], row["weights"], row["disliked"]) for row in outcome.rows] == [([2, 4], [1.0, 10.0], [3])]
    write("batchrec.toml", '[build-sequences.event_weights]\nview = "much"\n')
    fails(build("--ratings", "ratings.csv"), "[build-sequences] event_weights view: found 'much'; expected a number")
    write("batchrec.toml", "[build-sequences.user_column]\nview = 1\n")
    fails(build("--ratings", "ratings.csv"), "expected text")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event_column": "type"}, "--event-column type: expected --event-weights with it"),
        ({"event_weights": "view=1"}, "--event-weights view=1: expected --event-column with it"),
        ({"seen_events": "view"}, "--seen-events view: expected --event-column with it"),
        ({"value_weight": "log"}, "--value-weight log: expected --value-column with it"),
        ({"event_column": "t", "event_weights": "view"}, "expected names with weights like view=1,purchase=5"),
        ({"event_column": "t", "event_weights": "view=x"}, "expected names with weights"),
        ({"event_column": "t", "event_weights": "view=1,=2"}, "expected names with weights"),
        ({"event_column": "t", "event_weights": "view=inf"}, "expected names with weights"),
        ({"event_column": "t", "event_weights": "view=1,view=2"}, "each name once, not 'view' twice"),
        ({"event_column": "t", "event_weights": "view=0,hate=-1"}, "a weight above 0 for one name or more"),
        ({"event_column": "t", "event_weights": "view=1", "seen_events": "buy"}, "types of --event-weights, not 'buy'"),
        ({"event_column": "t", "event_weights": "view=1", "seen": "kept"}, "--seen kept: expected all"),
        ({"value_column": "t", "engine": "spark"}, "--engine spark: expected local with --event-column"),
        ({"value_column": "t", "value_weight": "lin"}, "expected names with weights"),
        ({"value_column": "t", "value_weight": "short=1"}, "numbers as values, not 'short'"),
        ({"value_column": "t", "value_weight": "1=1,1.0=2"}, "each value once"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=r"^--") as raised:
        SequencesConfig(**options)
    assert message in str(raised.value)


# The contract


def with_columns(folder: Path, **columns: pa.Array) -> Path:
    path = write_sequences(folder / "sequences.parquet", {1: [10, 11], 2: [10]})
    table = pq.read_table(path)
    for name, column in columns.items():
        table = table.append_column(name, column)
    pq.write_table(table, path)
    return path


def test_columns_of_weights_may_be_missing_and_of_other_widths(tmp_path: Path) -> None:
    weights = pa.array([[1, 2], [3]], pa.large_list(pa.int8()))
    batch = next(open_sequences(with_columns(tmp_path, weights=weights, disliked=pa.array([[], []]))).batches(5))
    assert batch.schema.names[4:] == ["weights", "disliked"]
    assert batch["weights"].to_pylist() == [[1.0, 2.0], [3.0]]
    assert batch["disliked"].type == pa.list_(pa.int64())


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("weights", pa.array([[1.0, 2.0], []]), "user 2: item_ids and weights are of unequal length"),
        ("weights", pa.array([[1.0, 0.0], [1.0]]), "column 'weights' holds 0; expected finite numbers above 0"),
        ("weights", pa.array([[1.0, math.nan], [1.0]]), "expected finite numbers above 0"),
        ("weights", pa.array([["a", "b"], ["c"]]), "column 'weights' is list<"),
        ("weights", pa.array([1.0, 2.0]), "column 'weights' is double; expected a list of float"),
        ("is_seen", pa.array([[True], [True]]), "user 1: item_ids and is_seen are of unequal length"),
        ("is_seen", pa.array([[1, 0], [1]]), "expected a list of bool"),
        ("is_seen", pa.array([[True, None], [True]]), "1 null(s) in column 'is_seen'"),
        ("disliked", pa.array([["7"], []]), "expected a list of int64, like 'item_ids'"),
    ],
)
def test_broken_columns_of_weights_are_refused(name: str, column: pa.Array, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        list(open_sequences(with_columns(tmp_path, **{name: column})).batches(5))
    assert message in str(raised.value)


@pytest.mark.parametrize("protocol", ["leave-one-out", "temporal"])
def test_an_evaluation_keeps_the_weights_and_ignores_dislikes(
    protocol: Literal["leave-one-out", "temporal"], tmp_path: Path
) -> None:
    # The last event of user 3 is in the year 9999.
    rows = [Event(user, item, 10 * item + user, "cart" if item % 2 else "view") for user in (1, 2) for item in range(6)]
    rows += [Event(1, 99, 3, "hate"), Event(3, 0, 1, "view"), Event(3, 1, 2, "cart"), Event(3, 5, 253370764800)]
    by_type(tmp_path, rows)
    config = EvaluationConfig(protocol, "1970-01-01T00:00:45" if protocol == "temporal" else None, top_k=1)
    with connect() as con:
        parts = split_sequences(con, open_sequences(tmp_path / "sequences.parquet"), config, 0, tmp_path)
    n_tested = 0
    for path in (parts.training, parts.histories):
        for row in pq.read_table(path).to_pylist():
            assert row["weights"] == [3.0 if item % 2 else 1.0 for item in row["item_ids"]]
            assert row.keys() == {"user_id", "item_ids", "timestamps", "also_seen", "weights"}
            n_tested += 1
    assert n_tested == 5


def test_a_shortened_table_keeps_the_weights(tmp_path: Path) -> None:
    rows, _ = by_type(tmp_path, ROWS[:7])
    shorten_histories(tmp_path / "sequences.parquet", 2, tmp_path / "shorter.parquet")
    shorter = pq.read_table(tmp_path / "shorter.parquet").to_pylist()
    of_events = ("item_ids", "timestamps", "weights", "is_seen")
    assert shorter == [{**rows[0], **{name: rows[0][name][:-1] for name in of_events}}, rows[1]]
