"""The one loop: receive → claim → handle → commit → acknowledge; and how it drains."""

from bridge.worker.fates import FATES, Fate, fate_of
from bridge.worker.loop import Worker
from bridge.worker.policy import Backoff, Desk, WorkPolicy

__all__ = ["FATES", "Backoff", "Desk", "Fate", "WorkPolicy", "Worker", "fate_of"]
