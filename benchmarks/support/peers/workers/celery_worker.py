"""Celery's worker: late acknowledgement, no job taken ahead, no results. Run as a program, it sends the jobs that are named by a prefix."""

import os
import sys

from celery import Celery
from job_table import record

app = Celery("celery_worker", broker=os.environ["PEER_BROKER"])
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="work")
def work(key: str) -> None:
    """Do one job."""
    record(key)


if __name__ == "__main__":
    prefix, count = sys.argv[1], int(sys.argv[2])
    for number in range(count):
        work.delay(f"{prefix}{number}")
