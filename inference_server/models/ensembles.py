"""Graphs of models, as `ensemble_scheduling` describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference import model_config_pb2

from inference_server.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Step:
    """One model of a graph."""

    model: str
    # Empty for the newest that serves.
    version: str
    # The graph's tensors by the model's inputs, and by its outputs.
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def read_steps(name: str, message: model_config_pb2.ModelConfig) -> tuple[Step, ...]:
    """The steps, each after those that it needs; none for a model that is no ensemble. Raises `ConfigurationError`."""
    if not message.HasField("ensemble_scheduling"):
        if message.platform == "ensemble":
            raise _wrong(name, 'has the platform "ensemble" and no ensemble_scheduling; expected its steps')
        return ()
    if message.platform not in ("", "ensemble") or message.backend:
        raise _wrong(name, f'has ensemble_scheduling and asks for {message.platform or message.backend}; expected platform: "ensemble"')
    if not message.input or not message.output:
        raise _wrong(name, "has ensemble_scheduling; its input and output must be told too")
    steps = [_step(name, number, step) for number, step in enumerate(message.ensemble_scheduling.step)]
    if not steps:
        raise _wrong(name, "has ensemble_scheduling without a step")
    inputs, outputs = [tensor.name for tensor in message.input], [tensor.name for tensor in message.output]
    _check_tensors(name, steps, inputs, outputs)
    return _in_order(name, steps, set(inputs))


def _step(name: str, number: int, step: model_config_pb2.ModelEnsembling.Step) -> Step:
    if not step.model_name or not step.input_map or not step.output_map:
        raise _wrong(name, f"has a step {number} that lacks model_name, input_map or output_map")
    if step.model_name == name:
        raise _wrong(name, f"names itself in step {number}")
    version = "" if step.model_version in (0, -1) else str(step.model_version)
    return Step(model=step.model_name, version=version, inputs=dict(sorted(step.input_map.items())), outputs=dict(step.output_map))


def _check_tensors(name: str, steps: Sequence[Step], inputs: Sequence[str], outputs: Sequence[str]) -> None:
    made = [*inputs, *(tensor for step in steps for tensor in step.outputs.values())]
    twice = sorted({tensor for tensor in made if made.count(tensor) > 1})
    if twice:
        raise _wrong(name, f"makes the tensor {', '.join(twice)} more than once; expected one source for each")
    used = [*outputs, *(tensor for step in steps for tensor in step.inputs.values())]
    absent = sorted(set(used) - set(made))
    if absent:
        raise _wrong(name, f"uses the tensor {', '.join(absent)}, which is no input and no step makes")
    idle = sorted(set(inputs) - set(used))
    if idle:
        raise _wrong(name, f"has the input {', '.join(idle)}, which no step takes")


def _in_order(name: str, steps: Sequence[Step], there: set[str]) -> tuple[Step, ...]:
    ordered: list[Step] = []
    left = list(steps)
    while left:
        ready = [step for step in left if there.issuperset(step.inputs.values())]
        if not ready:
            raise _wrong(name, f"has steps that wait for each other: {', '.join(step.model for step in left)}")
        ordered += ready
        left = [step for step in left if step not in ready]
        there |= {tensor for step in ready for tensor in step.outputs.values()}
    return tuple(ordered)


def _wrong(name: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"{name}/config.pbtxt {what}")
