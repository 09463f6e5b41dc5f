"""The temporary folder: nothing stays in it, and what it does not take is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
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


def test_what_a_killed_server_left_is_removed_by_the_next_one_and_what_another_holds_is_not(temporary: Path) -> None:
    other = temporary / "lamina-analysis-of-another-kind"
    other.write_bytes(b"x")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", HELD], stdout=subprocess.PIPE, env=environment, text=True) as server:
        assert server.stdout is not None
        left = Path(server.stdout.readline().strip())
        scratch.sweep()
        assert {left, other} == set(temporary.iterdir())
        server.send_signal(signal.SIGKILL)
        server.wait(30)
    assert (left / "heatmap.png").exists()
    scratch.sweep()
    assert [other] == list(temporary.iterdir())
    with scratch.folder() as mine:
        assert {mine, other} == set(temporary.iterdir())
    assert [other] == list(temporary.iterdir())


def test_a_folder_whose_making_or_removal_was_cut_short_is_removed_too(temporary: Path) -> None:
    left = temporary / "lamina-analysis-unlocked"
    left.mkdir()
    (left / "heatmap.png").write_bytes(b"x")
    scratch.sweep()
    assert not left.exists()


def test_nothing_is_removed_through_a_link(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (temporary / "lamina-analysis-link").symlink_to(elsewhere)
    scratch.sweep()
    assert elsewhere.exists()
    assert not list(elsewhere.iterdir())


def test_a_temporary_folder_that_is_gone_is_told(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "nosuch"))
    with pytest.raises(Unavailable, match="TMPDIR"), scratch.folder():
        pass
