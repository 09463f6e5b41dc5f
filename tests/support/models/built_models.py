"""The built-in models, built once and kept between runs."""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from pathlib import Path

from inference_server.models.builders import BUILDERS
from inference_server.tasks.labs.catalogue.catalogue import FOLDER

_CACHE = Path(__file__).parents[3] / ".cache"
_FOLDER = _CACHE / "test-models"
_SHARES = _CACHE / "test-models-by-name"


def built_models(*names: str) -> Path:
    """The folder of a repository of the models named alone, or of all of them. Test processes wait for each other.

    A server loads and measures whatever its repository holds: one of all models would take the longer, the more tests ran before.
    """
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in names or tuple(BUILDERS):
            BUILDERS[name](_FOLDER)
        return _share(names) if names else _FOLDER


def _share(names: Sequence[str]) -> Path:
    folder = _SHARES / "+".join(sorted(names))
    folder.mkdir(parents=True, exist_ok=True)
    # What is made of the catalogue is kept for all.
    (_FOLDER / FOLDER).mkdir(exist_ok=True)
    for name in (*names, FOLDER):
        if not (folder / name).exists():
            (folder / name).symlink_to(_FOLDER / name)
    return folder
