"""Engines that were built before they serve, kept on disk by all that they depend on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference_server.engine.tensorrt.profiles import Profile, read_profile, written
from inference_server.errors import ConfigurationError

PLAN_FILE = "model.plan"
_RECIPE_FILE = "recipe.json"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that an engine is built from and for."""

    # What serves it: tensorrt, or onnxruntime-tensorrt.
    engine: str
    precision: str
    # The ONNX file, and the SHA-256 of it with whatever lies beside it.
    path: Path
    digest: str
    # Of the runtimes that build it.
    version: str
    # Of the GPU, such as 9.0, and its number.
    compute_capability: str
    device: int
    # Ranges of shapes, each a bucket.
    profiles: tuple[Profile, ...]
    # The owner's own, in the runtime's names.
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Engine and precision, as pins write them."""
        return f"{self.engine}:{self.precision}"

    @property
    def key(self) -> str:
        """Tells one built engine from another; where the model lies and which of equal GPUs builds it make none."""
        return hashlib.sha256(json.dumps(self._parts(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """For the process that builds."""
        return json.dumps(self._parts() | {"path": str(self.path), "device": self.device})

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The reverse of `to_json`."""
        parts: dict[str, Any] = json.loads(text)
        profiles = tuple(map(read_profile, parts.pop("profiles")))
        return cls(**parts | {"path": Path(parts["path"]), "profiles": profiles})

    def _parts(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "precision": self.precision,
            "digest": self.digest,
            "version": self.version,
            "compute_capability": self.compute_capability,
            "profiles": [written(profile) for profile in self.profiles],
            "options": dict(self.options),
        }


class PlanCache:
    """A folder of built engines, each in a folder that is whole or not there, and of the timings that make the next build quicker."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, recipe: Recipe) -> Path | None:
        """The folder of a built engine; None when there is none."""
        folder = self._folder(recipe)
        return folder if (folder / _RECIPE_FILE).is_file() else None

    def timing_cache(self, recipe: Recipe) -> Path:
        """The file of TensorRT's timings, which differ by its version and the kind of GPU."""
        return self._root / "timings" / f"{recipe.version.replace('/', '_')}-{recipe.compute_capability}.bin"

    @contextmanager
    def building(self, recipe: Recipe) -> Iterator[Path | None]:
        """A folder to build into, taken into the cache at the end, at once and whole; None when another process has built it meanwhile."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / f".{recipe.key[:32]}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self._root.glob(f".{recipe.key[:32]}-*"):  # by a build that was killed: whoever holds the lock is alone
                shutil.rmtree(left, ignore_errors=True)
            if self.find(recipe):
                yield None
                return
            scratch = Path(tempfile.mkdtemp(prefix=f".{recipe.key[:32]}-", dir=self._root))
            try:
                yield scratch
                (scratch / _RECIPE_FILE).write_text(recipe.to_json(), encoding="utf-8")
                shutil.rmtree(self._folder(recipe), ignore_errors=True)
                scratch.rename(self._folder(recipe))
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def keep_profiles(self, digest: str, profiles: Sequence[Profile]) -> None:
        """Have a model built for these ranges, whatever its configuration says."""
        self._write(self._profiles(digest), json.dumps([written(profile) for profile in profiles]).encode())

    def kept_profiles(self, digest: str) -> tuple[Profile, ...]:
        """What was kept of a model; none where nothing was."""
        try:
            return tuple(map(read_profile, json.loads(self._profiles(digest).read_text(encoding="utf-8"))))
        except (OSError, ValueError, ConfigurationError):
            return ()

    def write_timings(self, recipe: Recipe, content: bytes) -> None:
        """Put timings in the place of those there were; readers see either, whole."""
        self._write(self.timing_cache(recipe), content)

    def _profiles(self, digest: str) -> Path:
        return self._root / "profiles" / f"{digest[:32]}.json"

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            file.write(content)
        Path(file.name).replace(path)

    def _folder(self, recipe: Recipe) -> Path:
        return self._root / recipe.key[:32]
