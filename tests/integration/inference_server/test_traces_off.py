"""A server that sends no traces has nothing of OpenTelemetry in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

COMPOSE = """
import asyncio
import sys
{before}
from pathlib import Path
from inference_server.app import compose
from inference_server.errors import ConfigurationError
from inference_server.settings import Settings
folder = Path({folder!r})
settings = Settings.load(models=folder, engine_cache=folder, listen="127.0.0.1:0", http="127.0.0.1:0", {settings})


async def main():
    compose(settings)


try:
    asyncio.run(main())
except ConfigurationError as error:
    sys.exit(f"refused: {{error}}")
print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
"""


def _compose(folder: Path, *, settings: str = "", before: str = "") -> subprocess.CompletedProcess[str]:
    script = COMPOSE.format(folder=str(folder), settings=settings, before=before)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)


def test_nothing_of_it_is_imported_while_traces_are_sent_nowhere(tmp_path: Path) -> None:
    for settings in ("", "otlp_endpoint='http://127.0.0.1:1', otlp_disabled=True"):
        done = _compose(tmp_path, settings=settings)
        assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_server_that_lacks_it_says_what_to_install(tmp_path: Path) -> None:
    done = _compose(tmp_path, settings="otlp_endpoint='http://127.0.0.1:1'", before="sys.modules['opentelemetry'] = None")
    assert done.returncode == 1
    assert "refused: INFERENCE_OTLP_ENDPOINT (--otlp-endpoint): traces need OpenTelemetry" in done.stderr
    assert "lamina[otel]" in done.stderr
