"""The nightly run as an Airflow 3 DAG (provider `standard`): one task, configured in batchrec.toml."""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

FOLDER = "/srv/recommendations"

with DAG(
    "recommendations",
    schedule="15 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
) as dag:
    BashOperator(
        task_id="run",
        # The day of the start, as without --run-date, but a retry after midnight still belongs to the same night.
        bash_command=".venv/bin/batchrec run --run-date {{ data_interval_end | ds }} --log-format json --json",
        cwd=FOLDER,
        # Nothing to do: the same table is already published.
        skip_on_exit_code=99,
        # The last line of stdout is the report, one line of JSON: other tasks get it as this task's XCom.
        do_xcom_push=True,
        # A retry resumes where the previous run was killed.
        retries=2,
        retry_delay=timedelta(minutes=10),
        execution_timeout=timedelta(hours=3),
    )
