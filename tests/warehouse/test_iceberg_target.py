"""Iceberg as target: what a snapshot holds, other writers, and catalogs that cannot be used."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.errors import ConfigError, RefusedError, StoreError
from batchrec.tables.schemas import recs_schema
from batchrec.targets import open_target
from batchrec.targets.iceberg import IcebergTarget
from batchrec.targets.stores import ATTEMPTS
from tests.support.recs import NIGHT, moderate_recs, recs_rows, write_recs
from tests.support.target_contract import LATER, ONE, TWO, as_float32, publish
from tests.support.targets import Place
from tests.warehouse.table_targets import assert_is_one_plain_line, read_iceberg, small_files, use_catalog

catalogs = pytest.importorskip("pyiceberg.catalog", reason="the warehouse extra is not installed")
exceptions = pytest.importorskip("pyiceberg.exceptions")
sql = pytest.importorskip("pyiceberg.catalog.sql")


@pytest.fixture
def place(iceberg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(f"{iceberg}/shop.recs", read_iceberg)


def table() -> Any:
    return catalogs.load_catalog("lake").load_table("shop.recs")


def files() -> list[str]:
    """Return the paths of the Parquet files of the table, live or not."""
    return sorted(str(path) for path in Path("iceberg").rglob("*.parquet"))


def test_a_publication_is_one_snapshot_that_says_what_made_it(place: Place) -> None:
    publish(place, ONE)
    sha256 = publish(place, TWO, LATER)
    assert len(table().snapshots()) == 2
    summary = table().current_snapshot().summary.additional_properties
    assert {name: value for name, value in summary.items() if name.startswith("batchrec.")} == {
        "batchrec.run_date": str(LATER),
        "batchrec.sha256": sha256,
        "batchrec.run_id": "r1",
        "batchrec.model_id": "m2",
    }
    assert summary["added-records"] == str(len(TWO))


def test_a_rollback_is_one_snapshot(place: Place) -> None:
    publish(place, ONE)
    publish(place, TWO, LATER)
    with place.target.rolling_back(write_recs(Path("recs.parquet"), ONE)):
        pass
    assert len(table().snapshots()) == 3
    assert place.read() == {str(NIGHT): as_float32(ONE)}


def test_readers_skip_other_dates_and_find_columns_by_id(place: Place) -> None:
    publish(place, ONE)
    publish(place, TWO, LATER)
    scan = table().scan(row_filter=f"run_date = '{LATER}'")
    (task,) = scan.plan_files()
    assert task.file.record_count == len(TWO)
    ids = {field.name: field.field_id for field in table().schema().fields}
    (file,) = (file for file in files() if str(LATER) in file)
    metadata = {field.name: int(field.metadata[b"PARQUET:field_id"]) for field in pq.read_schema(file)}
    assert metadata == ids
    assert [list(table().scan(row_filter=f"user_id = {user}").plan_files()) for user in (0, 4)] == [[], []]


def test_a_missing_namespace_is_created_before_any_work(place: Place, iceberg: str) -> None:
    target = open_target(f"{iceberg}/new.recs")
    target.check_writable()
    assert catalogs.load_catalog("lake").namespace_exists("new")
    with target.replacing(write_recs(Path("recs.parquet"), ONE)):
        pass
    assert list(read_iceberg(f"{iceberg}/new.recs")) == [str(NIGHT)]


def overtaking(monkeypatch: pytest.MonkeyPatch, place: Place, times: int) -> list[int]:
    """Let another writer publish whenever a commit has read the table, so many times; returns when it did."""
    read, overtaken = IcebergTarget._existing, list[int]()

    def existing(target: IcebergTarget) -> Any:
        old = read(target)
        if len(overtaken) < times:
            overtaken.append(len(overtaken))
            with monkeypatch.context() as patch:
                patch.setattr(IcebergTarget, "_existing", read)
                publish(place, TWO)
        return old

    monkeypatch.setattr(IcebergTarget, "_existing", existing)
    return overtaken


def test_a_commit_that_another_writer_overtakes_is_repeated(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(place, ONE)
    with place.target.replacing(write_recs(Path("one.parquet"), ONE[:1])):
        overtaken = overtaking(monkeypatch, place, ATTEMPTS - 1)
    assert len(overtaken) == ATTEMPTS - 1
    assert place.read() == {str(NIGHT): as_float32(ONE[:1])}


def test_a_first_run_date_that_another_writer_adds_is_replaced(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(place, ONE, LATER)
    with place.target.replacing(write_recs(Path("one.parquet"), ONE[:1])):
        overtaking(monkeypatch, place, 1)
    assert place.read() == {str(LATER): as_float32(ONE), str(NIGHT): as_float32(ONE[:1])}


def test_a_writer_gives_up_after_some_attempts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(place, ONE)
    with (
        pytest.raises(StoreError, match=f"iceberg://lake/shop.recs: other writers committed first, {ATTEMPTS} times"),
        place.target.replacing(write_recs(Path("one.parquet"), ONE[:1])),
    ):
        overtaking(monkeypatch, place, ATTEMPTS)
    assert place.read() == {str(NIGHT): as_float32(TWO)}


def test_a_commit_whose_answer_is_lost_is_not_repeated(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(place, ONE)
    commit = sql.SqlCatalog.commit_table

    def lost(*arguments: Any, **options: Any) -> None:
        commit(*arguments, **options)
        raise exceptions.CommitFailedException("409")

    monkeypatch.setattr(sql.SqlCatalog, "commit_table", lost)
    publish(place, TWO)
    assert place.read() == {str(NIGHT): as_float32(TWO)}
    assert len(table().snapshots()) == 2


def test_a_table_with_other_partitions_is_refused(place: Place, iceberg: str) -> None:
    publish(place, ONE)
    plain = catalogs.load_catalog("lake").create_table("shop.plain", table().schema())
    assert plain.spec().is_unpartitioned()
    with pytest.raises(ConfigError, match=r"shop.plain: is partitioned by nothing; expected identity\(run_date\)"):
        open_target(f"{iceberg}/shop.plain").check_writable()


def test_a_table_that_is_changed_while_rows_are_written_is_not_written(place: Place) -> None:
    publish(place, ONE)
    lake = catalogs.load_catalog("lake")

    def make_again() -> None:
        lake.drop_table("shop.recs")
        lake.create_table("shop.recs", pa.schema([("name", pa.int64())]))

    with (
        pytest.raises(StoreError, match="removed or changed meanwhile"),
        place.target.replacing(write_recs(Path("recs.parquet"), TWO)),
    ):
        make_again()
    assert table().scan().to_arrow().num_rows == 0


def test_files_of_an_earlier_partitioning_are_not_dropped(place: Place) -> None:
    sha256 = publish(place, ONE)
    for name in ("user_id", None):
        with table().update_spec() as spec:
            spec.add_identity(name) if name else spec.remove_field("user_id")
        if name:
            rows = table().scan().to_arrow()
            table().append(rows)
    with pytest.raises(RefusedError, match="holds files of an earlier partitioning"):
        publish(place, TWO)
    assert place.target.sha256() == sha256


def test_rows_of_a_time_before_the_partitions_hide_no_publication(place: Place) -> None:
    rows = pa.Table.from_pylist(
        recs_rows({1: [10]}), recs_schema(pa.int64(), pa.int64(), with_titles=False, made_by={})
    )
    dates = pa.field("run_date", pa.date32(), nullable=False)
    dated = rows.replace_schema_metadata(None).append_column(dates, pa.array([NIGHT], pa.date32()))
    catalogs.load_catalog("lake").create_table("shop.recs", dated.schema).append(dated)
    with table().update_spec() as spec:
        spec.add_identity("run_date")
    assert publish(place, TWO, LATER) == place.target.sha256()


@pytest.mark.parametrize("out", ["iceberg://lake", "iceberg://lake/recs", "iceberg:///db.recs", "iceberg://lake/a/b.c"])
def test_a_url_without_catalog_and_table_is_refused(out: str) -> None:
    with pytest.raises(ConfigError, match=r"expected iceberg://catalog/db\.table"):
        open_target(out)


def test_an_error_in_the_block_removes_the_files(place: Place) -> None:
    publish(place, ONE)
    before = files()
    with pytest.raises(KeyError) as error, place.target.replacing(write_recs(Path("two.parquet"), TWO)):
        raise KeyError(len(files()))
    assert error.value.args == (len(before) + 1,)
    assert files() == before


def test_a_full_disk_leaves_the_old_rows_and_no_files(place: Place) -> None:
    publish(place, ONE)
    large, before = moderate_recs(Path("large.parquet"), 20_000, "m2"), files()
    full = r"iceberg://lake/shop.recs: cannot be read or written: .*File too large"
    with small_files(), pytest.raises(StoreError, match=full), place.target.replacing(large):
        pytest.fail("the block began")
    assert place.read() == {str(NIGHT): as_float32(ONE)}
    assert files() == before


def test_a_catalog_that_is_not_configured_is_named(place: Place) -> None:
    with pytest.raises(StoreError, match=r"iceberg://other/shop.recs: cannot be read or written: .*URI"):
        open_target("iceberg://other/shop.recs").check_writable()


def test_a_catalog_that_does_not_answer_is_named_without_its_token(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "a-secret-of-somebody"  # noqa: S105 - nobody's
    use_catalog(monkeypatch, "AWAY", TYPE="rest", URI="http://127.0.0.1:1", TOKEN=secret)
    target = open_target("iceberg://away/shop.recs")
    for call in (target.check_writable, target.sha256):
        with pytest.raises(StoreError, match=r"iceberg://away/shop\.recs: cannot be read or written") as error:
            call()
        assert secret not in str(error.value)
        assert_is_one_plain_line(str(error.value))


def test_a_missing_bucket_is_named(place: Place, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = os.environ["PYICEBERG_CATALOG__LAKE__URI"]
    options = {"TYPE": "sql", "URI": uri, "WAREHOUSE": f"{s3}-missing", "S3__ENDPOINT": os.environ["AWS_ENDPOINT_URL"]}
    use_catalog(monkeypatch, "OTHER", **options)
    target = open_target("iceberg://other/away.recs")
    target.check_writable()
    with (
        pytest.raises(StoreError, match=r"iceberg://other/away.recs: cannot be read or written: .*-missing") as error,
        target.replacing(write_recs(Path("recs.parquet"), ONE)),
    ):
        pytest.fail("the block began")
    assert_is_one_plain_line(str(error.value))
