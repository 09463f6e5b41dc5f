"""Dramatiq's worker. Run as a program, it sends the jobs that are named by a prefix."""

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from job_table import record

dramatiq.set_broker(RedisBroker(url=os.environ["PEER_BROKER"]))


@dramatiq.actor(max_retries=0)
def work(key: str) -> None:
    """Do one job."""
    record(key)


if __name__ == "__main__":
    prefix, count = sys.argv[1], int(sys.argv[2])
    for number in range(count):
        work.send(f"{prefix}{number}")
