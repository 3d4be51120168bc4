"""Shards as mapped tasks of an Airflow 3 DAG (provider `standard`), then one task that publishes them.

The workers share FOLDER, in which build-sequences and train have written sequences.parquet and model/.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

FOLDER = "/srv/recommendations"
N_SHARDS = 4

with DAG(
    "recommendations_in_shards",
    schedule="15 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # A shard resumes where the previous try was killed.
    default_args={"cwd": FOLDER, "retries": 2, "retry_delay": timedelta(minutes=10)},
) as dag:
    score = BashOperator.partial(
        task_id="score",
        bash_command=(
            ".venv/bin/batchrec score --shard $SHARD --run-date {{ data_interval_end | ds }} --out shards "
            "--log-format json --json"
        ),
        append_env=True,
    ).expand(env=[{"SHARD": f"{index}/{N_SHARDS}"} for index in range(N_SHARDS)])
    commit = BashOperator(
        task_id="commit",
        bash_command=".venv/bin/batchrec commit shards --out recs.parquet --log-format json --json",
    )
    score >> commit
