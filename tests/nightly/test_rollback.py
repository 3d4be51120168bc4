"""Rollbacks: an earlier table is the current one again, if it is still the one that was published."""

from datetime import timedelta

import pytest

from batchrec.errors import ConfigError
from batchrec.nightly.rollback import roll_back
from tests.support.nights import FIRST, Company, later


def test_the_table_can_be_rolled_back(shop: Company) -> None:
    tables = []
    for number in range(3):
        shop.write_log(later(5 + number))
        shop.run(number)
        tables.append(shop.rows())
    assert tables[0] != tables[1] != tables[2]
    assert roll_back(shop.archive) == FIRST + timedelta(days=1)
    assert shop.rows() == tables[1]
    assert roll_back(shop.archive) == FIRST
    with pytest.raises(ConfigError, match="no earlier night has another table to roll back to"):
        roll_back(shop.archive)
    assert roll_back(shop.archive, FIRST + timedelta(days=2)) == FIRST + timedelta(days=2)
    assert shop.rows() == tables[2]
    with pytest.raises(ConfigError, match="night 1999-01-01 does not exist"):
        roll_back(shop.archive, FIRST.replace(year=1999, month=1))


def test_nights_with_the_same_table_are_no_nights_to_roll_back_to(shop: Company) -> None:
    for number in range(2):
        shop.run(number)
    assert len(shop.archive.current_nights()) == 2
    with pytest.raises(ConfigError, match="no earlier night has another table to roll back to"):
        roll_back(shop.archive)


def test_a_table_with_a_changed_byte_is_not_rolled_back_to(shop: Company) -> None:
    shop.run()
    shop.write_log(later())
    shop.run(1)
    expected = shop.rows()
    (shop.folder / f"nights/run_date={FIRST}/recs.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="not the table that was published"):
        roll_back(shop.archive)
    assert shop.rows() == expected
