"""The nightly run as a Dagster asset with one partition per run date, configured in batchrec.toml."""

import json
import subprocess

import dagster as dg

FOLDER = "/srv/recommendations"
NOTHING_TO_DO = 99
# Wrong options, a damaged model, a missing device, a failed gate: a retry would fail the same way.
NO_RETRY = (2, 4, 5, 6)

# The partition of a day exists on that day, not only on the next.
nights = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_offset=1)


# A retry resumes where the previous run was killed.
@dg.asset(partitions_def=nights, retry_policy=dg.RetryPolicy(max_retries=2, delay=600))
def recs(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Publish the recommendations of one night."""
    command = [".venv/bin/batchrec", "run", "--run-date", context.partition_key, "--log-format", "json", "--json"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    log = done.stderr.splitlines()
    for line in log:
        context.log.info(line)
    if done.returncode == NOTHING_TO_DO:
        return dg.MaterializeResult(metadata={"nothing to do": True})
    if done.returncode:
        raise dg.Failure(log[-1] if log else "no log", allow_retries=done.returncode not in NO_RETRY)
    report = json.loads(done.stdout.splitlines()[-1])
    figures = ("rows", "users", "users_carried_over", "seconds", "model", "trained_because")
    return dg.MaterializeResult(metadata={name: report[name] for name in figures if report[name] is not None})


night = dg.define_asset_job("night", selection=[recs])
schedule = dg.build_schedule_from_partitioned_job(night, hour_of_day=3, minute_of_hour=15)
defs = dg.Definitions(assets=[recs], jobs=[night], schedules=[schedule])
