"""What tile models have in common."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.errors import ConfigurationError
from inference_server.tasks.slides.kinds.tile_model import output_of


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_no_number_is_the_models_fault_and_names_it(value: float) -> None:
    with pytest.raises(ConfigurationError, match="tumour puts out values of logits that are no finite numbers"):
        output_of({"logits": np.array([[0.5, value]], np.float32)}, "logits", "tumour")


def test_sound_outputs_are_taken_as_they_are() -> None:
    for values in (np.array([[0.5, 2.0]], np.float16), np.array([[1, 2]], np.int64)):
        assert values is output_of({"logits": values}, "logits", "tumour")
