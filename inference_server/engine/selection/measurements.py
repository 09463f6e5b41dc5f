"""What was measured of the engines for one model, kept on disk so that a restart need not measure again."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How one candidate did on the sample."""

    # As engine:precision.
    candidate: str
    # Of a warm run, without waits for a core, at the pace that the machine had for the first candidate; infinity when it could not be
    # loaded or run.
    seconds: float
    # Deviation from the reference; infinity when it could not be loaded or run.
    error: float
    # Why it could not be loaded or run; empty when it could.
    failure: str = ""


class MeasurementCache:
    """A folder with one small file for each model, machine and set of runtimes.

    A file that is damaged or of another key is ignored, and a folder that cannot be written costs only the time to measure again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: Mapping[str, Any]) -> tuple[Measurement, ...]:
        """What was measured under a key; empty when nothing was."""
        path = self._path(key)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["key"] != key:
                return ()
            return tuple(_measurement(entry) for entry in content["measurements"])
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("engine_measurements_ignored", file=path.name, reason=str(error))
            return ()

    def write(self, key: Mapping[str, Any], measurements: tuple[Measurement, ...]) -> None:
        """Keep measurements under a key; readers see the old file or the new one, whole."""
        content = json.dumps({"key": key, "measurements": [asdict(measurement) for measurement in measurements]}, indent=1)
        path = self._path(key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, suffix=".tmp", delete=False, encoding="utf-8") as file:
                file.write(content)
            Path(file.name).replace(path)
        except OSError as error:
            _log.warning("engine_measurements_not_kept", file=path.name, reason=str(error))

    def _path(self, key: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{digest[:32]}.json"


def _measurement(entry: Mapping[str, Any]) -> Measurement:
    return Measurement(
        candidate=str(entry["candidate"]),
        seconds=float(entry["seconds"]),
        error=float(entry["error"]),
        failure=str(entry["failure"]),
    )
