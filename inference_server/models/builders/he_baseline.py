"""Builds `he_baseline`, an analysis of H&E tiles that needs no learned weights: every number in it is a published or chosen constant.

Colour deconvolution after Ruifrok and Johnston 2001 (Anal Quant Cytol Histol 23:291) with QuPath's default H&E vectors, then a
Gaussian, a Laplacian and local maxima of the haematoxylin density, which is the blob detector of Lindeberg 1998 (IJCV 30:79).

Every sum in the graph is one of whole numbers (or halves, quarters, …) that float32 holds exactly, and the logarithm is a table.
So a pixel's result is the same to the last bit whatever the tile, the batch, the number of threads or the engine, and tiles can be
cut anywhere.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

NAME = "he_baseline"
# Raised when the graph changes, so that a model of an older build is built again.
_REVISION = 1
_OPSET = 18
_IR_VERSION = 9

# Rows: optical density of haematoxylin, eosin and the residual in R, G, B. QuPath's defaults; the residual is normal to both.
HAEMATOXYLIN = (0.65111, 0.70119, 0.29049)
EOSIN = (0.2159, 0.8012, 0.5581)
# Fixed point of the unmixed densities: 2^-24 OD, far below the 1e-6 that is promised, and 12 OD still fit into 31 bits.
_FIXED_POINT_BITS = 24
# Densities are filtered in steps of 1/256 OD, up to 1023/256 OD.
_STEPS = 256.0
_MOST_STEPS = 1023.0
# Three boxes of 8 × 8 px make a Gaussian of variance 3 · (8² - 1) / 12 = 15.75 px²: σ = 3.97 px, 2 µm at 0.5 µm/px.
_BOX = 8
VARIANCE = 15.75
# The Laplacian's arms, in px.
_ARM = 2
# A candidate is the greatest within this many px, in rows and columns.
RADIUS = 4
# Pixels of input that each side of a tile needs beyond its core: 3 boxes (10.5), the Laplacian's arm, the radius, and half a pixel.
HALO = 17
# Edge of the cells over which densities and sharpness are averaged, in px.
CELL = 16
# Least response of a candidate, in OD: -σ²∇² of the smoothed haematoxylin density.
LEAST_RESPONSE = 0.12
# Least smoothed haematoxylin density of a candidate, in OD.
LEAST_DENSITY = 0.15


def stain_matrix() -> NDArray[np.float64]:
    """Stain vectors by rows (haematoxylin, eosin, residual), 3 × 3, OD in R, G, B."""
    residual = np.cross(HAEMATOXYLIN, EOSIN)
    return np.array([HAEMATOXYLIN, EOSIN, residual / np.linalg.norm(residual)])


def build(models: Path) -> Path:
    """Write `<models>/he_baseline/`: deterministic, in one rename, and skipped when it is already up to date."""
    target = models / NAME
    model = _model().SerializeToString(deterministic=True)
    config = _CONFIG.replace("@SHA256@", hashlib.sha256(model).hexdigest()).replace("@REVISION@", str(_REVISION))
    files = {Path("config.pbtxt"): config.encode(), Path("1/model.onnx"): model}
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


_CONFIG = """\
# Written by `inference-server models build`. No learned weights: colour deconvolution, Gaussian, Laplacian, local maxima.
name: "he_baseline"
platform: "onnxruntime_onnx"
max_batch_size: 16
input [ { name: "tiles" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] } ]
output [
  { name: "candidates" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "haematoxylin" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "eosin" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "sharpness" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "haematoxylin_density" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "eosin_density" data_type: TYPE_FP32 dims: [ -1, -1 ] }
]
dynamic_batching { }
model_warmup [
  { name: "tile" batch_size: 1 inputs { key: "tiles" value: { data_type: TYPE_UINT8 dims: [ 290, 290, 3 ] random_data: true } } }
]
parameters [
  { key: "lamina.tolerance" value: { string_value: "0" } },
  { key: "sha256" value: { string_value: "@SHA256@" } },
  { key: "revision" value: { string_value: "@REVISION@" } }
]
"""


def _model() -> onnx.ModelProto:
    graph = _Graph()
    densities = graph.unmix("tiles")
    graph.candidates(densities[0])
    graph.cells(densities)
    made = helper.make_graph(
        graph.nodes,
        NAME,
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [
            helper.make_tensor_value_info("candidates", TensorProto.FLOAT, ["batch", "core_height", "core_width"]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "rows", "columns"]) for name in _CELL_OUTPUTS),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "height", "width"]) for name in _DENSITY_OUTPUTS),
        ],
        list(graph.constants.values()),
        doc_string="Input: tiles with a halo of 17 px on each side. See docs/slides.md.",
    )
    model = helper.make_model(made, producer_name="lamina", opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


_CELL_OUTPUTS = ("haematoxylin", "eosin", "sharpness")
_DENSITY_OUTPUTS = ("haematoxylin_density", "eosin_density")


class _Graph:
    """Writes the graph, node by node. Planes are [batch, 1, rows, columns] float32 unless said."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def unmix(self, tiles: str) -> tuple[str, str]:
        """RGB uint8 [batch, rows, columns, 3] → haematoxylin and eosin in whole steps of 1/256 OD; puts both densities out too."""
        channels = self._add("Cast", [self._add("Transpose", [tiles], perm=[0, 3, 1, 2])], to=TensorProto.INT32)
        red, self._green, blue = self._split(channels, 3)
        # One table for red and green together: a look-up costs more than the multiplication that it saves.
        pair = self._add("Add", [self._add("Mul", [red, self._constant("levels", np.int32(256))]), self._green])
        table = _unmixing_table()
        red_green = (table[0][:, None] + table[1][None, :]).reshape(-1, 2)
        mixed = self._add(
            "Add",
            [
                self._add("Gather", [self._constant("red_green_density", red_green), pair], axis=0),
                self._add("Gather", [self._constant("blue_density", table[2]), blue], axis=0),
            ],
        )
        positive = self._add("Max", [mixed, self._constant("no_density", np.int32(0))])
        both = self._add("Cast", [self._add("Transpose", [positive], perm=[0, 1, 4, 2, 3])], to=TensorProto.FLOAT)
        planes = self._add("Squeeze", [both, self._constant("stain_axis", np.array([1], np.int64))])
        densities = self._add("Mul", [planes, self._constant("fixed_point", np.float32(2.0**-_FIXED_POINT_BITS))])
        steps = self._add("Round", [self._add("Mul", [densities, self._constant("steps", np.float32(_STEPS))])])
        clipped = self._add("Min", [steps, self._constant("most_steps", np.float32(_MOST_STEPS))])
        for plane, name in zip(self._split(densities, 2), _DENSITY_OUTPUTS, strict=True):
            self._squeeze(plane, name)
        haematoxylin, eosin = self._split(clipped, 2)
        return haematoxylin, eosin

    def candidates(self, haematoxylin: str) -> None:
        """Put out the response at each local maximum of the core, 0 elsewhere."""
        smooth = self._smooth(haematoxylin)
        # σ²∇², with the Laplacian over arms of 2 px; 65536 steps a unit of OD.
        response = self._laplacian(smooth, _ARM)
        scale = VARIANCE / (_ARM**2 * _STEPS * _STEPS)
        centre = self._window(response, (RADIUS, -RADIUS - 1), (RADIUS, -RADIUS - 1))
        density = self._window(smooth, (RADIUS + _ARM, -RADIUS - _ARM - 1), (RADIUS + _ARM, -RADIUS - _ARM - 1))
        earlier, later = self._neighbours(response)
        strong = self._add("GreaterOrEqual", [centre, self._constant("least_response", np.float32(np.ceil(LEAST_RESPONSE / scale)))])
        dense = self._add("GreaterOrEqual", [density, self._constant("least_density", np.float32(LEAST_DENSITY * _STEPS * _STEPS))])
        # Of equal neighbours the first in reading order wins, wherever the tile was cut.
        greatest = self._add("And", [self._add("Greater", [centre, earlier]), self._add("GreaterOrEqual", [centre, later])])
        chosen = self._add("And", [greatest, self._add("And", [strong, dense])])
        scores = self._add("Mul", [centre, self._constant("score", np.float32(scale))])
        self._squeeze(self._add("Where", [chosen, scores, self._constant("none", np.float32(0))]), "candidates")

    def cells(self, densities: tuple[str, str]) -> None:
        """Put out means over cells of 16 × 16 px of the core: both densities (OD) and the green channel's |Laplacian| (grey levels)."""
        for plane, name in zip(densities, _CELL_OUTPUTS[:2], strict=True):
            core = self._window(plane, (HALO, -HALO), (HALO, -HALO))
            self._squeeze(self._add("Mul", [self._mean(core), self._constant("step", np.float32(1 / _STEPS))]), name)
        green = self._add("Cast", [self._green], to=TensorProto.FLOAT)
        edges = self._add("Abs", [self._laplacian(self._window(green, (HALO - 1, 1 - HALO), (HALO - 1, 1 - HALO)), 1)])
        self._squeeze(self._mean(edges), _CELL_OUTPUTS[2])

    def _smooth(self, steps: str) -> str:
        """Three box means. The first two are exact; the third's input and output are cut to whole 1/65536 OD so that it is exact too."""
        twice = self._box(self._box(steps))
        whole = self._add("Floor", [self._add("Mul", [twice, self._constant("fine", np.float32(256))])])
        return self._add("Floor", [self._box(whole)])

    def _box(self, plane: str) -> str:
        return self._add("AveragePool", [plane], kernel_shape=[_BOX, _BOX])

    def _mean(self, plane: str) -> str:
        return self._add("AveragePool", [plane], kernel_shape=[CELL, CELL], strides=[CELL, CELL])

    def _laplacian(self, plane: str, arm: int) -> str:
        """The negative Laplacian over four arms: positive where the plane is denser than around."""
        inner = (arm, -arm)
        columns = self._add("Add", [self._window(plane, inner, (0, -2 * arm)), self._window(plane, inner, (2 * arm, None))])
        rows = self._add("Add", [self._window(plane, (0, -2 * arm), inner), self._window(plane, (2 * arm, None), inner)])
        centre = self._add("Mul", [self._window(plane, inner, inner), self._constant("arms", np.float32(4))])
        return self._add("Sub", [centre, self._add("Add", [columns, rows])])

    def _neighbours(self, response: str) -> tuple[str, str]:
        """The greatest response before each pixel in reading order, and after it, within the radius.

        The response has the radius and one px more than the core on its far sides.
        """
        across = self._add("MaxPool", [response], kernel_shape=[1, 2 * RADIUS + 1])
        down = self._add("MaxPool", [across], kernel_shape=[RADIUS, 1])
        above = self._window(down, (0, -RADIUS - 2), (0, -1))
        below = self._window(down, (RADIUS + 1, -1), (0, -1))
        row = self._window(response, (RADIUS, -RADIUS - 1), (0, None))
        beside = self._add("MaxPool", [row], kernel_shape=[1, RADIUS])
        left = self._window(beside, (0, None), (0, -RADIUS - 2))
        right = self._window(beside, (0, None), (RADIUS + 1, -1))
        return self._add("Max", [above, left]), self._add("Max", [below, right])

    def _window(self, plane: str, rows: tuple[int, int | None], columns: tuple[int, int | None]) -> str:
        """Rows and columns from a start to an end, as Python slices have them."""
        last = np.iinfo(np.int64).max
        starts = np.array([rows[0], columns[0]], np.int64)
        ends = np.array([last if end is None else end for end in (rows[1], columns[1])], np.int64)
        names = [self._constant(f"from_{starts[0]}_{starts[1]}", starts), self._constant(f"to_{rows[1]}_{columns[1]}", ends)]
        return self._add("Slice", [plane, *names, self._constant("plane_axes", np.array([2, 3], np.int64))])

    def _split(self, planes: str, count: int) -> tuple[str, ...]:
        names = tuple(f"{planes}_{part}" for part in range(count))
        self.nodes.append(helper.make_node("Split", [planes], names, axis=1, num_outputs=count))
        return names

    def _squeeze(self, plane: str, output: str) -> None:
        self.nodes.append(helper.make_node("Squeeze", [plane, self._constant("channel_axis", np.array([1], np.int64))], [output]))

    def _add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        self.constants.setdefault(name, numpy_helper.from_array(np.asarray(value), name))
        return name


def _unmixing_table() -> NDArray[np.int32]:
    """[channel, level, stain]: what a channel's level adds to haematoxylin and eosin, in fixed point."""
    density = -np.log10(np.maximum(np.arange(256) / 255, 1e-6))
    unmixing = np.linalg.inv(stain_matrix())[:, :2]
    table: NDArray[np.int32] = np.round(density[None, :, None] * unmixing[:, None, :] * 2**_FIXED_POINT_BITS).astype(np.int32)
    return table
