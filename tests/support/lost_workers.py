"""How a worker of pytest-xdist ended that was lost.

The fault handler is silent of one that was killed or ended itself, and of one whose stack ran over in another thread than the first.
"""

from __future__ import annotations

import signal
import subprocess
from datetime import datetime
from typing import Any

import pytest

# A worker's pipes are closed before it has ended; one that lives on is told as such.
_END_SECONDS = 10.0


class LostWorkers:
    """Of the process that the workers report to."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        # Tests that were begun and have not ended, of all workers.
        self._running: list[str] = []

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running.append(nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.remove(nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str) -> None:
        # The first that the worker was to run, which it may not have begun.
        if crashitem in self._running:
            self._running.remove(crashitem)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Tell its signal or exit status, when that was, and the tests that ran then."""
        if not error:
            return
        process: subprocess.Popen[bytes] = node.gateway._io.popen
        told = f"[{node.gateway.id}] {_ending(process)} at {datetime.now():%H:%M:%S}; running: {', '.join(self._running) or 'no test'}"
        self._config.get_terminal_writer().line(f"\n{told}")


def _ending(process: subprocess.Popen[bytes]) -> str:
    try:
        status = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        return f"process {process.pid} no longer answers, but has not ended"
    if status < 0:
        return f"process {process.pid} was ended by signal {-status} ({signal.strsignal(-status)})"
    return f"process {process.pid} ended with status {status}"
