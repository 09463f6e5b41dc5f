"""A server that is ready is not held up by collections of what it has loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.models.small_models import write_small_repository

# A server that leaves by itself once the garbage collector looks no more at what it has loaded, or after a while.
_SERVER = """
import asyncio, gc, os, signal, sys, threading, time
from inference_server.app import serve
from inference_server.settings import Settings

def leave():
    until = time.monotonic() + 60
    while not gc.get_freeze_count() and time.monotonic() < until:
        time.sleep(0.05)
    print("left to themselves:", gc.get_freeze_count() > len(gc.get_objects()), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=leave, daemon=True).start()
places = {"models": sys.argv[1], "listen": "127.0.0.1:0", "http": "127.0.0.1:0"}
asyncio.run(serve(Settings.load(**places, services="labs", grace_seconds=0, drain_seconds=0)))
"""


def test_most_objects_of_a_server_that_is_ready_are_looked_at_no_more(tmp_path: Path) -> None:
    write_small_repository(tmp_path / "models")
    command = [sys.executable, "-c", _SERVER, str(tmp_path / "models")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2])
    assert (0, True) == (done.returncode, "left to themselves: True" in done.stdout), done.stderr
