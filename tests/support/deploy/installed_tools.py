"""Programs from the package registry in environments of their own: they pin other versions than we use."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

from tests.support.skipping import skip_or_fail

_ROOT = Path(__file__).parents[3]
_CACHE = _ROOT / ".cache" / "tools"
_INSTALL_SECONDS = 180


def tool(name: str) -> str:
    """The program of this name, from requirements/NAME.txt; installed once for these requirements.

    Skips the test visibly where it cannot be had; in CI it fails.
    """
    requirements = _ROOT / "requirements" / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = _CACHE / f"{name}-{digest}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".installed").exists():
            _install(folder, requirements)
            (folder / ".installed").touch()
    return str(folder / "bin" / name)


def _install(folder: Path, requirements: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    steps: tuple[list[str | Path], ...] = (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder],
        [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", folder / "bin" / "python", requirements],
    )
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
            reason = done.stderr if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        if reason:
            skip_or_fail(f"{requirements.name} cannot be installed; is the package registry within reach? {reason.strip()[-300:]}")
