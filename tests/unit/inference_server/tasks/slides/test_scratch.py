"""The temporary folder: nothing stays in it, and what it does not take is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from inference_server.errors import Unavailable
from inference_server.tasks.slides import scratch

HELD = """
import time
from inference_server.tasks.slides import scratch
with scratch.folder() as folder:
    (folder / "heatmap.png").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def aged(folder: Path) -> None:
    an_hour_ago = time.time() - 3600
    os.utime(folder, (an_hour_ago, an_hour_ago))


def test_what_a_killed_server_left_is_removed_by_the_next_one_and_what_another_holds_is_not(temporary: Path) -> None:
    other = temporary / "lamina-analysis-of-another-kind"
    other.write_bytes(b"x")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", HELD], stdout=subprocess.PIPE, env=environment, text=True) as server:
        assert server.stdout is not None
        left = Path(server.stdout.readline().strip())
        aged(left)
        with scratch.folder() as mine:
            assert {left, mine, other} == set(temporary.iterdir())
        server.send_signal(signal.SIGKILL)
        server.wait(30)
    # It may be one that somebody has just made and not locked yet.
    os.utime(left)
    with scratch.folder():
        assert left.exists()
    aged(left)
    with scratch.folder() as mine:
        assert {mine, other} == set(temporary.iterdir())
    assert [other] == list(temporary.iterdir())


def test_a_temporary_folder_that_is_gone_is_told(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "nosuch"))
    with pytest.raises(Unavailable, match="TMPDIR"), scratch.folder():
        pass
