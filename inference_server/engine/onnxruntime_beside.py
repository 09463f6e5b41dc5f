"""A second run of a session of ONNX Runtime beside another, each on one of its two threads: nothing is in memory twice."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from inference_server.engine.port import Tensor, Tensors


def run_on_worker(session: Any, names: Sequence[str], inputs: Tensors, options: Any = None) -> list[Tensor]:
    """Like `session.run`, but on the thread that a session of two threads has beside its callers'; waits for it.

    A run on that thread finds no other to share its loops with, and so computes alone. One that `session.run` is asked for meanwhile
    has only its caller's thread, and both again at the next loop after this one has ended.
    """
    ended = threading.Lock()
    ended.acquire()
    told: list[tuple[list[Tensor], str]] = []

    def end(outputs: list[Tensor], _: object, error: str) -> None:
        told.append((outputs, error))
        ended.release()

    session.run_async(list(names), inputs, end, None, options)
    ended.acquire()
    outputs, error = told.pop()
    if error:
        raise RuntimeError(error)
    return outputs
