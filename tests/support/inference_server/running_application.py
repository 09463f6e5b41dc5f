"""The whole server in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from inference_server.app import compose
from inference_server.application import Application
from inference_server.settings import Settings


@asynccontextmanager
async def running_application(models: Path, folder: Path, **settings: Any) -> AsyncIterator[Application]:
    """A server on free ports whose models are loaded; its caches go to `folder`."""
    defaults = {"listen": "127.0.0.1:0", "http": "127.0.0.1:0", "engine": "onnxruntime", "grace_seconds": 0}
    application = compose(Settings.load(models=models, engine_cache=folder / "engines", **{**defaults, **settings}))
    stop, hurry = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(application.run(stop, hurry))
    while not application.lifecycle.ready:
        await asyncio.sleep(0.02)
    try:
        yield application
    finally:
        stop.set()
        await running
