"""The models that the server brings along, as the tasks find them."""

from __future__ import annotations

from inference_server.errors import ModelUnavailable, NotFound
from inference_server.scheduler.port import Inference, ModelFacts


def builtin_facts(inference: Inference, name: str) -> ModelFacts:
    """What serves as a built-in model. Raises `ModelUnavailable` where it is missing: that is the operator's to mend."""
    try:
        return inference.facts(name)
    except NotFound as error:
        raise ModelUnavailable(
            f"the server lacks its built-in model {name}. Whoever runs it makes it with `inference-server models build` "
            "and restarts the server, or loads the model; try again then."
        ) from error
