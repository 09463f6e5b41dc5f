"""Where a document was read, as the inference server's models (name:version@engine:precision) say, and why not where it was to be."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bridge.errors import DeviceError, TransientError, first_line

# What the server calls a GPU's failures, in words.
_CAUSES = {"out_of_memory": "out of memory", "device_lost": "the device was lost", "engine_not_built": "no engine is built for a model"}
# An error's text is told as far as it names no place on a machine, and to this length.
_PLACE = re.compile(r"\S*[/\\]\S*|\bhostname=\S*|(?<=\bat )\S+:\d+|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b")
_LONGEST = 200
# Causes of which another try finds the same, until an operator has mended them.
_NOT_THERE = frozenset({"no_engine", "engine_not_built"})
_ON_GPU = re.compile(r"@[^:]*(tensorrt|cuda)")


def read_on_gpu(models: Sequence[str]) -> bool:
    """Whether no model ran on a CPU."""
    return all(map(_ON_GPU.search, models))


def safe_part(error: BaseException, *, most: int = _LONGEST) -> str:
    """What an error says in its first line, without places on a machine, and to a length."""
    return _PLACE.sub("…", first_line(error))[:most]


def has_no_engine(error: BaseException) -> bool:
    """Whether the device that was asked has no engine, whatever document it is asked for."""
    return isinstance(error, DeviceError) and error.cause in _NOT_THERE


def why_gpu_failed(error: TransientError) -> str:
    """What a GPU that was to read a document came to."""
    if isinstance(error, DeviceError) and error.cause in _CAUSES:
        return f"the GPU failed: {_CAUSES[error.cause]}"
    told = safe_part(error)
    return told if isinstance(error, DeviceError) else f"the GPU failed: {told}"


def why_on_cpu(models: Sequence[str], why: str = "") -> str:
    """Why a GPU did not read a document, or not all of it: `why`, or as far as its models tell."""
    if why:
        ran = f" ({', '.join(models)})" if models else ""
        return f"the inference server read it on its CPU{ran}: {why}"
    on_cpu = [model for model in models if not _ON_GPU.search(model)]
    on_gpu = {_name(model) for model in models if _ON_GPU.search(model)}
    if any(_name(model) in on_gpu for model in on_cpu):
        why = "its GPU failed meanwhile"
    elif on_gpu:
        why = "its GPU has no engine for what ran there"
    else:
        why = "it has no GPU, or none that runs these models now"
    return f"the inference server read it, or a part of it, on its CPU ({', '.join(on_cpu)}): {why}; its log tells more"


def _name(model: str) -> str:
    return model.partition("@")[0]
