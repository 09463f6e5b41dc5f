"""A server of documents alone, for as long as something is measured."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference_server.models.builders import BUILDERS
from tests.support.inference_server.server_process import ServerProcess, running_server


@contextmanager
def document_server() -> Iterator[ServerProcess]:
    """`inference-server serve --services documents` with its own models, once it is ready."""
    with tempfile.TemporaryDirectory() as name:
        models = Path(name) / "models"
        models.mkdir()
        for model in ("ppocrv6_small_det", "ppocrv6_small_rec"):
            BUILDERS[model](models)
        with running_server(models, Path(name), "--services", "documents") as server:
            server.wait_for("ready", seconds=120)
            yield server
