"""What a config.pbtxt says, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from inference import model_config_pb2

ConfigMessage = model_config_pb2.ModelConfig

# Priorities of a model whose config names none, so that callers can still say what is urgent: 1 goes first, 10 last.
LEVELS = 10
DEFAULT_LEVEL = 5
# Parameters of config.pbtxt. The engine that a model must have, and the shape of an input to warm up on.
ENGINE = "lamina.engine"
WARMUP_SHAPE = "lamina.warmup_shape."
# Largest deviation from the float32 reference that the owner allows an engine, such as 0.05.
TOLERANCE = "lamina.tolerance"
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

    def level(self, priority: int) -> int:
        """The priority that a request gets: the default for 0 and for any that there is not."""
        return priority if 1 <= priority <= self.levels else self.default_level

    def policy_of(self, level: int) -> QueuePolicy:
        """The bounds of a priority."""
        return self.policies.get(level, self.policy)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Instances on one kind of device."""

    # cpu, gpu, or auto for the server's own.
    kind: str
    count: int
    # Numbers of the GPUs to use; none for all.
    gpus: tuple[int, ...] = ()


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

    @property
    def engine(self) -> str:
        """The engine that the owner wants, as `lamina.engine` says; empty for the server's choice."""
        return self.parameters.get(ENGINE, "")

    @property
    def tolerance(self) -> float | None:
        """Largest deviation from the reference that the owner allows, as `lamina.tolerance` says; None for the server's choice."""
        return float(self.parameters[TOLERANCE]) if TOLERANCE in self.parameters else None

    @property
    def threads(self) -> int:
        """Computing threads of one run, as ONNX Runtime's parameter in Triton says; 0 for the server's choice."""
        return int(self.parameters.get(THREADS, "0"))

    @property
    def warmup_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes to warm up on, by input, as `lamina.warmup_shape.<input>` says: `3,640,640` or `3x640x640`."""
        told = {key.removeprefix(WARMUP_SHAPE): value for key, value in self.parameters.items() if key.startswith(WARMUP_SHAPE)}
        return {name: tuple(map(int, value.replace("x", ",").split(","))) for name, value in told.items()}
