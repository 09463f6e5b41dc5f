"""Input on which engines are compared and measured when the model's owner gives none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inference_server.engine.port import Tensor, TensorSpec

# For dimensions that vary: images are 4-dimensional and shrunk by powers of two, anything else is taken for a sequence.
_IMAGE_SIDE = 224
_SEQUENCE = 32
_CHANNELS = 3
_SEED = 20261122


def representative(specs: Sequence[TensorSpec], *, rows: int = 0, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Tensor]:
    """Input of the shapes that a model is likely to get: random, never all zero, the same at each call.

    `rows`: size of the first dimension where it is the batch; 0 for models without one. `shapes`: dimensions by input,
    without the batch dimension, for the inputs whose owner told them.
    """
    generator = np.random.default_rng(_SEED)
    return {spec.name: filled(sample_shape(spec, rows, (shapes or {}).get(spec.name)), spec.dtype, generator) for spec in specs}


def filled(shape: tuple[int, ...], dtype: np.dtype[np.generic], generator: np.random.Generator) -> Tensor:
    """Random content: bytes of their whole range, floats in [0, 1), other integers 0 or 1 with a leading 1, as masks and indices need."""
    if dtype.kind == "O":
        return np.full(shape, "sample", dtype=object)
    if dtype.kind == "f":
        return generator.random(shape).astype(dtype)
    if dtype == np.uint8:
        return generator.integers(0, 256, shape, dtype=np.uint8)
    small = generator.integers(0, 2, shape).astype(dtype)
    small[..., :1] = 1
    return small


def sample_shape(spec: TensorSpec, rows: int, told: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of one sample tensor."""
    if told is not None:
        return (rows, *told) if rows else told
    sizes = tuple(size if size > 0 else _likely(spec, axis) for axis, size in enumerate(spec.shape))
    return (rows, *sizes[1:]) if rows else sizes


def _likely(spec: TensorSpec, axis: int) -> int:
    rank = len(spec.shape)
    if axis == 0 and rank > 1:
        return 1
    if rank < 4:
        return _SEQUENCE
    channels_first = spec.shape[1] in (1, 3, 4) or spec.shape[3] < 0
    return _CHANNELS if axis == (1 if channels_first else rank - 1) else _IMAGE_SIDE
