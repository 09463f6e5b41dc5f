"""The port that every engine fulfils."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.generic]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """What a model says of one of its inputs or outputs."""

    name: str
    # As numpy names it: float32, int64, uint8; `object` for strings.
    dtype: np.dtype[np.generic]
    # Every dimension, the batch dimension included; -1 where it varies.
    shape: tuple[int, ...]


class Engine(Protocol):
    """One loaded copy of a model on one device: an instance."""

    @property
    def name(self) -> str:
        """The runtime: onnxruntime, openvino, tensorrt."""

    @property
    def precision(self) -> str:
        """What it computes in: float32, bfloat16, float16, int8."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's outputs."""

    def run(self, inputs: Tensors, output_names: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """Compute; blocks, releases the interpreter lock, and may be called from any one thread at a time.

        Empty `output_names` means all outputs. Raises `ModelFailed`.
        """


@runtime_checkable
class KeepsMemory(Protocol):
    """An engine whose runtime keeps memory for its next runs, as much as the largest one took."""

    @property
    def keeps_much(self) -> bool:
        """Whether a run was so large that what it left should not be kept for long."""

    def give_back(self) -> None:
        """Free what is kept; blocks for some ms. Called by the thread that runs the engine."""


@runtime_checkable
class RunsBeside(Protocol):
    """An engine that computes on two cores, and may compute a second batch beside one, each then on one of them."""

    def beside(self) -> Engine | None:
        """What runs the second batch, with the same weights, from another thread than the engine's; None where it can not."""


class EngineLoader(Protocol):
    """Loads a model file into an engine of one kind."""

    @property
    def name(self) -> str:
        """The runtime that it loads into."""

    @property
    def version(self) -> str:
        """The runtime's version: what was measured with one says nothing of another."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions it can offer on this machine, the reference (float32) first."""

    def load(self, path: Path, precision: str, *, threads: int = 0, options: Mapping[str, str] | None = None) -> Engine:
        """Load; blocks. `threads` compute one run, 0 for the loader's own number; `options` are the model's own, in the runtime's names.

        Raises `ModelFailed` when the file is broken or the runtime refuses it.
        """
