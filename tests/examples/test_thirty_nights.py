"""The example of thirty nights: its deliveries of the log, and its check that a table is complete."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples.thirty_nights import deliver, is_whole


def test_the_log_grows_by_a_day_and_may_lack_half_of_its_files(tmp_path: Path) -> None:
    by_day, log = tmp_path / "by-day", tmp_path / "log"
    by_day.mkdir()
    log.mkdir()
    for day in range(1, 6):
        (by_day / f"2011-12-0{day}.csv").touch()

    def delivered(day: int, is_half: bool) -> list[str]:
        deliver(by_day, log, date(2011, 12, day), is_half)
        return sorted(file.stem[-1] for file in log.iterdir())

    assert delivered(3, is_half=False) == ["1", "2", "3"]
    assert delivered(4, is_half=True) == ["1", "3"]
    assert delivered(5, is_half=False) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("ranks", "items", "whole"),
    [
        (list(range(1, 11)), list(range(10)), True),
        (list(range(1, 10)), list(range(9)), False),
        (list(range(1, 11)), [0, 0, *range(2, 10)], False),
        ([], [], False),
    ],
)
def test_a_table_is_complete_if_every_list_has_ten_items(
    tmp_path: Path, ranks: list[int], items: list[int], whole: bool
) -> None:
    recs = tmp_path / "recs.parquet"
    assert not is_whole(recs)
    columns = {"user_id": [7] * len(ranks), "rank": ranks, "item_id": items}
    schema = pa.schema([(name, pa.int64()) for name in columns])
    pq.write_table(pa.table(columns, schema=schema), recs)
    assert is_whole(recs) == whole
