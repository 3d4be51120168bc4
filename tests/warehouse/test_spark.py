"""score and build-sequences by --engine spark, with two executors: the tables of this machine, row for row."""

import os
import random
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrec.config import SequencesConfig
from batchrec.engines import sequences_builder
from batchrec.engines.spark_session import spark_session
from batchrec.errors import EngineError, InputError
from batchrec.sequences.build import SequencesReport, build_sequences, rejects_of

pytestmark = [
    pytest.mark.usefixtures("spark"),
    # pyspark 4 warns of pandas 3 whenever it is used.
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
BUILDER = sequences_builder("spark")


def test_a_bug_in_the_workers_is_one_line(tmp_path: Path, spark: Any) -> None:
    def broken(_: Any) -> Any:
        raise KeyError("a bug")

    with pytest.raises(EngineError, match=r"the cluster failed: KeyError: 'a bug'$"), spark_session():
        spark.range(1).mapInArrow(broken, "id bigint").collect()


def write_log(folder: Path, text_ids: bool = False) -> Path:
    """Write a log of three Parquet files, with repeats and ties, and of one CSV file with rows that cannot be used."""
    chance = random.Random(1)  # noqa: S311 - a sample, no secret
    folder.mkdir()
    for number in range(3):
        users = [chance.randrange(60) for _ in range(700)]
        rows = {
            "userId": [f"u{user}" for user in users] if text_ids else users,
            "movieId": [chance.choice("abcdefghij") for _ in users],
            "timestamp": [chance.randrange(1_700_000_000, 1_700_000_300) for _ in users],
            "rating": [chance.randrange(1, 6) for _ in users],
        }
        pq.write_table(pa.table(rows), folder / f"{number}.parquet")
    (folder / "log.csv").write_text(
        "userId,movieId,timestamp,rating\n1,a,1700000001,3\n2,,1700000001,3\n3,b,never,5\n4,c\n9,b,1700000002.5,\n"
        '7,"c,1700000003,4\n8,d,1700000004,4\n5,e"f,1700000005,4\n6,a,1700000006,2\n'
    )
    return folder


def both(log: Path, folder: Path, **options: Any) -> list[SequencesReport]:
    """Build here and on Spark; fail if the tables, the reports or the rejects differ."""
    config = SequencesConfig(**options)
    here, spark = folder / "here.parquet", folder / "spark.parquet"
    reports = [
        build_sequences([str(log)], config, here),
        build_sequences([str(log)], replace(config, engine="spark"), spark, BUILDER),
    ]
    assert pq.read_table(spark).equals(pq.read_table(here), check_metadata=True)
    counts = [asdict(report) | {"out": "", "rejects_file": "", "seconds": 0} for report in reports]
    assert counts[0] == counts[1]
    # Once merged records are left out, the other rejects of a file are in no order, here as well.
    rejects = [rejects_of(file).read_text().splitlines() if rejects_of(file).exists() else [] for file in (here, spark)]
    assert sorted(rejects[0]) == sorted(rejects[1])
    return reports


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repeats": "all", "min_item_events": 200},
        {"repeats": "first", "min_rating": 3.0, "min_item_events": 51, "min_user_events": 6},
        {"seen": "kept", "min_rating": 5.0, "user_id_type": "text"},
    ],
    ids=["plain", "items", "filters", "kept"],
)
def test_histories_equal_those_of_this_machine(options: dict[str, Any], tmp_path: Path) -> None:
    reports = both(write_log(tmp_path / "log"), tmp_path, max_bad_rows="10", **options)
    assert sum(reports[1].rejected.values()) > 3
    filters = {"min_rating", "min_item_events", "min_user_events"} & options.keys()
    assert len(reports[1].left_out) == len(filters)


def test_text_ids_in_one_file_make_all_ids_text(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", text_ids=True)
    (log / "log.csv").write_text("userId,movieId,timestamp\n7,a,1700000000\n08,b,1700000001\n")
    assert both(log, tmp_path)[1].user_id_type == "string"


def test_a_relative_path_is_that_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (write_log(Path("log")) / "log.csv").unlink()
    both(Path("log"), tmp_path)


def test_the_unit_of_times_is_one_for_all_files(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    (log / "log.csv").write_text("userId,movieId,timestamp\n7,a,1700000000000\n")
    for engine, builder in (("local", None), ("spark", BUILDER)):
        with pytest.raises(InputError, match=r"timestamp: '1700000\d+', '1700000\d+': the numbers look like s and ms"):
            build_sequences([str(log)], SequencesConfig(engine=engine), tmp_path / "s.parquet", builder)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("7,a,1700000001\n8,b,never\n", r"bad.csv: line 3: unreadable time: 'never'; 1 of 2102 rows cannot be used"),
        (" x,a,1700000001\n", "column 'userId' has ids with blanks around them; expected none with --engine spark"),
    ],
    ids=["bad row", "blanks"],
)
def test_what_cannot_be_built_is_refused_and_leaves_the_table(rows: str, said: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    (log / "log.csv").unlink()
    (log / "bad.csv").write_text(f"userId,movieId,timestamp\n{rows}")
    (tmp_path / "s.parquet").write_text("the earlier table")
    with pytest.raises(InputError, match=said):
        build_sequences([str(log)], SequencesConfig(engine="spark"), tmp_path / "s.parquet", BUILDER)
    assert (tmp_path / "s.parquet").read_text() == "the earlier table"


def test_the_submit_script_runs_the_command(tmp_path: Path) -> None:
    log, script = write_log(tmp_path / "log"), Path(__file__).parents[2] / "examples" / "spark_submit.sh"
    (log / "log.csv").unlink()
    build_sequences([str(log)], SequencesConfig(), tmp_path / "here.parquet")
    environment = {
        "SPARK_SUBMIT": str(Path(sys.executable).with_name("spark-submit")),
        "PYSPARK_PYTHON": sys.executable,
        "MASTER": "local[2]",
        "SPARK_OPTIONS": "--driver-memory 1g --conf spark.ui.enabled=false",
    }
    command = ["/bin/sh", str(script), "build-sequences", "--ratings", str(log), "--out", "spark.parquet"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "spark.parquet").equals(pq.read_table(tmp_path / "here.parquet"))
