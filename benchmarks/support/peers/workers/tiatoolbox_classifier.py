"""Classifies the tiles of a slide with TIAToolbox. Runs in that library's own environment.

`export FOLDER`: a ResNet-18 with fixed weights as `model.onnx`. `classify SLIDE TILE MPP BATCH WORKERS`: with the same weights, twice, of
which the second run counts; prints `{"seconds": …, "tiles": [[x, y], …], "probabilities": [[…], …]}`, corners in pixels of level 0.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import zarr
from tiatoolbox.models.architecture.vanilla import CNNModel
from tiatoolbox.models.engine.patch_predictor import PatchPredictor

CLASSES = 4


def model() -> torch.nn.Module:
    """A ResNet-18 over pixels of 0 to 1; the same weights in every process."""
    torch.manual_seed(7)
    network = CNNModel("resnet18", num_classes=CLASSES)
    # Untrained, it tells tiles hardly apart: two that differ would look alike.
    network.classifier.weight.data *= 20
    network.preproc_func = lambda pixels: np.asarray(pixels, np.float32) / 255
    return network.eval()


def export(folder: Path) -> None:
    """Write the network as ONNX."""
    tiles = torch.zeros(2, 3, 224, 224)
    names = {"input_names": ["tiles"], "output_names": ["probabilities"], "dynamic_axes": {"tiles": {0: "n"}, "probabilities": {0: "n"}}}
    torch.onnx.export(model(), (tiles,), str(folder / "model.onnx"), dynamo=False, opset_version=17, **names)


def classify(slide: Path, *, tile: int, mpp: float, batch: int, workers: int) -> None:
    """Classify, and print what was found."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    predictor = PatchPredictor(model=model(), batch_size=batch, num_workers=workers, verbose=False)
    for _ in range(2):
        seconds, corners, probabilities = predicted(predictor, slide, tile=tile, mpp=mpp)
    print(json.dumps({"seconds": seconds, "tiles": corners, "probabilities": probabilities}))


def predicted(predictor: PatchPredictor, slide: Path, *, tile: int, mpp: float) -> tuple[float, list[list[int]], list[list[float]]]:
    """One run: its seconds, corners and probabilities."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        written = predictor.run(
            [slide],
            patch_mode=False,
            patch_input_shape=(tile, tile),
            stride_shape=(tile, tile),
            input_resolutions=[{"units": "mpp", "resolution": mpp}],
            device="cpu",
            save_dir=Path(folder) / "found",
            output_type="zarr",
            return_probabilities=True,
        )
        seconds = time.perf_counter() - begun
        found = zarr.open(str(next(iter(written.values()))), mode="r")
        return seconds, np.asarray(found["coordinates"])[:, :2].tolist(), np.asarray(found["probabilities"]).tolist()


if __name__ == "__main__":
    if sys.argv[1] == "export":
        export(Path(sys.argv[2]))
    else:
        slide, tile, mpp, batch, workers = sys.argv[2:]
        classify(Path(slide), tile=int(tile), mpp=float(mpp), batch=int(batch), workers=int(workers))
