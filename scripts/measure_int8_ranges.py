"""Measures the ranges in which the text models' convolutions are computed in int8, for weights that have none yet.

Where `rapidocr` brings other weights, its models are served in bfloat16 until this was run: it reads the pages of `benchmarks/documents.py`
with them in float32, takes down what the convolutions take that the present data name, and writes `int8_ranges.npz` of each model in the
form that `inference_server/models/builders/int8_ranges.py` reads and describes.

Before the new data are committed, hold them against the old ones: `benchmarks/documents.py --parts accuracy,speed --check`, and the errors
in the log `engine_selected` against the tolerance of each model. A tensor that the new models have no longer is told and left out; which
others gain by int8 is then to be tried.

Usage: scripts/measure_int8_ranges.py [--of-a-kind 3] [--data inference_server/models/data]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.documents import KINDS, content_of
from inference_server.models.builders import BUILDERS
from inference_server.models.builders.int8_ranges import measured_tensors, packed
from inference_server.models.builders.ppocr import DETECTOR, RECOGNIZER, wheel_model
from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse
from inference_server.storage.storage import Storage
from inference_server.tasks.documents.reader import DocumentReader, DocumentRequest
from tests.support.models.direct_inference import DirectInference

DATA = Path(__file__).parents[1] / "inference_server" / "models" / "data"
MODELS = (DETECTOR, RECOGNIZER)
# What a range has more on either side than was seen, as a share of it.
_MARGIN = 0.05
# The narrowest range of a channel, as a share of what most channels of the tensor have; channels that hardly change do not count.
_NARROWEST, _STILL = 0.5, 1e-3
# Where so large a share of the channels ends at one value, an activation does not go below it, and neither does a range.
_MANY, _NEAR = 0.5, 0.01

Array = NDArray[np.float64]


class Channels:
    """What the channels of one tensor were seen to hold."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.least: Array = np.array(np.inf)
        self.most: Array = np.array(-np.inf)
        self._sums: Array = np.array(0.0)
        self._count = 0

    def add(self, values: NDArray[np.float32]) -> None:
        """Take up values, [rows, channels, …]."""
        sides = (0, *range(2, values.ndim))
        self.least, self.most = np.minimum(self.least, values.min(sides)), np.maximum(self.most, values.max(sides))
        self._sums = self._sums + values.sum(sides, dtype=np.float64)
        self._count += values.size // values.shape[1]

    def ranges(self) -> NDArray[np.float16]:
        """[least, most and mean, channels], with the margin, and none narrower than is sensible."""
        width = self.most - self.least
        usual = np.median(width[width >= _STILL * width.max()])
        spare = np.maximum(width * _MARGIN, (usual * _NARROWEST - width) / 2)
        bottom = self.least.min()
        is_bound = np.mean(self.least - bottom <= _NEAR * usual) >= _MANY
        least = np.maximum(self.least - spare, bottom) if is_bound else self.least - spare
        with np.errstate(over="ignore"):
            told = np.stack([least, self.most + spare, self._sums / self._count]).astype(np.float16)
        if not np.isfinite(told).all() or (told[1] <= told[0]).any():
            raise ValueError(f"float16 does not hold ranges from {self.least.min()} to {self.most.max()}, or not apart")
        return told


class Measuring(DirectInference):
    """Runs models in float32, and takes down what some of their tensors hold."""

    def __init__(self, models: Path, tensors: Mapping[str, Sequence[str]]) -> None:
        """`tensors`: by model; they are among its outputs."""
        super().__init__(models)
        self._tensors = tensors
        self.seen = {model: {tensor: Channels() for tensor in names} for model, names in tensors.items()}

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """As the models answer, without those tensors."""
        tensors = self._tensors[request.model]
        asked = request.outputs or [output.name for output in self.facts(request.model).outputs if output.name not in tensors]
        response = await super().infer(replace(request, outputs=(*asked, *tensors)))
        for tensor in tensors:
            self.seen[request.model][tensor].add(response.outputs[tensor])
        return replace(response, outputs={name: response.outputs[name] for name in asked})


def tell_tensors(models: Path, name: str) -> list[str]:
    """Have a built model put out what the present data have ranges of; the names of those that it has."""
    path = models / name / "1" / "model.onnx"
    model = onnx.load(path)
    taken = {node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    names = measured_tensors(name)
    if lost := [tensor for tensor in names if tensor not in taken]:
        print(f"{name}: no convolution takes {', '.join(lost)}; left out")
    found = [tensor for tensor in names if tensor in taken]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None) for tensor in found)
    onnx.save(model, path)
    return found


async def measured(pages: Iterable[bytes]) -> dict[str, dict[str, NDArray[np.float16]]]:
    """Ranges by model and tensor, from reading pages one after another."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        for name in MODELS:
            BUILDERS[name](models)
        inference = Measuring(models, {name: tell_tensors(models, name) for name in MODELS})
        reader = DocumentReader(inference, Storage(read_roots=(folder,), write_roots=()), models)
        for page in pages:
            async for _ in reader.read(DocumentRequest(content=page), Caller()):
                pass
        return {name: {tensor: seen.ranges() for tensor, seen in tensors.items()} for name, tensors in inference.seen.items()}


def main() -> None:
    """Measure, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of-a-kind", type=int, default=3, help="pages of each kind")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder in which each model has one for its data")
    options = parser.parse_args()
    pages = (content_of(kind, seed) for kind in KINDS for seed in range(options.of_a_kind))
    for name, ranges in asyncio.run(measured(pages)).items():
        path = options.data / name / "int8_ranges.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed(wheel_model(name), ranges))
        print(f"{path}: {len(ranges)} tensors")


if __name__ == "__main__":
    main()
