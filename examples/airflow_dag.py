"""The night as a DAG of Airflow 3, with the provider `standard`: one task, for batchrec.toml says how it is done."""

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
        # The day on which it starts, as without --run-date; a retry after midnight is still of the same night.
        bash_command=".venv/bin/batchrec run --run-date {{ data_interval_end | ds }} --log-format json --json",
        cwd=FOLDER,
        # Nothing to do: the same table is published already.
        skip_on_exit_code=99,
        # The report, one line of JSON, is the last line of stdout: other tasks find it as this one's XCom.
        do_xcom_push=True,
        # A retry goes on where the run before it was killed.
        retries=2,
        retry_delay=timedelta(minutes=10),
        execution_timeout=timedelta(hours=3),
    )
