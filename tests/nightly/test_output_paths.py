"""run: outputs within the inputs are refused."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchrec.config import ScoringConfig, SequencesConfig
from batchrec.errors import ConfigError
from batchrec.nightly.output_paths import check_output_paths
from batchrec.nightly.run import run
from batchrec.sequences.build import build_sequences
from tests.support.nights import FIRST, Company

# Places that a night reads and writes, and the option that is refused; None if they do not overlap.
APART: list[tuple[dict[str, Any], str | None]] = [
    ({"ratings": ["plays"], "out": "plays/recs.parquet"}, "--out"),
    ({"ratings": ["plays"], "out": "plays/deeper/recs.parquet"}, "--out"),
    ({"ratings": ["plays/*.parquet"], "out": "plays/recs.parquet"}, "--out"),
    ({"ratings": ["plays/*.csv"], "out": "plays/recs.parquet"}, None),
    ({"ratings": ["**/*.parquet"], "out": "recs.parquet"}, "--out"),
    ({"ratings": ["plays"], "nights": "plays/nights"}, "--nights"),
    ({"ratings": ["plays"], "models": "plays/models"}, "--models"),
    ({"ratings": ["p*/**/*.parquet"], "nights": "plays/nights"}, "--nights"),
    ({"ratings": ["p*/*.parquet"], "nights": "plays/nights"}, None),
    ({"ratings": ["p*/**/*.csv"], "nights": "plays/nights"}, "--nights"),
    ({"ratings": ["plays"], "nights": "plays/_nights"}, None),
    ({"ratings": ["plays"], "nights": "elsewhere"}, None),
    ({"ratings": ["linked"], "out": "plays/recs.parquet"}, "--out"),
    ({"block": "rules", "out": "rules/recs.parquet"}, "--out"),
    ({"ratings": ["duckdb://plays/shop.db?table=plays"], "out": "plays/shop.db"}, "--out"),
    ({"block": "duckdb://rules/shop.db?table=blocked", "out": "rules/shop.db"}, "--out"),
    ({"users": "rules/*", "models": "rules"}, None),
    ({"users": "rules/*/*", "models": "rules"}, "--models"),
    ({"query": "events.sql", "out": "events.sql"}, "--out"),
    ({"ratings": ["plays"], "query": "events.sql", "out": "plays/recs.parquet"}, None),
    ({"ratings": ["plays"], "out": "plays/recs/"}, "--out"),
    ({"ratings": ["recs/*.parquet"], "out": "recs/"}, None),
    ({"ratings": ["recs/**/*.parquet"], "out": "recs/"}, "--out"),
    ({"nights": "nights", "out": "nights/"}, "--out"),
    ({"models": "models", "out": "models/"}, "--out"),
    ({"ratings": ["memory://b/plays/"], "out": "memory://b/recs/"}, None),
    ({"ratings": ["memory://b/plays/"], "out": "memory://b/plays/recs/"}, "--out"),
    ({"ratings": ["memory://b/plays/*.parquet"], "out": "memory://b/plays/recs/"}, None),
    ({"ratings": ["memory://b/plays/*"], "out": "memory://b/plays/recs.parquet"}, "--out"),
    ({"ratings": ["memory://b/recs.parquet"], "out": "memory://b/recs.parquet"}, "--out"),
    ({"ratings": ["duckdb://b.db?table=plays"], "out": "duckdb://b.db?table=recs"}, None),
    ({"ratings": ["duckdb://b.db?table=recs"], "out": "duckdb://b.db?table=recs"}, "--out"),
    ({"ratings": ["plays"], "metrics": "plays/b.prom"}, None),
    ({"ratings": ["plays/*"], "metrics": "plays/b.prom"}, "--metrics-file"),
    ({"query": "events.sql", "metrics": "events.sql"}, "--metrics-file"),
]


@pytest.mark.parametrize(("places", "refused"), APART)
def test_outputs_within_the_inputs_are_refused(
    shop: Company, monkeypatch: pytest.MonkeyPatch, places: dict[str, Any], refused: str | None
) -> None:
    monkeypatch.chdir(shop.folder)
    for folder in ("plays/deeper", "rules"):
        Path(folder).mkdir(parents=True)
    shutil.copyfile("ratings.csv", "plays/ratings.csv")
    Path("linked").symlink_to("plays")
    # Reading this would raise InputError, so the paths must be refused before that.
    Path("events.sql").write_text("nothing", encoding="utf-8")
    jobs = replace(
        shop.jobs,
        ratings=places.get("ratings", ["ratings.csv"]),
        sequences=SequencesConfig(query=places.get("query")),
        scoring=ScoringConfig(block=places.get("block"), users=places.get("users")),
        out=places.get("out", "recs.parquet"),
    )
    config = replace(shop.run_config, nights=places.get("nights", "nights"), models=places.get("models", "models"))
    metrics_file = Path(places["metrics"]) if "metrics" in places else None
    before = sorted(path for path in shop.folder.rglob("*") if path.is_file())

    def begun(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("batchrec.nightly.night.Night.run", begun)
    if refused is None:
        with pytest.raises(KeyboardInterrupt):
            run(jobs, config, FIRST, metrics_file)
    else:
        with pytest.raises(ConfigError, match=f"is also (an input|the folder of).* Pass another .*{refused}"):
            run(jobs, config, FIRST, metrics_file)
        assert sorted(path for path in shop.folder.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize(
    ("out", "read", "is_refused"),
    [
        ("s3://b/recs/", "s3://b/recs", True),
        ("s3://b/log/recs/", "s3://b/log/", True),
        ("s3://b/log/_recs/", "s3://b/log/", False),
        ("s3://b/log-recs/", "s3://b/log", False),
        ("s3://b/recs/", "s3://b/**/*.parquet", True),
        ("s3://b/recs/", "s3://b/recs/*/*.parquet", True),
        ("s3://b/recs/", "s3://b/*/*.csv", False),
        ("s3://b/recs/", "s3://other/recs/", False),
        ("delta+s3://b/recs", "delta+s3://b/recs", True),
        ("postgresql://h/db?table=a.recs", "postgresql://h/db?table=a.recs", True),
        ("postgresql://h/db?table=a.recs", "postgresql://h/db?table=a.log", False),
        ("recs.parquet", "s3://b/recs/", False),
        ("s3://b/recs/", "recs.parquet", False),
    ],
)
def test_a_url_within_the_inputs_is_refused(shop: Company, out: str, read: str, is_refused: bool) -> None:
    for jobs in (
        replace(shop.jobs, out=out, ratings=[read]),
        replace(shop.jobs, out=out, scoring=ScoringConfig(block=read)),
    ):
        if is_refused:
            with pytest.raises(ConfigError, match=r"is also an input\. Pass another score --out"):
                check_output_paths(jobs, shop.run_config)
        else:
            check_output_paths(jobs, shop.run_config)


def test_an_output_that_is_also_an_input_is_refused(shop: Company) -> None:
    ratings = shop.folder / "ratings.csv"
    before = ratings.read_bytes()
    jobs = replace(shop.jobs, out=str(ratings))
    with pytest.raises(ConfigError, match=r"is also an input\. Pass another score --out"):
        run(jobs, shop.run_config, FIRST)
    for file in (ratings, Path(shop.jobs.out)):
        with pytest.raises(ConfigError, match=r"is also an input\. Pass another --metrics-file"):
            run(shop.jobs, shop.run_config, FIRST, file)
    with pytest.raises(ConfigError, match=r"is also an input\. Pass another --out"):
        build_sequences([str(shop.folder / "*.csv")], SequencesConfig(), ratings)
    assert ratings.read_bytes() == before
