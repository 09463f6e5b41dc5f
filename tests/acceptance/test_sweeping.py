"""What an inference server clears away beside its work does not hold it when it is to leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.models.small_models import write_small_repository

# A server on whose staging folder the store hangs, as one of the network may.
_SERVER = """
import asyncio, dataclasses, sys, time
from inference_server.app import compose
from inference_server.settings import Settings

async def main():
    places = {"models": sys.argv[1], "listen": "127.0.0.1:0", "http": "127.0.0.1:0"}
    settings = Settings.load(**places, services="labs", grace_seconds=0, drain_seconds=0)
    swept = []
    application = dataclasses.replace(compose(settings), sweeps=[lambda: swept.append(1), lambda: time.sleep(600)])
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(1, stop.set)
    await application.run(stop, asyncio.Event())
    print("swept", swept, flush=True)

asyncio.run(main())
"""


def test_a_sweep_that_hangs_does_not_keep_a_server_from_leaving(tmp_path: Path) -> None:
    write_small_repository(tmp_path / "models")
    command = [sys.executable, "-c", _SERVER, str(tmp_path / "models")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=Path(__file__).parents[2])
    # A model that was still being loaded may tell so after it.
    told = [line for line in done.stdout.splitlines() if line.startswith("swept")]
    assert (0, ["swept [1]"]) == (done.returncode, told), done.stderr
