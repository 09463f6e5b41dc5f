"""The graph of `he_baseline`, and the numbers that are fixed in it: every one is published or chosen, and none was learned.

Colour deconvolution after Ruifrok and Johnston 2001 (Anal Quant Cytol Histol 23:291) with QuPath's default H&E vectors, less the eosin
that leaks into the haematoxylin of the slide at hand; then a Gaussian, a Laplacian and local maxima of the haematoxylin density at four
scales, which is the blob detector of Lindeberg 1998 (IJCV 30:79). Whoever runs it chooses among the maxima, as
`tasks/slides/kinds/nuclei.py` does.

Every sum in the graph is one of whole numbers (or halves, quarters, …) that float32 holds exactly, and the logarithm is a table.
So a pixel's result is the same to the last bit whatever the tile, the batch, the number of threads or the engine, and tiles can be
cut anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

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
# Least response of a candidate, in OD: -σ²∇² of the smoothed haematoxylin density.
LEAST_RESPONSE = 0.02
# Blobs are looked for on means of 2 × 2 px: at a quarter of the cost they are found as well.
POOLED = 2
# Edge of the cells over which densities and sharpness are averaged, in px.
CELL = 16
_CELL_OUTPUTS = ("haematoxylin", "eosin", "sharpness")
# Of each pixel, halo included, and below 0 where a colour is neither stain's: it costs the graph nothing.
DENSITIES = "densities"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A size of blob that is looked for; boxes and radius in pixels of the means that it is looked for on."""

    output: str
    # Pixels of the tile that each mean takes, along rows and columns.
    pooled: int = POOLED
    # Edges of the box means that make the Gaussian: powers of two, so that means are exact, and an odd number of them.
    boxes: tuple[int, int, int]
    # A candidate is the greatest within so many pixels, in rows and columns.
    radius: int

    @property
    def variance(self) -> float:
        """Of the Gaussian; that of the pooling counts too."""
        return sum(box**2 - 1 for box in self.boxes) / 12 + (1 - self.pooled**-2) / 12

    @property
    def sigma(self) -> float:
        """Of the Gaussian, in pixels of the tile."""
        return float(self.pooled * self.variance**0.5)

    @property
    def halo(self) -> int:
        """Beyond each side of the core: the boxes, half a pixel because they centre on corners, the Laplacian's arm, the radius."""
        return (sum(box - 1 for box in self.boxes) + 1) // 2 + 1 + self.radius


# σ of 2.69, 3.91, 5.59 and 7.83 px: 1.35, 2, 2.8 and 3.9 µm at 0.5 µm/px, for nuclei of about 4, 6, 9 and 12 µm. Their first boxes are the
# same, so that each mean is made once; the largest are found as well on means of 4 × 4 px, at a quarter of the cost.
FINEST = Scale(output="finest_candidates", boxes=(4, 2, 2), radius=2)
FINE = Scale(output="candidates", boxes=(4, 4, 4), radius=2)
COARSE = Scale(output="coarse_candidates", boxes=(4, 4, 8), radius=3)
COARSEST = Scale(output="coarsest_candidates", boxes=(4, 4, 4), radius=1, pooled=2 * POOLED)
SCALES = (FINEST, FINE, COARSE, COARSEST)
# Pixels of input that each side of a tile needs beyond its core.
HALO = max(scale.pooled * scale.halo for scale in SCALES)


def stain_matrix() -> NDArray[np.float64]:
    """Stain vectors by rows (haematoxylin, eosin, residual), 3 × 3, OD in R, G, B."""
    residual = np.cross(HAEMATOXYLIN, EOSIN)
    return np.array([HAEMATOXYLIN, EOSIN, residual / np.linalg.norm(residual)])


def graph_model() -> onnx.ModelProto:
    """The graph as a model; always the same bytes."""
    graph = _Graph()
    densities = graph.unmix("tiles")
    haematoxylin = graph.without_leak(densities, "eosin_leak")
    for scale in SCALES:
        graph.candidates(haematoxylin, scale)
    graph.cells(densities)
    outputs: dict[str, list[str | int]] = {
        **{scale.output: [f"rows_{scale.pooled}", f"columns_{scale.pooled}"] for scale in SCALES},
        **{name: ["rows", "columns"] for name in _CELL_OUTPUTS},
        DENSITIES: [2, "height", "width"],
    }
    made = helper.make_graph(
        graph.nodes,
        "he_baseline",
        [
            helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["batch", "height", "width", 3]),
            helper.make_tensor_value_info("eosin_leak", TensorProto.FLOAT, ["batch", 1]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name, shape in outputs.items()],
        list(graph.constants.values()),
        doc_string=f"Input: tiles with a halo of {HALO} px on each side, and the slide's leak of eosin. See docs/slides/he_baseline.md.",
    )
    model = helper.make_model(made, producer_name="lamina", opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Writes the graph, node by node. Planes are [batch, 1, rows, columns] float32 unless said."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        # Planes that several scales begin with.
        self._shared: dict[tuple[int, ...], str] = {}

    def unmix(self, tiles: str) -> tuple[str, str]:
        """RGB uint8 [batch, rows, columns, 3] → haematoxylin and eosin in whole steps of 1/256 OD, below 0 too; puts both densities out."""
        planes = self._add("Transpose", [tiles], perm=[3, 0, 1, 2])
        # Each channel in one piece. Not by `Split`: ONNX Runtime would take it before the `Transpose`, at twice the time.
        channels = [
            self._add("Gather", [planes, self._constant(f"channel_{each}", np.array([each], np.int64))], axis=0) for each in range(3)
        ]
        shape = self._plane_shape(tiles)
        self._green = self._add("Reshape", [channels[1], shape])
        # In one row: `GatherElements` looks a value up in a fifth of the time that `Gather` takes, and wants tables of its indices' rank.
        row = self._constant("one_row", np.array([-1], np.int64))
        red, green, blue = (self._add("Cast", [self._add("Reshape", [channel, row])], to=TensorProto.INT32) for channel in channels)
        # One table for red and green together: a look-up costs more than the multiplication that it saves.
        pair = self._add("Add", [self._add("Mul", [red, self._constant("levels", np.int32(256))]), green])
        fixed = [self._add("Reshape", [self._unmixed(stain, pair, blue), shape]) for stain in range(2)]
        stains = [self._add("Cast", [each], to=TensorProto.FLOAT) for each in fixed]
        # Beside the way to the candidates, on which both would be put together and taken apart again.
        self._add("Mul", [self._add("Concat", stains, axis=1), self._fixed_point("fixed_point", 1.0)], DENSITIES)
        haematoxylin, eosin = (
            self._add("Round", [self._add("Mul", [each, self._fixed_point("fixed_point_in_steps", _STEPS)])]) for each in stains
        )
        return haematoxylin, eosin

    def _fixed_point(self, name: str, parts: float) -> str:
        """The unit of the fixed point in parts of 1 OD: a power of two, so that nothing is rounded."""
        return self._constant(name, np.float32(parts * 2.0**-_FIXED_POINT_BITS))

    def _plane_shape(self, tiles: str) -> str:
        """[batch, 1, rows, columns] of [batch, rows, columns, 3]."""
        order = self._constant("channels_second", np.array([0, 3, 1, 2], np.int64))
        shape = self._add("Gather", [self._add("Shape", [tiles]), order])
        return self._add("Sub", [shape, self._constant("other_channels", np.array([0, 2, 0, 0], np.int64))])

    def _unmixed(self, stain: int, pair: str, blue: str) -> str:
        """One stain in fixed point, of pixels in one row. `pair`: 256 times red, and green."""
        table = _unmixing_table()[:, :, stain]
        red_green = self._constant(f"red_green_density_{stain}", (table[0][:, None] + table[1][None, :]).reshape(-1))
        looked_up = [
            self._add("GatherElements", [red_green, pair], axis=0),
            self._add("GatherElements", [self._constant(f"blue_density_{stain}", table[2]), blue], axis=0),
        ]
        return self._add("Add", looked_up)

    def without_leak(self, densities: tuple[str, str], leak: str) -> str:
        """Haematoxylin less the eosin that leaks into it, pooled, in quarters of a step.

        `leak`: OD of haematoxylin for each OD of eosin, [batch, 1].
        """
        haematoxylin, eosin = densities
        share = self._add("Unsqueeze", [leak, self._constant("pixel_axes", np.array([2, 3], np.int64))])
        leaked = self._add("Ceil", [self._add("Mul", [eosin, share])])
        return self._pool(self._clipped(self._add("Sub", [haematoxylin, leaked])), POOLED, POOLED)

    def candidates(self, haematoxylin: str, scale: Scale) -> None:
        """Put out the response at each local maximum of the core, 0 elsewhere, [batch, rows, columns] of the scale's means."""
        radius = scale.radius
        # σ²∇²; 65536 steps a unit of OD.
        response = self._laplacian(self._smooth(haematoxylin, scale))
        unit = scale.variance / (_STEPS * _STEPS)
        centre = self._window(response, (radius, -radius - 1), (radius, -radius - 1))
        earlier, later = self._neighbours(response, radius)
        least = self._constant(f"least_of_{scale.output}", np.float32(np.ceil(LEAST_RESPONSE / unit)))
        # Of equal neighbours the first in reading order wins, wherever the tile was cut.
        greatest = self._add("And", [self._add("Greater", [centre, earlier]), self._add("GreaterOrEqual", [centre, later])])
        chosen = self._add("And", [greatest, self._add("GreaterOrEqual", [centre, least])])
        scores = self._add("Mul", [centre, self._constant(f"unit_of_{scale.output}", np.float32(unit))])
        self._squeeze(self._add("Where", [chosen, scores, self._constant("none", np.float32(0))]), scale.output)

    def cells(self, densities: tuple[str, str]) -> None:
        """Put out means over cells of 16 × 16 px of the core: both densities (OD) and the green channel's |Laplacian| (grey levels)."""
        for plane, name in zip(densities, _CELL_OUTPUTS[:2], strict=True):
            core = self._clipped(self._window(plane, (HALO, -HALO), (HALO, -HALO)))
            self._squeeze(self._add("Mul", [self._cell_means(core), self._constant("step", np.float32(1 / _STEPS))]), name)
        green = self._add("Cast", [self._green], to=TensorProto.FLOAT)
        edges = self._add("Abs", [self._laplacian(self._window(green, (HALO - 1, 1 - HALO), (HALO - 1, 1 - HALO)))])
        self._squeeze(self._cell_means(edges), _CELL_OUTPUTS[2])

    def _clipped(self, steps: str) -> str:
        bounds = [self._constant("none", np.float32(0)), self._constant("most_steps", np.float32(_MOST_STEPS))]
        return self._add("Clip", [steps, *bounds])

    def _smooth(self, haematoxylin: str, scale: Scale) -> str:
        """Box means. The last one's input and output are cut to whole 1/65536 OD, so that all are exact."""
        *boxes, last = scale.boxes
        made: tuple[int, ...] = (scale.pooled,)
        plane = haematoxylin
        if scale.pooled > POOLED:
            plane = self._once(made, partial(self._pool, plane, scale.pooled // POOLED, scale.pooled // POOLED))
        for box in boxes:
            made = (*made, box)
            plane = self._once(made, partial(self._pool, plane, box, 1))
        whole = self._once((*made, 0), partial(self._whole, plane))
        spare = HALO // scale.pooled - scale.halo
        needed = self._window(whole, (spare, -spare), (spare, -spare)) if spare else whole
        return self._add("Floor", [self._pool(needed, last, 1)])

    def _whole(self, steps: str) -> str:
        return self._add("Floor", [self._add("Mul", [steps, self._constant("fine", np.float32(_STEPS))])])

    def _once(self, made: tuple[int, ...], make: Callable[[], str]) -> str:
        """A plane by the edges of the means that were taken to get it, and a 0 where it is cut: the first time by making it."""
        if made not in self._shared:
            self._shared[made] = make()
        return self._shared[made]

    def _pool(self, plane: str, edge: int, stride: int) -> str:
        return self._add("AveragePool", [plane], kernel_shape=[edge, edge], strides=[stride, stride])

    def _cell_means(self, plane: str) -> str:
        """Of whole numbers, so that means of means are exact, and those in two steps take two thirds of the time."""
        return self._pool(self._pool(plane, POOLED, POOLED), CELL // POOLED, CELL // POOLED)

    def _laplacian(self, plane: str) -> str:
        """The negative Laplacian: positive where the plane is denser than around."""
        # Of each pixel the one to its right and the one below it; for the pixel below and to the right they are those above and left.
        corner = self._add("Add", [self._window(plane, (0, -1), (1, None)), self._window(plane, (1, None), (0, -1))])
        around = self._add("Add", [self._window(corner, (0, -1), (0, -1)), self._window(corner, (1, None), (1, None))])
        centre = self._window(plane, (1, -1), (1, -1))
        return self._add("Sub", [self._add("Mul", [centre, self._constant("arms", np.float32(4))]), around])

    def _neighbours(self, response: str, radius: int) -> tuple[str, str]:
        """The greatest response before each pixel in reading order, and after it, within the radius.

        The response has the radius and one px more than the core on its far sides.
        """
        across = self._add("MaxPool", [response], kernel_shape=[1, 2 * radius + 1])
        down = self._add("MaxPool", [across], kernel_shape=[radius, 1])
        above = self._window(down, (0, -radius - 2), (0, -1))
        below = self._window(down, (radius + 1, -1), (0, -1))
        row = self._window(response, (radius, -radius - 1), (0, None))
        beside = self._add("MaxPool", [row], kernel_shape=[1, radius])
        left = self._window(beside, (0, None), (0, -radius - 2))
        right = self._window(beside, (0, None), (radius + 1, -1))
        return self._add("Max", [above, left]), self._add("Max", [below, right])

    def _window(self, plane: str, rows: tuple[int, int | None], columns: tuple[int, int | None]) -> str:
        """Rows and columns from a start to an end, as Python slices have them."""
        last = np.iinfo(np.int64).max
        starts = np.array([rows[0], columns[0]], np.int64)
        ends = np.array([last if end is None else end for end in (rows[1], columns[1])], np.int64)
        names = [self._constant(f"from_{starts[0]}_{starts[1]}", starts), self._constant(f"to_{rows[1]}_{columns[1]}", ends)]
        return self._add("Slice", [plane, *names, self._constant("plane_axes", np.array([2, 3], np.int64))])

    def _squeeze(self, plane: str, output: str) -> None:
        self.nodes.append(helper.make_node("Squeeze", [plane, self._constant("channel_axis", np.array([1], np.int64))], [output]))

    def _add(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{operator.lower()}_{len(self.nodes)}"
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
