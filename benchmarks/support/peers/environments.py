"""Installs a peer from its locked requirements into an environment of its own, kept under `.cache/peers`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[3]
# What a peer runs, in its own environment: workers of queues and slides, and models of model servers.
WORKERS = Path(__file__).with_name("workers")
MODELS = Path(__file__).with_name("models")
_CACHE = _ROOT / ".cache" / "peers"


class PeerMissing(Exception):
    """A peer cannot be installed or started here, and why."""


def environment(peer: str) -> Path:
    """The Python that has a peer, installed once and kept. Raises `PeerMissing`."""
    requirements = _ROOT / "requirements" / f"peers-{peer}.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = _CACHE / peer / key
    python = folder / "bin" / "python"
    if (folder / ".installed").exists():
        return python
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        raise PeerMissing(f"{peer}: uv is not installed beside this Python; run make setup")
    for step in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder],
        [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", requirements],
    ):
        done = subprocess.run(step, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise PeerMissing(f"{peer} cannot be installed: {done.stderr.strip()[-300:]}")
    (folder / ".installed").touch()
    return python
