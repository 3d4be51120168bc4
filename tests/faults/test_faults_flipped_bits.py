"""A table with one flipped bit gives the same values or an error, never other values."""

import random
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from batchrec.config import ScoringConfig
from batchrec.errors import InputError
from batchrec.scoring.previous_table import open_previous
from batchrec.scoring.score import score
from batchrec.tables.sealed_parquet import open_parquet, parquet_of
from batchrec.tables.sequences_table import open_sequences
from tests.faults import counts
from tests.support.models import trained_model, training_histories, write_sequences
from tests.tables.test_sealed_parquet import HISTORIES, rows_of, write

pytestmark = pytest.mark.slow


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "sequences.parquet", HISTORIES)


def flips(contents: bytes, most: int) -> Iterator[bytes]:
    """Yield copies with one flipped bit, another one each time: a sample, twenty times as large in the long form."""
    places = range(8 * len(contents))
    n_flips = min(len(places), 20 * most if counts.IS_LONG else most)
    for place in random.Random(11).sample(places, n_flips):  # noqa: S311 - a sample, no secret
        changed = bytearray(contents)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)
        counts.add("flipped bits of tables")


def test_no_flipped_bit_of_sequences_becomes_another_value(table: Path) -> None:
    expected, found = rows_of(table), 0
    for changed in flips(table.read_bytes(), 1500):
        table.write_bytes(changed)
        try:
            assert rows_of(table) == expected
        except InputError:
            found += 1
    assert found > 1000


def test_no_flipped_bit_of_sequences_reaches_sql(table: Path) -> None:
    # DuckDB verifies no checksum, so every table is opened and checked before DuckDB reads it.
    query = f"select user_id, item_ids, timestamps from read_parquet('{table}') order by user_id"  # noqa: S608
    con = duckdb.connect()
    expected = con.execute(query).fetchall()
    for changed in flips(table.read_bytes(), 300):
        table.write_bytes(changed)
        try:
            open_sequences(table)
        except InputError:
            continue
        assert con.execute(query).fetchall() == expected


def test_no_flipped_bit_of_an_earlier_table_is_carried_over(tmp_path: Path) -> None:
    sequences = write_sequences(tmp_path / "sequences.parquet", training_histories())
    recs = tmp_path / "recs.parquet"
    score(sequences, trained_model(), ScoringConfig(device="cpu", chunk_size=20), recs)
    schema, expected = pq.read_schema(recs), pq.read_table(recs)
    found = 0
    for changed in flips(recs.read_bytes(), 400):
        recs.write_bytes(changed)
        try:
            previous = open_previous(recs, schema)
        except InputError:
            found += 1
        else:
            assert previous is None or parquet_of(open_parquet(recs)).read().equals(expected)
    assert found > 300
