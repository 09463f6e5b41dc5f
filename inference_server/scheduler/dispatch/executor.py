"""Runs batches on engines, each instance in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import structlog

from inference_server.engine.port import Engine, KeepsMemory, Tensor
from inference_server.engine.selection.selector import label
from inference_server.errors import DeviceFailed, InferenceError, ModelFailed
from inference_server.models.values import RateLimit
from inference_server.scheduler.dispatch.work import Answer, Run, Work
from inference_server.scheduler.port import Device

_log = structlog.get_logger()
Outcome = Answer | InferenceError
# A batch, what is called when it was run, and what is released when the thread has taken it.
_Task = tuple[tuple[Work, ...], Callable[["Ran"], None], "threading.Lock | None"]
# Longest wait for a thread to take a batch.
_HAND_OVER_SECONDS = 0.001
# Idle seconds after which an engine gives back what its runtime keeps of large runs.
_IDLE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What became of a batch."""

    # One for each of its requests, in their order; None for one that nobody waited for any more when its turn came.
    outcomes: tuple[Outcome | None, ...]
    # Seconds computed, all runs together.
    compute_seconds: float
    # The runs that succeeded: one, or one for each request when the batch as a whole failed.
    runs: tuple[Run, ...]


@dataclass(frozen=True, kw_only=True)
class PlacedEngine:
    """An engine of an instance, and where it runs."""

    engine: Engine
    # cpu or cuda:N.
    device: str
    # What the instance holds while it runs.
    rate: RateLimit = field(default_factory=RateLimit)
    # Runs what the device fails to run; None to let it fail.
    spare: Engine | None = None
    # Why the engine is on the CPU although the model's place is a GPU; empty when it is not so.
    fallback: str = ""


class Instance:
    """One engine and the thread that alone calls it, so that the event loop never computes. Made on the event loop that it answers to."""

    def __init__(self, placed: PlacedEngine, *, name: str, batched: bool) -> None:
        self.placed = placed
        self._batched = batched
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._ended = asyncio.Event()
        # A daemon: a run that never ends must not keep the process from ending.
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def start(self, batch: tuple[Work, ...], finished: Callable[[Ran], None], *, waits: bool = False) -> None:
        """Run a batch; `finished` is called on the event loop.

        `waits`: until the thread has taken it. A thread that wakes while the event loop works gets the interpreter only after a whole
        switch interval, in which no core computes.
        """
        taken = threading.Lock() if waits else None
        if taken is None:
            self._inbox.put((batch, finished, None))
            return
        taken.acquire()
        self._inbox.put((batch, finished, taken))
        taken.acquire(timeout=_HAND_OVER_SECONDS)

    async def close(self) -> None:
        """End the thread after what it runs now: a process that ends while a runtime computes is aborted."""
        self._inbox.put(None)
        await self._ended.wait()

    def _serve(self) -> None:
        while (task := self._next()) is not None:
            batch, finished, taken = task
            if taken is not None:
                taken.release()
            self._tell(finished, run_placed(self.placed, batch, batched=self._batched))
            del task, batch, finished  # or the last batch's tensors would live until the next one comes
        self._tell(self._ended.set)

    def _next(self) -> _Task | None:
        """The next task, None for the end; when none comes for a while, what large runs left is given back."""
        engines: tuple[object, ...] = (self.placed.engine, self.placed.spare)
        keeping = [engine for engine in engines if isinstance(engine, KeepsMemory) and engine.keeps_much]
        try:
            return self._inbox.get(timeout=_IDLE_SECONDS if keeping else None)
        except queue.Empty:
            for engine in keeping:
                engine.give_back()
            return self._inbox.get()

    def _tell(self, call: Callable[..., None], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *values)


def run_placed(placed: PlacedEngine, batch: Sequence[Work], *, batched: bool) -> Ran:
    """Run requests as one batch. Where the device fails, or failed when the model was loaded, the CPU runs it and each answer says so."""
    started = time.monotonic()
    if placed.fallback:
        error = DeviceFailed(f"{label(placed.engine)} is on the CPU: the GPU could not load the model", cause=placed.fallback)
        ran = _run_on_cpu(placed.engine, batch, error, batched=batched)
    else:
        try:
            return run_batch(placed.engine, batch, batched=batched, device_may_fail=placed.spare is not None)
        except DeviceFailed as failed:
            assert placed.spare is not None  # noqa: S101
            error = failed
            _log_failed(placed, batch, error)
            ran = _run_on_cpu(placed.spare, batch, error, batched=batched)
    outcomes = tuple(replace(made, fallback=error.cause) if isinstance(made, Answer) else made for made in ran.outcomes)
    return replace(ran, outcomes=outcomes, compute_seconds=time.monotonic() - started)


def _log_failed(placed: PlacedEngine, batch: Sequence[Work], error: DeviceFailed) -> None:
    barred = sum(work.device is Device.GPU for work in batch)
    for event, requests in (("batch_fails_on_device", barred), ("batch_falls_back_to_cpu", len(batch) - barred)):
        if requests:
            _log.warning(event, requests=requests, engine=label(placed.engine), reason=str(error))


def _run_on_cpu(engine: Engine, batch: Sequence[Work], error: DeviceFailed, *, batched: bool) -> Ran:
    """What the device has not run, on the CPU; `error` for requests that nothing but the device may run."""
    spared = [work for work in batch if work.device is not Device.GPU]
    if not spared:
        return Ran(outcomes=(error,) * len(batch), compute_seconds=0.0, runs=())
    ran = run_batch(engine, spared, batched=batched)
    outcomes = iter(ran.outcomes)
    return replace(ran, outcomes=tuple(error if work.device is Device.GPU else next(outcomes) for work in batch))


def run_batch(engine: Engine, batch: Sequence[Work], *, batched: bool, device_may_fail: bool = False) -> Ran:
    """Run requests as one batch. When that fails, run them one at a time, so that the one at fault fails alone.

    Raises `DeviceFailed` when `device_may_fail` and the device fails the batch.
    """
    start = time.monotonic()
    try:
        outcomes: tuple[Outcome | None, ...] = _together(engine, batch, batched=batched)
    except ModelFailed as error:
        if device_may_fail and isinstance(error, DeviceFailed):
            raise
        if len(batch) == 1:
            if isinstance(error, DeviceFailed):
                _log.warning("batch_fails_on_device", requests=1, engine=label(engine), reason=str(error))
            outcomes = (error,)
        else:
            _log.warning("batch_failed_retrying_singly", requests=len(batch), engine=label(engine), reason=str(error))
            outcomes = tuple(_alone(engine, work, batched=batched) for work in batch)
    runs = {id(outcome.run): outcome.run for outcome in outcomes if isinstance(outcome, Answer)}
    return Ran(outcomes=outcomes, compute_seconds=time.monotonic() - start, runs=tuple(runs.values()))


def _alone(engine: Engine, work: Work, *, batched: bool) -> Outcome | None:
    if work.future.done() or (work.deadline is not None and work.deadline <= time.monotonic()):
        return None
    try:
        return _together(engine, (work,), batched=batched)[0]
    except ModelFailed as error:
        return error


def _together(engine: Engine, batch: Sequence[Work], *, batched: bool) -> tuple[Answer, ...]:
    started = time.monotonic()
    try:
        inputs = _stacked(batch)
        stacked = time.monotonic()
        outputs = engine.run(inputs, _wanted(batch))
        computed = time.monotonic()
        parts = _split(outputs, batch) if batched else (outputs,)
    except InferenceError:
        raise
    except Exception as error:  # a defect of an engine must cost its batch only, never the thread
        _log.exception("engine_defect", engine=label(engine))
        raise ModelFailed(f"{label(engine)} failed to run the model: {type(error).__name__}") from error
    ended = time.monotonic()
    run = Run(
        rows=sum(work.rows for work in batch),
        input_seconds=stacked - started,
        infer_seconds=computed - stacked,
        output_seconds=ended - computed,
    )
    return tuple(
        Answer(outputs=_chosen(part, work.outputs), engine=label(engine), started=started, compute_seconds=ended - started, run=run)
        for part, work in zip(parts, batch, strict=True)
    )


def _stacked(batch: Sequence[Work]) -> dict[str, Tensor]:
    if len(batch) == 1:
        # Elements that lie where the message had them may be at any address, and runtimes take only whole multiples of their size.
        return {name: tensor if tensor.flags.aligned else tensor.copy() for name, tensor in batch[0].inputs.items()}
    return {name: np.concatenate([work.inputs[name] for work in batch]) for name in batch[0].inputs}


def _wanted(batch: Sequence[Work]) -> tuple[str, ...]:
    """The outputs that anyone wants; empty, for all, as soon as one wants all."""
    if not all(work.outputs for work in batch):
        return ()
    return tuple(dict.fromkeys(name for work in batch for name in work.outputs))


def _split(outputs: dict[str, Tensor], batch: Sequence[Work]) -> Iterable[dict[str, Tensor]]:
    """Each request's rows, as views."""
    rows = sum(work.rows for work in batch)
    for name, output in outputs.items():
        if output.shape[:1] != (rows,):
            raise ModelFailed(
                f"output {name} has the shape {list(output.shape)} for a batch of {rows}; expected {rows} rows first: "
                "set max_batch_size to 0 in config.pbtxt if the first dimension is no batch"
            )
    parts = []
    begin = 0
    for work in batch:
        parts.append({name: output[begin : begin + work.rows] for name, output in outputs.items()})
        begin += work.rows
    return parts


def _chosen(outputs: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: outputs[name] for name in names} if names else outputs
