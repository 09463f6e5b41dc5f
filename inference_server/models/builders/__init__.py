"""The builders of the built-in models: each writes one model of the repository and answers its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from inference_server.models.builders import he_baseline, minilm, ppocr

# By the name of the model. Each takes the repository's folder, and skips what is up to date.
BUILDERS: Mapping[str, Callable[[Path], Path]] = {
    "he_baseline": he_baseline.build,
    "ppocrv6_small_det": ppocr.build_detector,
    "ppocrv6_small_rec": ppocr.build_recognizer,
    "all_minilm_l6_v2": minilm.build,
}
