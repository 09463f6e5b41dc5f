"""What the inference server's models, as name:version@engine:precision, say of where a document was read."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ON_GPU = re.compile(r"@[^:]*(tensorrt|cuda)")


def read_on_gpu(models: Sequence[str]) -> bool:
    """Whether no model ran on a CPU."""
    return all(map(_ON_GPU.search, models))


def why_on_cpu(models: Sequence[str]) -> str:
    """Why a GPU did not read a document, or not all of it, as far as its models tell."""
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
