"""Airflow 3: each night the logs of the day before (UTC), then the page of all that is labelled.

A task that is tried again, cleared or backfilled does its own day again: what is finished is kept, and a day that is
the same as when it was labelled is left alone.
"""

from __future__ import annotations

import datetime as dt

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

LOGS = "/var/log/assistant"
LABELS = "/srv/faultline"

with DAG(
    "faultline",
    # With its intervals: the run of a night is for the day in which its interval starts.
    schedule=CronDataIntervalTimetable("15 3 * * *", timezone="UTC"),
    start_date=dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
    catchup=False,
    # On a disk the runs of several days may work side by side; an object store has no locks.
    max_active_runs=1,
    # Logs that are not there yet (exit code 2) are as good a reason to try again as a lost worker (exit code 1).
    default_args={"retries": 4, "retry_delay": dt.timedelta(minutes=30)},
):
    label = BashOperator(
        task_id="label",
        bash_command=f"faultline label --input '{LOGS}/{{date}}/*.jsonl.gz' --output '{LABELS}'"
        " --date {{ data_interval_start | ds }} --no-progress",
    )
    report = BashOperator(task_id="report", bash_command=f"faultline report --labels '{LABELS}'")
    label >> report
