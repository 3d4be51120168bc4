"""Shards that are scored on their own are merged into the table of a single scoring, or refused by name."""

import hashlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrec.config import Layout, PublishingConfig, ScoringConfig
from batchrec.errors import ConfigError, GateError, InputError
from batchrec.rules.table_check import BrokenRule
from batchrec.scoring.commit import commit
from batchrec.scoring.publish import score_to
from batchrec.scoring.report import ScoringReport
from batchrec.tables.ids import BLANKS
from batchrec.tables.queries import connect
from tests.support.models import (
    Id,
    model_of,
    names_in,
    run_cli,
    string_model,
    trained_model,
    training_histories,
    write_sequences,
)
from tests.support.params import slow_except
from tests.support.shared import scratch

# Of the last four, two are cold, one has no history, and one has seen every item.
HISTORIES = training_histories() | {501: [7, 8], 502: [7], 503: [], 504: [1000 + number for number in range(40)]}
TABLES = {
    "allow": "item_id,segment\n" + "".join(f"{item},\n" for item in range(1000, 1035)) + "1036,a\n",
    "block": "item_id,segment\n1003,\n1004,b\n",
    "pins": "item_id,position\n1005,2\n1006,4\n",
    "segments": "user_id,segment\n1,a\n2,b\n501,b\n900,b\n901,a\n902,a\n",
    "items": "movieId,title,genre\n1005,Five,x\n1010,Ten,x\n1011,Eleven,x\n",
    "block_for_user": "user_id,item_id\n2,1007\n900,1010\n",
    "users": "user_id\n" + "".join(f"{user}\n" for user in (801, *range(40, 10, -1), 501, 503, 800)),
    "candidates": "user_id,item_id\n"
    + "".join(f"{user},{item}\n" for user in (5, 6, 501, 900) for item in (1005, 1010, 1030, 7)),
}
RULES = ("allow", "block", "pins", "segments", "items", "block_for_user")
# One user per run of the model: the last bits of scores do not depend on the other users of a batch.
EXACT: dict[str, Any] = {"device": "cpu", "batch_tokens": 1, "run_date": "2024-06-01", "top_k": 6}


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    return write_sequences(tmp_path / "sequences.parquet", HISTORIES)


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, str]:
    for name, text in TABLES.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return {name: str(tmp_path / f"{name}.csv") for name in TABLES}


def score_shards(sequences: Path, n_shards: int, model: Path | None = None, **options: Any) -> Path:
    """Score all shards, the last one first; return their folder."""
    for index in reversed(range(n_shards)):
        score_shard(sequences, f"{index}/{n_shards}", model, **options)
    return sequences.parent / "shards"


@cache
def four_shards() -> Path:
    """Return the shards of a scoring without options; do not change them."""
    folder = Path(tempfile.mkdtemp(dir=scratch()))
    return score_shards(write_sequences(folder / "sequences.parquet", HISTORIES), 4)


def score_shard(sequences: Path, shard: str, model: Path | None = None, **options: Any) -> ScoringReport:
    config = ScoringConfig(**{**EXACT, **options}, shard=shard)
    return score_to(str(sequences.parent / "shards"), sequences, model or trained_model(), config)


def score_plainly(sequences: Path, model: Path | None = None, **options: Any) -> tuple[pa.Table, ScoringReport]:
    out = sequences.parent / "plain.parquet"
    report = score_to(str(out), sequences, model or trained_model(), ScoringConfig(**EXACT, **options))
    return pq.read_table(out), report


def committed(shards: Path) -> tuple[pa.Table, ScoringReport]:
    report = commit(shards, str(shards.parent / "recs.parquet"))
    return pq.read_table(shards.parent / "recs.parquet"), report


def counts(report: ScoringReport) -> dict[str, Any]:
    return {name: value for name, value in vars(report).items() if name not in ("out", "seconds")}


CASES: Mapping[str, Sequence[str]] = {
    "plain": (),
    "rules": RULES,
    "users": ("users",),
    "users and segments": ("users", "segments", "pins"),
    "candidates": ("candidates", "pins"),
}


@pytest.mark.parametrize("n_shards", slow_except([1, 4, 7], 4))
@pytest.mark.parametrize("names", slow_except(CASES, "plain", "rules"))
def test_shards_give_the_table_and_counts_of_one_scoring(
    n_shards: int, names: Sequence[str], sequences: Path, tables: dict[str, str]
) -> None:
    options: dict[str, Any] = {name: tables[name] for name in names}
    if "items" in names:
        options |= {"category_column": "genre", "max_per_category": 2}
    plain, report = score_plainly(sequences, **options)
    merged, sums = committed(score_shards(sequences, n_shards, **options))
    assert merged.equals(plain)
    assert merged.schema.metadata[b"batchrec.made_by"] == plain.schema.metadata[b"batchrec.made_by"]
    assert counts(sums) == counts(report)


def test_shards_of_text_ids_in_any_order_give_the_table_of_one_scoring(tmp_path: Path) -> None:
    names = [f"user-{number}" for number in range(60)] + ["ä b", " padded ", "O'Neill"]
    histories = {name: [f"item-{1000 + number % 40}"] for number, name in enumerate(reversed(names))}
    sequences = write_sequences(tmp_path / "sequences.parquet", histories, pa.string(), pa.string())
    plain, _ = score_plainly(sequences, string_model())
    merged, _ = committed(score_shards(sequences, 4, string_model()))
    assert merged.equals(plain)


def test_larger_batches_change_only_the_last_bits(sequences: Path) -> None:
    plain, _ = score_plainly(sequences)
    merged, _ = committed(score_shards(sequences, 4, batch_tokens=500, chunk_size=3, workers=2))
    for name in ("user_id", "rank", "source", "history_digest"):
        assert merged[name].equals(plain[name])
    assert merged["score"].to_pylist() == pytest.approx(plain["score"].to_pylist(), abs=1e-5)


def shard_by_hashlib(user_id: Id, n_shards: int) -> int:
    return int(hashlib.md5(str(user_id).strip(BLANKS).encode()).hexdigest()[:8], 16) % n_shards  # noqa: S324 - no secret


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8", exclude_characters="\0"))),
    st.integers(1, 10_000),
)
def test_the_shard_of_a_user_is_that_of_the_documented_hash(user_ids: list[Id], n_shards: int) -> None:
    with connect(threads=1) as con:
        for user_id in user_ids:
            row = con.execute("select shard_of($1, $2, $3)", [user_id, BLANKS, n_shards]).fetchone()
            assert row == (shard_by_hashlib(user_id, n_shards),)


def test_each_shard_holds_its_own_users(sequences: Path) -> None:
    shards = score_shards(sequences, 4)
    for index in range(4):
        users = set(pq.read_table(shards / f"shard-{index}-of-4.parquet")["user_id"].to_pylist())
        assert users == {user for user in HISTORIES if shard_by_hashlib(user, 4) == index} - {504}


def test_a_shard_may_be_without_users(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", {1: [1000], 2: [1001]})
    plain, _ = score_plainly(sequences)
    assert committed(score_shards(sequences, 9))[0].equals(plain)


def test_the_merged_table_is_a_previous_table_for_the_next_night(sequences: Path, tmp_path: Path) -> None:
    committed(score_shards(sequences, 4))
    _, report = score_plainly(sequences, previous=str(tmp_path / "recs.parquet"))
    assert report.users_carried_over == report.users_by_model


@pytest.mark.parametrize("shard", ["4/4", "-1/4", "1", "a/b", "0/0", "1/2/3", "0/10001", "", "٣/4"])
def test_a_text_that_is_no_shard_is_refused(shard: str) -> None:
    with pytest.raises(ConfigError, match="expected I/N like 0/4"):
        ScoringConfig(shard=shard)


def test_out_of_a_shard_is_a_folder(sequences: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (str(tmp_path / "file"), "s3://bucket/shards"):
        with pytest.raises(ConfigError, match="expected a folder for the files of --shard"):
            score_to(out, sequences, trained_model(), ScoringConfig(**EXACT, shard="0/2"))


def test_a_shard_whose_rows_break_a_rule_is_not_written(
    sequences: Path, tables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchrec.scoring.score.check_rules", lambda *_: [BrokenRule("--block", 1, "user '1'")])
    with pytest.raises(GateError):
        score_shard(sequences, "0/2", pins=tables["pins"])
    assert list((sequences.parent / "shards").glob("*.parquet")) == []


Change = Callable[[Path, Path, dict[str, str]], object]


def scored_with(**options: Any) -> Change:
    return lambda sequences, _, tables: score_shard(
        sequences, "2/4", **{name: tables.get(name, value) for name, value in options.items()}
    )


def by_another_model(sequences: Path, shards: Path, tables: dict[str, str]) -> None:
    scored_with(model=model_of("masked"))(sequences, shards, tables)


def of_other_histories(sequences: Path, _: Path, __: dict[str, str]) -> None:
    write_sequences(sequences, HISTORIES | {1: [1000, 1001]})
    score_shard(sequences, "2/4")


def with_another_number(sequences: Path, _: Path, __: dict[str, str]) -> None:
    score_shard(sequences, "2/5")


def without_some(_: Path, shards: Path, __: dict[str, str]) -> None:
    (shards / "shard-1-of-4.parquet").unlink()
    (shards / "shard-3-of-4.parquet").unlink()


def twice(_: Path, shards: Path, __: dict[str, str]) -> None:
    (shards / "shard-9-of-4.parquet").write_bytes((shards / "shard-2-of-4.parquet").read_bytes())


def torn(_: Path, shards: Path, __: dict[str, str]) -> None:
    path = shards / "shard-2-of-4.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def flipped(_: Path, shards: Path, __: dict[str, str]) -> None:
    path = shards / "shard-2-of-4.parquet"
    contents = bytearray(path.read_bytes())
    contents[20] ^= 1
    path.write_bytes(contents)


def foreign(_: Path, shards: Path, __: dict[str, str]) -> None:
    pq.write_table(pa.table({"user_id": [1]}), shards / "shard-2-of-4.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scored_with(top_k=5), "shard-2-of-4.parquet: differs from shard-0-of-4.parquet in its top_k: 5; expected 6. "),
        (scored_with(run_date="2024-06-02"), "in its run_date: '2024-06-02'; expected '2024-06-01'. "),
        (scored_with(popular_days=7), "in its popular_days: 7; expected 30. "),
        (scored_with(explain=True), "in its explain: True; expected None. "),
        (scored_with(pins=""), "in its rules: "),
        (scored_with(segments=""), "in its rule and user tables: "),
        (scored_with(items=""), "in its titles: "),
        (scored_with(users=""), "in its rule and user tables: "),
        (by_another_model, "in its model_id: "),
        (of_other_histories, "shard-2-of-4.parquet: differs from shard-0-of-4.parquet in its sequences: "),
        (with_another_number, "shard-2-of-5.parquet: differs from shard-0-of-4.parquet in its n_shards: 5; expected 4"),
        (without_some, "shards: lacks 2 of 4 shards: 1/4, 3/4. Score them with --shard 1/4"),
        (twice, "is shard 2/4, like shard-2-of-4.parquet. Remove one of them"),
        (torn, "shard-2-of-4.parquet: cannot be read: "),
        (flipped, "shard-2-of-4.parquet: cannot be read: is not the file that was written: its SHA-256 has changed. "),
        (foreign, "shard-2-of-4.parquet: is not a shard: "),
    ],
)
def test_shards_that_do_not_belong_together_are_named(
    change: Change, message: str, sequences: Path, tables: dict[str, str]
) -> None:
    shards = shutil.copytree(four_shards(), sequences.parent / "shards")
    change(sequences, shards, tables)
    out = sequences.parent / "recs.parquet"
    with pytest.raises(InputError) as raised:
        commit(shards, str(out))
    assert message in str(raised.value)
    assert not out.exists()


def test_a_user_in_the_wrong_shard_is_named(sequences: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two shards by another hash: complete, but a user may be in a shard of the documented hash as well.
    monkeypatch.setattr("batchrec.scoring.shards.BLANKS", "1")
    shards = score_shards(sequences, 2)
    with pytest.raises(InputError, match=r"shard-0-of-2.parquet: holds \d+ users of other shards, such as \d+\. "):
        commit(shards, str(shards.parent / "recs.parquet"))


@pytest.mark.parametrize("layout", ["long", "nested"])
def test_the_merged_table_never_replaces_a_shard(sequences: Path, layout: Layout) -> None:
    shards = score_shards(sequences, 2)
    shard = shards / "shard-0-of-2.parquet"
    with pytest.raises(ConfigError, match=r"shard-0-of-2\.parquet: is also an input\. Pass another --out"):
        commit(shards, str(shard), PublishingConfig(layout=layout))
    # It is still whole.
    committed(shards)


def test_a_folder_without_shards_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("commit", tmp_path, "--out", tmp_path / "recs.parquet") == InputError.exit_code
    assert capsys.readouterr().err == (
        f"batchrec: error: {tmp_path}: holds no shards; expected files like shard-0-of-4.parquet. Run batchrec score\n"
    )


def test_a_night_cannot_be_a_shard(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHREC_SCORE_SHARD", "0/4")
    assert run_cli("run") == ConfigError.exit_code
    assert "--shard: a night scores all users" in capsys.readouterr().err


_KILLED = """
import os, signal, sys
from batchrec.cli import run
from batchrec.scoring.chunk_checkpoints import ChunkCheckpoint
rank = ChunkCheckpoint.read_or_rank
def rank_and_die(checkpoint, *arguments):
    lists = rank(checkpoint, *arguments)
    if checkpoint.number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return lists
ChunkCheckpoint.read_or_rank = rank_and_die
run(sys.argv[1:])
"""


def test_a_killed_shard_resumes_and_the_table_is_the_same(
    sequences: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, _ = score_plainly(sequences)
    score_shard(sequences, "0/2")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in EXACT.items()]
    files = ["--sequences", sequences, "--model", trained_model(), "--out", tmp_path / "shards"]
    command = ["score", *options, *files, "--shard", "1/2", "--chunk-size", "2", "--workers", "1"]
    killed = subprocess.run([sys.executable, "-c", _KILLED, *map(str, command)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with pytest.raises(InputError, match="lacks 1 of 2 shards: 1/2"):
        commit(tmp_path / "shards", str(tmp_path / "recs.parquet"))
    caplog.set_level("INFO")
    score_shard(sequences, "1/2", chunk_size=2, workers=1)
    assert "chunk(s) of an earlier run exist" in caplog.text
    assert committed(tmp_path / "shards")[0].equals(plain)
    assert names_in(tmp_path / "shards") == {"shard-0-of-2.parquet", "shard-1-of-2.parquet"}
