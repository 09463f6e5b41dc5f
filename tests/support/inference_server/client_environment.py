"""Environments of their own for outside clients, of which those in Python hold protobuf at an older version, and for tools of tests."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.skipping import skip_or_fail

_ROOT = Path(__file__).parents[3]
_REQUIREMENTS = _ROOT / "requirements" / "clients.txt"
_SCRIPTS = _ROOT / "tests" / "clients"
_CACHE = _ROOT / ".cache" / "clients"


def python_environment(requirements: Path) -> Path:
    """A folder with an environment in which what a file locks is installed.

    Skips the test when it cannot be installed, as without a network; in CI it fails.
    """
    return _installed(requirements, sys.version, lambda folder: _install_python(requirements, folder))


def run_python_client(script: str, *arguments: str) -> str:
    """Run a script of tests/clients with the Python clients installed; what it printed. Skips as `python_environment` does."""
    folder = python_environment(_REQUIREMENTS)
    return _run(folder / "bin" / "python", _SCRIPTS / script, *arguments)


def run_node_client(*arguments: str) -> str:
    """Run tests/clients/grpc_js/client.js; skips as `python_environment` does, and everywhere without Node.js."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node.js is not installed; this project does not need it")
    source = _SCRIPTS / "grpc_js"
    folder = _installed(source / "package-lock.json", str(node), lambda folder: _install_node(str(npm), source, folder))
    shutil.copy(source / "client.js", folder)
    return _run(str(node), folder / "client.js", *arguments, str(_ROOT / "proto"))


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, f"{command[1]} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _installed(lock_file: Path, platform: str, install: Callable[[Path], None]) -> Path:
    """The folder of what is installed from a lock file, once for each content of it; test processes wait for each other."""
    folder = _CACHE / hashlib.sha256(lock_file.read_bytes() + platform.encode()).hexdigest()[:16]
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".installed").exists():
            install(folder)
            (folder / ".installed").touch()
    return folder


def _install_python(requirements: Path, folder: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        skip_or_fail("uv is not installed beside this Python: run make setup")
    _step([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder])
    _step([uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", "--require-hashes", "-r", requirements])


def _install_node(npm: str, source: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, folder)
    _step([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder])


def _step(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        skip_or_fail(f"what this test needs cannot be installed: {done.stderr.strip()[-300:]}")
