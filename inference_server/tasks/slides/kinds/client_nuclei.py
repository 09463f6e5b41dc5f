"""A filter of nuclear candidates on one tile that stands for itself: no slide is around it, and what is chosen, is chosen from it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor, Tensors
from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.kinds.maxima import Maxima
from inference_server.tasks.slides.kinds.nuclei import choose, eosin_leak
from inference_server.tasks.slides.kinds.nucleus_filter import DENSITIES, inputs_of
from inference_server.tasks.slides.manifest import NucleiManifest
from inference_server.tasks.slides.values import Pixels, Point, TileFindings

# Maxima so near to an edge, in pixels, are the same nucleus as their mirror image (4 µm).
_REACH = 8


def outputs_of(manifest: NucleiManifest) -> tuple[str, ...]:
    """What the model is asked for."""
    return (*manifest.outputs, DENSITIES)


def inputs(tiles: Sequence[Pixels], grid: Grid, manifest: NucleiManifest) -> Tensors:
    """The model's input from tiles of one size: mirrored past their edges, and on to whole cells below and right.

    Maxima may lie in a cell's width of what is mirrored, beside the halo: nuclei that the edge cuts have their maximum there.
    """
    cell, margin = manifest.cell, manifest.halo + manifest.cell
    padding = ((margin, margin + -grid.height % cell), (margin, margin + -grid.width % cell), (0, 0))
    return inputs_of(np.stack([np.pad(each, padding, mode="symmetric") for each in tiles]), [eosin_leak(each) for each in tiles])


def findings(name: str, grid: Grid, outputs: Mapping[str, Tensor], manifest: NucleiManifest) -> TileFindings:
    """What is told of a tile; places in its own pixels."""
    start = manifest.halo + manifest.cell
    edge = outputs[DENSITIES].shape[-1] - 2 * manifest.halo
    nuclei = choose(
        [_maxima(outputs[scale], grid, band=manifest.cell, pooled=edge // outputs[scale].shape[-1]) for scale in manifest.outputs],
        manifest.sigmas,
        width=grid.width,
        height=grid.height,
        least=manifest.least_response_od,
        share=manifest.response_share,
    )
    densities = np.maximum(outputs[DENSITIES][:, start : start + grid.height, start : start + grid.width], 0)
    haematoxylin, eosin = densities.mean(axis=(1, 2), dtype=np.float64).tolist()
    count = len(nuclei.scale)
    return TileFindings(
        id=name,
        scores={
            "nuclear_candidates": float(count),
            "nuclear_candidates_per_mm2": count / (grid.width * grid.height * grid.cell_mm2),
            "mean_haematoxylin_od": haematoxylin,
            "mean_eosin_od": eosin,
        },
        points=tuple(
            Point(x=x * grid.scale_x, y=y * grid.scale_y, score=score)
            for x, y, score in zip(nuclei.found.x.tolist(), nuclei.found.y.tolist(), nuclei.found.response.tolist(), strict=True)
        ),
    )


def _maxima(output: Tensor, grid: Grid, *, band: int, pooled: int) -> Maxima:
    """The maxima of one scale, on means of so many pixels, on the tile, which begins after a band of pixels.

    One that lies past an edge is taken for its mirror image, unless that was found too.
    """
    rows, columns = np.nonzero(output)
    x, y = pooled * columns.astype(np.int32) - band, pooled * rows.astype(np.int32) - band
    response = output[rows, columns].astype(np.float32)
    inner_x, inner_y = _mirrored(x, grid.width), _mirrored(y, grid.height)
    moved = (inner_x != x) | (inner_y != y)
    taken = ~moved
    for index in np.flatnonzero(moved & (np.maximum(np.abs(inner_x - x), np.abs(inner_y - y)) <= 2 * _REACH)).tolist():
        apart = np.maximum(np.abs(inner_x - inner_x[index]), np.abs(inner_y - inner_y[index]))
        taken[index] = not np.any(taken & (apart <= _REACH // 2))
    order = np.flatnonzero(taken)[np.lexsort((inner_x[taken], inner_y[taken]))]
    return Maxima(x=inner_x[order], y=inner_y[order], response=response[order])


def _mirrored(place: NDArray[np.int32], length: int) -> NDArray[np.int32]:
    inside = np.abs(place)
    folded: NDArray[np.int32] = np.where(inside > length, 2 * length - inside, inside)
    return np.clip(folded, 0, length - 1)
