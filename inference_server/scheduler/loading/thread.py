"""The thread in which the repository is read and models are loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from inference_server.errors import InferenceError, ModelFailed

_log = structlog.get_logger()
T = TypeVar("T")


class LoadThread:
    """Runs one call after another: a load measures engines, and two would disturb each other."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-loader")

    async def run(self, call: Callable[[], T]) -> T:
        """What a call returns. Raises `InferenceError`; `ModelFailed` for a defect: that of one model must not stop the others."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except (InferenceError, asyncio.CancelledError):
            raise
        except Exception as error:
            _log.exception("model_load_defect")
            raise ModelFailed(f"loading failed unexpectedly: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Begin nothing more; what runs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
