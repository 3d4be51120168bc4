"""similar with tables in stores as targets: the same rows as in a file, by run date."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchrec.config import SimilarConfig
from batchrec.errors import ConfigError
from batchrec.similarity.publish import similar_to
from tests.support.similar import write_model_of
from tests.warehouse.table_targets import TABLES, table_place


@pytest.mark.parametrize("name", TABLES)
def test_a_table_holds_the_similar_items_of_each_run_date(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lake of recs").mkdir()
    place = table_place(name, request)
    model = write_model_of({1: [1, 2, 3], 2: [2, 3, 4], 3: [11, 12]}, tmp_path / "model")
    expected = {}
    for run_date, top_k in (("2026-11-24", 2), ("2026-11-25", 3), ("2026-11-24", 4)):
        config = SimilarConfig(top_k=top_k, run_date=run_date)
        similar_to("similar.parquet", model, config)
        expected[run_date] = pq.read_table("similar.parquet").to_pylist()
        assert similar_to(place.out, model, config).out == place.out
    assert place.read() == expected
    # The target of recommendations.
    with pytest.raises(ConfigError, match="exists with columns"):
        place.target.check_writable()
