"""A second run of a session of ONNX Runtime beside another, each on one of its two threads: nothing is in memory twice."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from inference_server.engine.port import Tensor, Tensors


def run_on_worker(session: Any, names: Sequence[str], inputs: Tensors, options: Any = None) -> list[Tensor]:
    """Like `session.run`, but on the thread that a session of two threads has beside its callers'; waits for it.

    A run on that thread finds no other to share its loops with, and computes alone. One that `session.run` is asked for meanwhile has
    only its caller's thread, and both from its next loop on when this one has ended.
    """
    told: list[tuple[list[Tensor], str]] = []

    def tell(outputs: list[Tensor], _: object, error: str) -> None:
        told.append((outputs, error))

    # The runtime lets go of `tell` last, also where it could not call it. A session that is freed waits for its thread with the
    # interpreter in its hands; so nothing may be waited for that the thread does in Python.
    gone: SimpleQueue[object] = SimpleQueue()
    held = weakref.ref(tell, gone.put)
    session.run_async(list(names), inputs, tell, None, options)
    del tell
    gone.get()
    del held
    outputs, error = told.pop() if told else ([], "the outputs could not be handed over")
    if error:
        raise RuntimeError(error)
    return outputs
