"""An emulator of SQS, SNS and S3 as its own process, out of a wheel, in an environment of its own: it pins other versions than we use."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.child_processes import wait_or_kill
from tests.support.ports import free_port
from tests.support.skipping import skip_or_fail

_ROOT = Path(__file__).parents[3]
_REQUIREMENTS = _ROOT / "requirements" / "ministack.txt"
_CACHE = _ROOT / ".cache" / "ministack"
_SERVICES = "s3,sqs,sns,ssm,sts"
_INSTALL_SECONDS = 120
_START_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Ministack:
    """A running emulator."""

    # http://127.0.0.1:port
    endpoint: str

    def environment(self) -> dict[str, str]:
        """What programs need to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def running_ministack(folder: Path) -> Iterator[Ministack]:
    """Start one on a free port, with nothing in it. Skips the test visibly where it cannot be installed; fails it in CI."""
    program = _installed()
    port = free_port()
    environment = {**os.environ, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SERVICES": _SERVICES}
    with (folder / "ministack.log").open("wb") as log:
        process = subprocess.Popen([program], stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
    try:
        _wait_until_ready(port, process)
        yield Ministack(endpoint=f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        wait_or_kill(process, seconds=5)


def _installed() -> str:
    """The program, installed once for these requirements. Test processes wait for each other."""
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = _CACHE / f"{digest}-{sys.version_info.major}.{sys.version_info.minor}"
    program, done = folder / "bin" / "ministack", folder / "installed"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _install(folder)
            done.touch()
    return str(program)


def _install(folder: Path) -> None:
    uv = str(Path(sys.executable).parent / "uv")
    commands = (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(folder / "bin" / "python"), str(_REQUIREMENTS)],
    )
    for command in commands:
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
            reason = ended.stderr if ended.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        if reason:
            skip_or_fail(f"ministack could not be installed; is the package registry within reach? {reason.strip()[-500:]}")


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_ministack/health", timeout=2) as answer:
                json.load(answer)
                return
        except (OSError, urllib.error.URLError, ValueError):
            time.sleep(0.05)
    raise AssertionError("ministack did not become ready")
