"""What a config.pbtxt says, as values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from inference import model_config_pb2

from inference_server.models.accelerators import Accelerator
from inference_server.models.ensembles import Step
from inference_server.models.gpu_options import GpuOptions

ConfigMessage = model_config_pb2.ModelConfig

# Priorities of a model whose config names none, so that callers can still say what is urgent: 1 goes first, 10 last.
LEVELS = 10
DEFAULT_LEVEL = 5
# Parameters of config.pbtxt. The engine that a model must have, and the shape of an input to warm up on.
ENGINE = "lamina.engine"
WARMUP_SHAPE = "lamina.warmup_shape."
# Largest deviation from the float32 reference that the owner allows an engine, such as 0.05.
TOLERANCE = "lamina.tolerance"
# Most bytes of the inputs of one execution on the CPU for each thread, such as 350000: a batch with more is run in portions of its rows.
RUN_BYTES = "lamina.run_bytes"
# Numbers of rows that one execution on the CPU may have, such as 1,2,4,8.
RUN_ROWS = "lamina.run_rows"
# Ranges of shapes that TensorRT builds an engine for: INPUT=MIN:OPT:MAX, with a comma between inputs.
PROFILE = "lamina.tensorrt_profile."
# Triton's name for the threads of one run of ONNX Runtime.
THREADS = "intra_op_thread_count"


@dataclass(frozen=True, kw_only=True)
class TensorConfig:
    """One input or output as the config declares it."""

    name: str
    dtype: np.dtype[Any]
    # Without the batch dimension; -1 where it varies.
    dims: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class QueuePolicy:
    """Bounds of the requests of one priority that wait."""

    # Longest wait; None for no bound.
    timeout_seconds: float | None = None
    # Whether a request whose time is up goes behind all others, rather than fail.
    delays: bool = False
    # Most requests that wait; 0 for no bound of the model's own.
    max_requests: int = 0


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How requests become batches."""

    # Sizes at which a batch need wait no longer, ascending.
    preferred_sizes: tuple[int, ...] = ()
    # Longest wait for a fuller batch; 0 starts an idle instance at once.
    max_delay_seconds: float = 0.0
    # Priorities are 1 to this number, 1 the most urgent.
    levels: int = LEVELS
    # Priority of a request that names none, or one that there is not.
    default_level: int = DEFAULT_LEVEL
    policy: QueuePolicy = field(default_factory=QueuePolicy)
    # Policies of the priorities that have their own.
    policies: Mapping[int, QueuePolicy] = field(default_factory=dict)
    # Whether a priority waits for as long as there is a more urgent one, as Triton has it where the config names priorities.
    strict: bool = False

    def level(self, priority: int) -> int:
        """The priority that a request gets: the default for 0 and for any that there is not."""
        return priority if 1 <= priority <= self.levels else self.default_level

    def share(self, level: int) -> float:
        """The weight of a priority: twice that of the next, or infinitely more; nothing for what its policy put behind all others."""
        if level > self.levels:
            return 0.0
        return math.inf if self.strict else 2.0 ** (self.levels - level)

    def policy_of(self, level: int) -> QueuePolicy:
        """The bounds of a priority."""
        return self.policies.get(level, self.policy)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A named good of which runs take some."""

    name: str
    # Whether all devices share it, rather than each having its own.
    shared: bool = False


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """What each instance holds while it runs."""

    resources: Mapping[Resource, int] = field(default_factory=dict)
    # Turns when several models wait for a resource: 2 gets half as many as 1.
    priority: int = 1


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Instances on one kind of device."""

    # cpu, gpu, or auto for the server's own.
    kind: str
    count: int
    # Numbers of the GPUs to use; none for all.
    gpus: tuple[int, ...] = ()
    rate: RateLimit = field(default_factory=RateLimit)


@dataclass(frozen=True, kw_only=True)
class WarmupInput:
    """One input of a warm-up request."""

    dtype: np.dtype[Any]
    # Without the batch dimension.
    dims: tuple[int, ...]
    # Where the content comes from: zero, random, or file.
    content: str
    # The file with the content; None for the other two.
    file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """A request that is run on each instance before the model serves."""

    name: str
    # Rows of the batch.
    rows: int
    inputs: Mapping[str, WarmupInput]
    # How often it is run.
    count: int


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A model's configuration as its owner wrote it; empty where he left the choice to the model."""

    # As it was parsed, for the ModelConfig RPC.
    message: ConfigMessage
    # Rows of the largest batch; None when the model itself is to tell.
    max_batch_size: int | None
    batching: Batching
    placements: tuple[Placement, ...]
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]
    warmups: tuple[Warmup, ...]
    parameters: Mapping[str, str]
    # The model's file in a version's folder.
    filename: str
    # Engines that the owner wants, by kind of device: gpu or cpu.
    accelerators: Mapping[str, Accelerator] = field(default_factory=dict)
    # Of an ensemble: its steps, each after those that it needs. It has no file.
    steps: tuple[Step, ...] = ()
    # Whether answers are kept, for requests that are equal.
    caches: bool = False
    # What is asked of runs on a GPU.
    gpu: GpuOptions = field(default_factory=GpuOptions)

    @property
    def engine(self) -> str:
        """The engine that the owner wants, as `lamina.engine` says; empty for the server's choice."""
        return self.parameters.get(ENGINE, "")

    @property
    def profiles(self) -> tuple[str, ...]:
        """Optimisation profiles of TensorRT, as `lamina.tensorrt_profile.<number>` say, in the order of their numbers."""
        told = {key.removeprefix(PROFILE): value for key, value in self.parameters.items() if key.startswith(PROFILE)}
        return tuple(told[number] for number in sorted(told, key=lambda number: (len(number), number)))

    @property
    def tolerance(self) -> float | None:
        """Largest deviation from the reference that the owner allows, as `lamina.tolerance` says; None for the server's choice."""
        return float(self.parameters[TOLERANCE]) if TOLERANCE in self.parameters else None

    @property
    def threads(self) -> int:
        """Computing threads of one run, as ONNX Runtime's parameter in Triton says; 0 for the server's choice."""
        return int(self.parameters.get(THREADS, "0"))

    @property
    def run_bytes(self) -> int:
        """Most bytes of the inputs of one execution on the CPU for each thread of it, as `lamina.run_bytes` says; 0 for no bound."""
        return int(self.parameters.get(RUN_BYTES, "0"))

    @property
    def run_rows(self) -> tuple[int, ...]:
        """The numbers of rows that one execution on the CPU may have, as `lamina.run_rows` says; empty for any."""
        return tuple(int(count) for count in self.parameters.get(RUN_ROWS, "").split(",") if count)

    @property
    def warmup_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes to warm up on, by input, as `lamina.warmup_shape.<input>` says: `3,640,640` or `3x640x640`."""
        told = {key.removeprefix(WARMUP_SHAPE): value for key, value in self.parameters.items() if key.startswith(WARMUP_SHAPE)}
        return {name: tuple(map(int, value.replace("x", ",").split(","))) for name, value in told.items()}
