"""A graph of models that serves like one: each step is a request of its own, queued and batched with all others of its model."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from inference_server.engine.port import Tensor, TensorSpec
from inference_server.errors import ConfigurationError, InferenceError, Unavailable
from inference_server.models.ensembles import Step
from inference_server.models.repository import ModelFolder
from inference_server.models.values import ConfigMessage, TensorConfig
from inference_server.scheduler.metrics.scheduler import ModelMetrics, outcome_of
from inference_server.scheduler.metrics.statistics import CANCELED, Statistics, reason_of
from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse, ModelFacts
from inference_server.scheduler.validation import Signature

ENGINE = "ensemble"
_Infer = Callable[[InferenceRequest], Awaitable[InferenceResponse]]


@dataclass(kw_only=True)
class _Progress:
    """One request on its way through the graph."""

    caller: Caller
    tensors: dict[str, Tensor]
    # Set when the tensor is there.
    there: Mapping[str, asyncio.Event]
    responses: list[InferenceResponse] = field(default_factory=list)


class ServedEnsemble:
    """A graph that was checked against the models that it is made of.

    `infer`: runs a step. `facts`: tells what serves under a name and version, and raises where nothing does. Raises `ConfigurationError`.
    """

    def __init__(
        self, folder: ModelFolder, version: str, *, infer: _Infer, facts: Callable[[str, str], ModelFacts], metrics: ModelMetrics
    ) -> None:
        self.steps = folder.configuration.steps
        self.facts = checked_facts(folder, version, facts)
        self.config = _complete(folder)
        self.labels = folder.labels
        self.statistics = Statistics(model=folder.name, version=version)
        self._infer = infer
        self._metrics = metrics
        taken = {"inputs": self.facts.inputs, "outputs": self.facts.outputs}
        self._signature = Signature(folder.name, **taken, max_batch_size=self.facts.max_batch_size)
        self._open = True
        self._running = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def pending(self) -> int:
        """None: what waits, waits for one of its models."""
        return 0

    @property
    def caches(self) -> bool:
        """Its models may keep answers; it does not."""
        return False

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Run one request through the graph; see `port.Inference`. When a step fails, the others leave their queues."""
        began = time.monotonic()
        try:
            response, rows = await self._run(request)
        except InferenceError as error:
            self._metrics.ended(outcome_of(error))
            self.statistics.failed(time.monotonic() - began, reason=reason_of(error))
            raise
        except asyncio.CancelledError:
            self._metrics.ended("cancelled")
            self.statistics.failed(time.monotonic() - began, reason=CANCELED)
            raise
        self._metrics.ended("success")
        self.statistics.inference_count += rows
        self.statistics.execution_count += 1
        self.statistics.success.add(time.monotonic() - began)
        return response

    async def close(self, *, grace_seconds: float) -> None:
        """Refuse what comes and let what is there finish within the grace."""
        self._open = False
        try:
            await asyncio.wait_for(self._empty.wait(), grace_seconds)
        except TimeoutError:
            return

    async def _run(self, request: InferenceRequest) -> tuple[InferenceResponse, int]:
        if not self._open:
            raise Unavailable(f"model {self.facts.name} is being stopped; try again")
        measured = self._signature.check(request.inputs, request.outputs)
        self.statistics.admitted()
        self._running += 1
        self._empty.clear()
        try:
            return await self._through(request), measured.rows
        finally:
            self._running -= 1
            if not self._running:
                self._empty.set()

    async def _through(self, request: InferenceRequest) -> InferenceResponse:
        made = [tensor for step in self.steps for tensor in step.outputs.values()]
        there = {tensor: asyncio.Event() for tensor in (*request.inputs, *made)}
        for tensor in request.inputs:
            there[tensor].set()
        progress = _Progress(caller=request.caller, tensors=dict(request.inputs), there=there)
        try:
            async with asyncio.TaskGroup() as group:
                for step in self.steps:
                    group.create_task(self._step(step, progress))
        except ExceptionGroup as failures:
            raise _first(failures) from failures
        wanted = request.outputs or tuple(spec.name for spec in self.facts.outputs)
        return InferenceResponse(
            model=self.facts.name,
            version=self.facts.version,
            outputs={name: progress.tensors[name] for name in wanted},
            engine=ENGINE,
            queue_seconds=sum(response.queue_seconds for response in progress.responses),
            compute_seconds=sum(response.compute_seconds for response in progress.responses),
            fallback="; ".join(dict.fromkeys(response.fallback for response in progress.responses if response.fallback)),
        )

    async def _step(self, step: Step, progress: _Progress) -> None:
        for tensor in step.inputs.values():
            await progress.there[tensor].wait()
        response = await self._infer(
            InferenceRequest(
                model=step.model,
                version=step.version,
                inputs={name: progress.tensors[tensor] for name, tensor in step.inputs.items()},
                outputs=tuple(step.outputs),
                caller=progress.caller,
            )
        )
        progress.responses.append(response)
        for name, tensor in step.outputs.items():
            progress.tensors[tensor] = response.outputs[name]
            progress.there[tensor].set()


def checked_facts(folder: ModelFolder, version: str, facts_of: Callable[[str, str], ModelFacts]) -> ModelFacts:
    """What is known of a graph. Raises `ConfigurationError` where a step's model does not serve, or the tensors do not fit."""
    configuration = folder.configuration
    most = configuration.max_batch_size or 0
    inputs, outputs = _specs(configuration.inputs, most), _specs(configuration.outputs, most)
    tensors = {spec.name: spec for spec in inputs}
    digest = hashlib.sha256(configuration.message.SerializeToString(deterministic=True))
    instances = 0
    for step in configuration.steps:
        try:
            facts = facts_of(step.model, step.version)
        except InferenceError as error:
            raise ConfigurationError(f"ensemble {folder.name} cannot use {step.model}: {error}") from error
        if most > facts.max_batch_size:
            raise ConfigurationError(
                f"ensemble {folder.name} has max_batch_size {most}; its model {step.model} takes {facts.max_batch_size}"
            )
        tensors |= _connected(folder.name, step, facts, tensors)
        digest.update(facts.sha256.encode())
        instances += facts.instances
    for spec in outputs:
        _check_fit(f"ensemble {folder.name}: the output {spec.name}", spec, tensors[spec.name])
    return ModelFacts(
        name=folder.name,
        version=version,
        engine=ENGINE,
        inputs=inputs,
        outputs=outputs,
        max_batch_size=most,
        sha256=digest.hexdigest(),
        parameters={},
        instances=instances,
    )


def _connected(name: str, step: Step, facts: ModelFacts, tensors: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """The tensors that a step makes, by the graph's names, once what it takes is checked."""
    takes, makes = {spec.name: spec for spec in facts.inputs}, {spec.name: spec for spec in facts.outputs}
    if step.inputs.keys() != takes.keys():
        raise ConfigurationError(f"ensemble {name} maps the inputs {', '.join(step.inputs)} of {step.model}; it takes {', '.join(takes)}")
    strange = [output for output in step.outputs if output not in makes]
    if strange:
        raise ConfigurationError(f"ensemble {name} maps the output {', '.join(strange)} of {step.model}; it makes {', '.join(makes)}")
    for taken, tensor in step.inputs.items():
        _check_fit(f"ensemble {name}: the tensor {tensor}, input {taken} of {step.model},", takes[taken], tensors[tensor])
    return {tensor: makes[made] for made, tensor in step.outputs.items()}


def _check_fit(what: str, expected: TensorSpec, got: TensorSpec) -> None:
    fits = len(expected.shape) == len(got.shape) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(expected.shape, got.shape, strict=True)
    )
    if not fits or expected.dtype != got.dtype:
        raise ConfigurationError(f"{what} is {got.dtype} {list(got.shape)}; expected {expected.dtype} {list(expected.shape)}")


def _specs(tensors: Sequence[TensorConfig], most: int) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=tensor.name, dtype=tensor.dtype, shape=(-1, *tensor.dims) if most else tensor.dims) for tensor in tensors)


def _complete(folder: ModelFolder) -> ConfigMessage:
    message = ConfigMessage()
    message.CopyFrom(folder.configuration.message)
    message.name = folder.name
    message.platform = "ensemble"
    if not message.HasField("version_policy"):
        message.version_policy.latest.num_versions = 1
    return message


def _first(failures: ExceptionGroup[Exception]) -> BaseException:
    """The failure that ended the others."""
    first: BaseException = failures
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
