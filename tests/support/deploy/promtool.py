"""Prometheus' own checker of rules: this machine's, or the one in Debian's package, taken out of it without installing it."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

_CACHE = Path(__file__).parents[3] / ".cache" / "promtool"
_DOWNLOAD_SECONDS = 120


def promtool() -> str:
    """The program. Skips the test visibly where there is none; nothing else in this project needs it."""
    if found := shutil.which("promtool"):
        return found
    program = _CACHE / "usr" / "bin" / "promtool"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _unpack()
    return str(program)


def _unpack() -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("promtool is not on this machine: it comes with Prometheus")
    try:
        subprocess.run(
            ["apt-get", "download", "--quiet", "prometheus"], cwd=_CACHE, check=True, capture_output=True, timeout=_DOWNLOAD_SECONDS
        )
        [package] = _CACHE.glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, _CACHE], check=True, capture_output=True, timeout=_DOWNLOAD_SECONDS)
        package.unlink()
    except (subprocess.SubprocessError, ValueError) as error:
        pytest.skip(f"promtool is not on this machine, and Debian's package of Prometheus could not be had: {error}")
