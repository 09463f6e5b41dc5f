"""Makes the tensors of a `model_warmup`."""

from __future__ import annotations

import numpy as np

from inference_server.engine.port import Tensor
from inference_server.engine.selection.sample import filled
from inference_server.errors import ConfigurationError
from inference_server.models.values import Warmup, WarmupInput

_SEED = 1


def warmup_tensors(warmup: Warmup, *, batched: bool) -> dict[str, Tensor]:
    """The tensors of a warm-up request: each input once, repeated for each row of the batch. Raises `ConfigurationError`."""
    generator = np.random.default_rng(_SEED)
    tensors = {name: _content(warmup, name, given, generator) for name, given in warmup.inputs.items()}
    return {name: np.repeat(tensor[None], warmup.rows, axis=0) if batched else tensor for name, tensor in tensors.items()}


def _content(warmup: Warmup, name: str, given: WarmupInput, generator: np.random.Generator) -> Tensor:
    if any(size < 1 for size in given.dims):
        raise ConfigurationError(f"model_warmup {warmup.name} gives {name} the dims {list(given.dims)}; expected sizes, each at least 1")
    if given.file is not None:
        return _from_file(warmup, name, given)
    if given.content == "random":
        return filled(given.dims, given.dtype, generator)
    return np.full(given.dims, "", dtype=object) if given.dtype == object else np.zeros(given.dims, dtype=given.dtype)


def _from_file(warmup: Warmup, name: str, given: WarmupInput) -> Tensor:
    assert given.file is not None  # noqa: S101
    if given.dtype == object:
        raise ConfigurationError(f"model_warmup {warmup.name} reads strings for {name} from a file; use zero_data for strings")
    try:
        raw = given.file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"model_warmup {warmup.name} reads {name} from warmup/{given.file.name}, which cannot be read") from error
    expected = int(np.prod(given.dims)) * given.dtype.itemsize
    if len(raw) != expected:
        raise ConfigurationError(
            f"model_warmup {warmup.name}: warmup/{given.file.name} has {len(raw)} bytes; "
            f"{given.dtype.name} {list(given.dims)} takes {expected}"
        )
    return np.frombuffer(raw, dtype=given.dtype).reshape(given.dims)
