from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Neither leaves a dump: a signal that nothing can catch, and an end that a library decides on.
_ENDS = {
    "was ended by signal 9 (Killed)": "os.kill(os.getpid(), signal.SIGKILL)",
    "ended with status 3": "os._exit(3)",
}
_CONFTEST = """
from tests.support.lost_workers import LostWorkers

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(LostWorkers(config))
"""


@pytest.mark.parametrize("told", sorted(_ENDS))
def test_how_a_lost_worker_ended_is_told_with_the_tests_that_ran(tmp_path: Path, told: str) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    deadly = f"def test_deadly(): {_ENDS[told]}\ndef test_deadly_too(): {_ENDS[told]}\n"
    (tmp_path / "test_ends.py").write_text(f"import os, signal\ndef test_good(): pass\n{deadly}")
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=100)
    lines = [line for line in done.stdout.splitlines() if told in line]
    assert ["[gw0] process", "[gw1] process"] == [line[:13] for line in lines], done.stdout
    assert ["test_ends.py::test_deadly", "test_ends.py::test_deadly_too"] == [line.partition("; running: ")[2] for line in lines]
    assert "2 failed, 1 passed" in done.stdout
