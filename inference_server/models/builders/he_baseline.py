"""Builds `he_baseline`, an analysis of H&E tiles that needs no learned weights: its graph, how it is served, and its manifest."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from inference_server.models import shipped
from inference_server.models.builders.he_baseline_graph import CELL, HALO, LEAST_RESPONSE, SCALES, graph_model

NAME = "he_baseline"
# Raised when the graph changes, so that a model of an older build is built again.
_REVISION = 5


def build(models: Path) -> Path:
    """Write `<models>/he_baseline/`: deterministic, in one rename, and skipped when it is already up to date."""
    target = models / NAME
    files = _files()
    if all((target / name).is_file() and (target / name).read_bytes() == content for name, content in files.items()):
        return target
    models.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=models))
    try:
        scratch.chmod(0o755)
        for name, content in files.items():
            (scratch / name).parent.mkdir(exist_ok=True)
            (scratch / name).write_bytes(content)
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _files() -> Mapping[Path, bytes]:
    """By their place in the model's folder, which may be copied to another name as it is."""
    model = graph_model().SerializeToString(deterministic=True)
    told = {
        "lamina.run_bytes": "350000",
        "lamina.tolerance": "0",
        # What the graph fixes of its manifest, which is held to it.
        "lamina.slide.halo": str(HALO),
        "lamina.slide.cell": str(CELL),
        "lamina.slide.least_response_od": str(LEAST_RESPONSE),
        **{f"lamina.slide.sigma.{scale.output}": f"{scale.sigma:.2f}" for scale in SCALES},
        "sha256": hashlib.sha256(model).hexdigest(),
        "revision": str(_REVISION),
    }
    parameters = ",\n".join(f'  {{ key: "{key}" value: {{ string_value: "{value}" }} }}' for key, value in told.items())
    return {
        Path("config.pbtxt"): f"{_CONFIG}parameters [\n{parameters}\n]\n".encode(),
        Path("slide.json"): shipped.slide_manifest(NAME),
        Path("1/model.onnx"): model,
    }


# Two instances share the cores: its many small steps leave most of a second thread's time unused. A tile of 256 px with its halo is run
# by itself: the planes of two no longer fit into a core's own cache, and those of eight cost two fifths more a tile. A call has 24, six
# rows of a column: each costs the event loop as much as half a tile costs the model, and of 48 the last ones are waited for too long.
_CONFIG = """\
# Written by `inference-server models build`. No learned weights: colour deconvolution, Gaussian, Laplacian, local maxima.
platform: "onnxruntime_onnx"
max_batch_size: 24
input [
  { name: "tiles" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] },
  { name: "eosin_leak" data_type: TYPE_FP32 dims: [ 1 ] }
]
output [
  { name: "finest_candidates" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "candidates" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "coarse_candidates" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "coarsest_candidates" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "haematoxylin" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "eosin" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "sharpness" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "densities" data_type: TYPE_FP32 dims: [ 2, -1, -1 ] }
]
dynamic_batching { }
instance_group [ { count: 2 } ]
model_warmup [
  {
    name: "tile"
    batch_size: 1
    inputs { key: "tiles" value: { data_type: TYPE_UINT8 dims: [ 312, 312, 3 ] random_data: true } }
    inputs { key: "eosin_leak" value: { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true } }
  }
]
"""
