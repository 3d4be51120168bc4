"""Delta Lake as target: what a commit holds, other writers, and stores that cannot be used."""

import json
import os
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.errors import ConfigError, StoreError
from batchrec.targets import delta, open_target
from batchrec.targets.delta import DeltaTarget
from batchrec.targets.parts import write_parts
from batchrec.targets.stores import ATTEMPTS
from tests.support.recs import NIGHT, moderate_recs, recs_rows, write_recs
from tests.support.target_contract import LATER, ONE, TWO, as_float32, publish
from tests.support.targets import Place
from tests.warehouse.table_targets import assert_is_one_plain_line, read_delta, small_files

deltalake = pytest.importorskip("deltalake", reason="the warehouse extra is not installed: run make test-warehouse")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place("delta://recs", read_delta)


def test_a_publication_is_one_commit_that_says_what_made_it(place: Place) -> None:
    publish(place, ONE)
    sha256 = publish(place, TWO, LATER)
    newest = deltalake.DeltaTable("recs").history()[0]
    assert newest["version"] == 2  # after the creation and the first publication
    assert {name: value for name, value in newest.items() if name.startswith("batchrec.")} == {
        "batchrec.run_date": str(LATER),
        "batchrec.sha256": sha256,
        "batchrec.run_id": "r1",
        "batchrec.model_id": "m2",
    }


def test_a_rollback_is_one_commit(place: Place) -> None:
    publish(place, ONE)
    publish(place, TWO, LATER)
    with place.target.rolling_back(write_recs(Path("recs.parquet"), ONE)):
        pass
    assert deltalake.DeltaTable("recs").version() == 3
    assert place.read() == {str(NIGHT): as_float32(ONE)}


def test_what_a_restore_has_undone_is_not_taken_for_published(place: Place) -> None:
    first = publish(place, ONE)
    publish(place, TWO)
    publish(place, TWO, LATER)
    deltalake.DeltaTable("recs").restore(1)
    assert place.read() == {str(NIGHT): as_float32(ONE)}
    assert place.target.sha256() == first
    again = publish(place, TWO, LATER)
    assert place.target.sha256() == again
    # To the state of a time.
    deltalake.DeltaTable("recs").restore(datetime.now(UTC) - timedelta(days=1))
    assert place.target.sha256() != again


def test_readers_of_one_user_skip_files_and_row_groups(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta, "write_parts", partial(write_parts, part_bytes=1 << 20))
    table = moderate_recs(tmp_path / "recs.parquet", 120_000, "m1")
    with place.target.replacing(table):
        pass
    files = add_actions()
    users = sorted((file["min.user_id"], file["max.user_id"]) for file in files)
    assert len(users) > 1
    assert users[0][0] == 0
    assert users[-1][1] == 119_999
    assert all(last < first for (_, last), (first, _) in pairwise(users))
    assert sum(file["num_records"] for file in files) == 1_200_000
    file = pq.ParquetFile(next(Path("recs").glob("run_date=*/*.parquet")))
    groups = [file.metadata.row_group(index).column(0).statistics for index in range(file.num_row_groups)]
    assert all(group.max < following.min for group, following in pairwise(groups))


def test_the_statistics_of_text_and_missing_titles_are_right(place: Place) -> None:
    publish(place, recs_rows({"ann": ["x", "ÿ"], "zoë": ["y"]}, with_titles=True))
    (file,) = add_actions()
    assert (file["min.user_id"], file["max.user_id"], file["max.item_id"]) == ("ann", "zoë", "ÿ")
    assert (file["null_count.user_id"], file["null_count.title"]) == (0, 2)


def add_actions() -> list[dict[str, Any]]:
    """Return what the log says of each live file."""
    files: list[dict[str, Any]] = pa.table(deltalake.DeltaTable("recs").get_add_actions(flatten=True)).to_pylist()
    return files


def overtaking(monkeypatch: pytest.MonkeyPatch, place: Place, times: int) -> list[int]:
    """Let another writer publish whenever a commit has read the table, so many times; returns when it did."""
    read, overtaken = DeltaTarget._existing, list[int]()

    def existing(target: DeltaTarget) -> Any:
        table = read(target)
        if len(overtaken) < times:
            overtaken.append(len(overtaken))
            with monkeypatch.context() as patch:
                patch.setattr(DeltaTarget, "_existing", read)
                with place.target.replacing(write_recs(Path("other.parquet"), TWO)):
                    pass
        return table

    monkeypatch.setattr(DeltaTarget, "_existing", existing)
    return overtaken


def test_a_commit_that_another_writer_overtakes_is_repeated(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(place, ONE)
    with place.target.replacing(write_recs(Path("recs.parquet"), ONE[:1])):
        overtaken = overtaking(monkeypatch, place, ATTEMPTS - 1)
    assert len(overtaken) == ATTEMPTS - 1
    assert place.read() == {str(NIGHT): as_float32(ONE[:1])}


def test_a_writer_gives_up_after_some_attempts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(place, ONE)
    with (
        pytest.raises(StoreError, match=f"delta://recs: other writers committed first, {ATTEMPTS} times"),
        place.target.replacing(write_recs(Path("recs.parquet"), ONE[:1])),
    ):
        overtaking(monkeypatch, place, ATTEMPTS)
    assert place.read() == {str(NIGHT): as_float32(TWO)}


def test_a_commit_whose_answer_is_lost_is_not_repeated(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(place, ONE)
    commit = deltalake.DeltaTable.create_write_transaction

    def lost(*arguments: Any, **options: Any) -> None:
        commit(*arguments, **options)
        raise deltalake.exceptions.CommitFailedError("412")

    monkeypatch.setattr(deltalake.DeltaTable, "create_write_transaction", lost)
    publish(place, TWO)
    assert place.read() == {str(NIGHT): as_float32(TWO)}
    assert deltalake.DeltaTable("recs").version() == 2


def test_a_table_with_other_partitions_is_refused(place: Place) -> None:
    publish(place, ONE)
    rows = deltalake.DeltaTable("recs").to_pyarrow_table()
    deltalake.write_deltalake("plain", rows)
    with pytest.raises(ConfigError, match="delta://plain: is partitioned by nothing; expected run_date"):
        open_target("delta://plain").check_writable()


@pytest.mark.parametrize(
    ("features", "properties", "named"),
    [
        (["rowTracking", "domainMetadata"], {"delta.enableRowTracking": "true"}, "domainMetadata, rowTracking"),
        (["appendOnly"], {"delta.appendOnly": "true"}, "delta.appendOnly=true"),
        (["checkConstraints"], {"delta.constraints.few": "rank < 5"}, "delta.constraints.few=rank < 5"),
        (["appendOnly", "checkConstraints", "changeDataFeed", "deletionVectors", "v2Checkpoint"], {}, None),
    ],
)
def test_a_table_that_demands_more_of_its_writers_is_found_before_any_work(
    features: list[str], properties: dict[str, str], named: str | None, place: Place
) -> None:
    publish(place, ONE)
    # As Databricks makes tables; deltalake does not make such ones.
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "writerFeatures": features}
    protocol["readerFeatures"] = [name for name in features if name in {"deletionVectors", "v2Checkpoint"}]
    log = Path("recs/_delta_log")
    actions = [json.loads(line) for line in (log / f"{0:020}.json").read_text(encoding="utf-8").splitlines()]
    metadata = next(action for action in actions if "metaData" in action)
    metadata["metaData"]["configuration"] = properties
    lines = "\n".join(map(json.dumps, [{"protocol": protocol}, metadata]))
    (log / f"{2:020}.json").write_text(lines, encoding="utf-8")
    if named is None:
        place.target.check_writable()
        publish(place, TWO)
        return
    for step in (place.target.check_writable, lambda: publish(place, TWO)):
        with pytest.raises(ConfigError, match=f"delta://recs: demands of its writers {named}, which"):
            step()


def test_a_commit_that_is_refused_is_not_taken_for_another_writer(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: Any, **options: Any) -> None:
        raise deltalake.exceptions.CommitFailedError("Unsupported table features required")

    monkeypatch.setattr(deltalake.DeltaTable, "create_write_transaction", refused)
    with pytest.raises(StoreError, match="cannot be read or written: Unsupported table features required"):
        publish(place, ONE)


def test_a_table_that_is_changed_while_rows_are_written_is_not_written(place: Place) -> None:
    publish(place, ONE)
    other = pa.table({"run_date": ["x"], "name": ["y"]})
    with (
        pytest.raises(StoreError, match="removed or changed meanwhile"),
        place.target.replacing(write_recs(Path("recs.parquet"), TWO)),
    ):
        deltalake.write_deltalake("recs", other, mode="overwrite", schema_mode="overwrite")
    assert deltalake.DeltaTable("recs").to_pyarrow_table().num_rows == 1


@pytest.mark.parametrize("out", ["delta://", "delta:///", "delta+s3://"])
def test_a_url_without_a_folder_is_refused(out: str) -> None:
    with pytest.raises(ConfigError, match="expected a folder"):
        open_target(out)


@pytest.mark.parametrize("character", ["?", "#", "%", "\\"])
def test_a_folder_that_deltalake_would_look_for_elsewhere_is_found_before_any_work(
    character: str, place: Place
) -> None:
    with pytest.raises(ConfigError, match=f"below a name with {re.escape(character)}, as in /.*41 recs"):
        open_target(f"delta://{quote(character)}41%20recs").check_writable()


def test_a_parameter_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown parameter version"):
        open_target("delta://recs?version=3")


def test_a_missing_parent_folder_is_found_before_any_work(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"folder .*none does not exist"):
        open_target("delta://none/recs").check_writable()


def test_a_full_disk_leaves_the_old_rows_and_no_files(place: Place, tmp_path: Path) -> None:
    publish(place, ONE)
    table = moderate_recs(tmp_path / "recs.parquet", 20_000, "m2")
    before = sorted(Path("recs").rglob("*"))
    full = r"delta://recs: cannot be read or written: .*[Ff]ile too large"
    with small_files(), pytest.raises(StoreError, match=full), place.target.replacing(table):
        pytest.fail("the block began")
    assert place.read() == {str(NIGHT): as_float32(ONE)}
    assert sorted(path for path in Path("recs").rglob("*") if path.suffix != ".tmp") == before


def test_a_missing_bucket_is_named(s3: str) -> None:
    out = f"delta+{s3}-missing/recs"
    for call in (open_target(out).check_writable, open_target(out).sha256):
        with pytest.raises(
            StoreError, match=r"delta\+s3://bucket-\w+-missing/recs: cannot be read or written: .*404"
        ) as error:
            call()
        assert_is_one_plain_line(str(error.value))


def test_wrong_credentials_are_named_without_them(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    authorize("0")
    try:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-somebody")
        with pytest.raises(StoreError, match=r"delta\+s3://.*: cannot be read or written: .*403") as error:
            open_target(f"delta+{s3}/recs").check_writable()
        assert "a-secret-of-somebody" not in str(error.value)
        assert_is_one_plain_line(str(error.value))
    finally:
        authorize("inf")


def authorize(n_actions: str) -> None:
    """Let moto check credentials after so many calls."""
    url = os.environ["AWS_ENDPOINT_URL"] + "/moto-api/reset-auth"
    request = Request(url, n_actions.encode(), {"Content-Type": "text/plain"})  # noqa: S310 - a server of the tests
    with urlopen(request):  # noqa: S310
        pass


def test_a_store_that_does_not_answer_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreError, match=r"delta\+s3://.*: cannot be read or written") as error:
        open_target(f"delta+{s3}/recs").check_writable()
    assert_is_one_plain_line(str(error.value))
