"""Filters that put out maxima of haematoxylin, as `he_baseline`'s graph does: how one takes tiles, held to its manifest and its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from inference_server.engine.port import Tensor, Tensors
from inference_server.errors import ConfigurationError, InvalidInput
from inference_server.scheduler.port import ModelFacts
from inference_server.tasks.slides.findings import AnalysisPlan
from inference_server.tasks.slides.kinds.nuclei import POOLED
from inference_server.tasks.slides.manifest import FILE, NucleiManifest
from inference_server.tasks.slides.tissue.focus import block_edge
from inference_server.tasks.slides.values import Pixels

# Means over cells of the core, and both densities of each pixel, halo included.
CELL_OUTPUTS = ("haematoxylin", "eosin", "sharpness")
DENSITIES = "densities"
_TILES, _LEAK = "tiles", "eosin_leak"
# Parameters of config.pbtxt that tell what the graph fixes of its manifest; a model without them is held to its outputs' shapes alone.
_FIXED = "lamina.slide."
# What a σ may be off that of the graph: manifests say round numbers.
_SIGMA_TOLERANCE = 0.05
# Of a call; tiles of this edge and more go alone, and larger ones in parts.
_PIXELS_A_CALL = 24 * 256 * 256
_MOST_EDGE = 512


class NucleusFilter:
    """One filter of the repository."""

    def __init__(self, *, manifest: NucleiManifest, facts: ModelFacts) -> None:
        """Raises `ConfigurationError` when the manifest does not fit the model."""
        self.manifest = manifest
        self.model = facts.name
        # 0 where the model tells no bound.
        self._most_rows = facts.max_batch_size
        _check_tensors(manifest, facts)
        _check_cells(manifest, facts.name)
        _check_fixed(manifest, facts)

    def plan(self, tile_size: int = 0) -> AnalysisPlan:
        """The plan for tiles of a size, 0 for the manifest's. Results do not depend on it. Raises `InvalidInput`."""
        manifest, (least, most) = self.manifest, self.manifest.tile_sizes
        size = tile_size or manifest.tile_size
        if not least <= size <= most or size % manifest.cell:
            raise InvalidInput(
                f"tile_size is {tile_size}; {self.model} takes multiples of {manifest.cell} from {least} to {most} px, "
                f"or 0 for {manifest.tile_size}."
            )
        batch = _PIXELS_A_CALL // size**2 if size < _MOST_EDGE else 1
        return AnalysisPlan(
            model=self.model,
            outputs=(*manifest.outputs, *CELL_OUTPUTS),
            mpp=manifest.mpp,
            tile_size=size,
            halo=manifest.halo,
            cell=manifest.cell,
            least_tissue=0.0,
            batch=min(batch, self._most_rows or batch),
            learned_weights=False,
            most_edge=_MOST_EDGE,
        )

    def check_outputs(self, outputs: Mapping[str, Tensor], tiles: tuple[int, ...]) -> None:
        """Raise `ConfigurationError` where the model puts out other shapes of tiles of this one than its manifest lets expect."""
        halo, cell = self.manifest.halo, self.manifest.cell
        count, rows, columns = tiles[0], tiles[1] - 2 * halo, tiles[2] - 2 * halo
        # Large blobs may be looked for on means of twice as many pixels.
        maxima = [(count, rows // pooled, columns // pooled) for pooled in (POOLED, 2 * POOLED)]
        means = [(count, rows // cell, columns // cell)]
        expected = {**dict.fromkeys(self.manifest.outputs, maxima), **dict.fromkeys(CELL_OUTPUTS, means)}
        for name, values in outputs.items():
            if name in expected and values.shape not in expected[name]:
                raise ConfigurationError(
                    f"{self.model} puts out {name} of the shape {list(values.shape)} for {count} tiles of "
                    f"{tiles[2]} × {tiles[1]} px; by halo {halo} and cell {cell} of its {FILE} {list(expected[name][0])} "
                    "was expected. Say both as the model has them."
                )


def inputs_of(tiles: Pixels, leaks: Sequence[float]) -> Tensors:
    """A filter's input from tiles with their halo, and each one's leak of eosin."""
    return {_TILES: tiles, _LEAK: np.array(leaks, np.float32)[:, None]}


def _check_tensors(manifest: NucleiManifest, facts: ModelFacts) -> None:
    for side, needed, specs in (
        ("input", (_TILES, _LEAK), facts.inputs),
        ("output", (*manifest.outputs, *CELL_OUTPUTS, DENSITIES), facts.outputs),
    ):
        has = [spec.name for spec in specs]
        if lacking := [name for name in needed if name not in has]:
            raise ConfigurationError(
                f"{facts.name} lacks the {side} {', '.join(lacking)}, which its {FILE} of kind {manifest.kind} needs; "
                f"it has: {', '.join(has)}. Name scales by the model's outputs, and take the model from he_baseline's folder."
            )
    tiles = next(spec for spec in facts.inputs if spec.name == _TILES)
    if tiles.dtype != np.uint8:
        raise ConfigurationError(f"{facts.name} takes {_TILES} of {tiles.dtype}; a model of kind {manifest.kind} takes pixels as uint8.")


def _check_cells(manifest: NucleiManifest, model: str) -> None:
    block = block_edge(manifest.mpp)
    if block != manifest.cell:
        raise ConfigurationError(
            f"{model}/{FILE} says a cell of {manifest.cell} px at an mpp of {manifest.mpp:g}; blur is told on blocks of {block} px there, "
            "which must be the cells. Say an mpp at which a cell is about 8 µm (6 to 11)."
        )


def _check_fixed(manifest: NucleiManifest, facts: ModelFacts) -> None:
    for key, said in (("halo", manifest.halo), ("cell", manifest.cell)):
        fixed = _fixed(facts, key)
        if fixed is not None and fixed != said:
            raise ConfigurationError(f"{facts.name}/{FILE} says {key} {said}; the model's graph has {fixed:g}. Say that.")
    least = _fixed(facts, "least_response_od")
    if least is not None and manifest.least_response_od < least:
        raise ConfigurationError(
            f"{facts.name}/{FILE} says least_response_od {manifest.least_response_od:g}; the model's graph puts out no maxima of less than "
            f"{least:g}. Say that or more."
        )
    for name, sigma in manifest.scales.items():
        pixels = _fixed(facts, f"sigma.{name}")
        if pixels is not None and abs(sigma / (pixels * manifest.mpp) - 1) > _SIGMA_TOLERANCE:
            raise ConfigurationError(
                f"{facts.name}/{FILE} says {sigma:g} µm as scales.{name}; the graph's Gaussian has {pixels:g} px, which are "
                f"{pixels * manifest.mpp:.3g} µm at its mpp of {manifest.mpp:g}. Say that, or another mpp."
            )


def _fixed(facts: ModelFacts, key: str) -> float | None:
    """What the graph has, as its config.pbtxt tells; None where it does not."""
    told = facts.parameters.get(f"{_FIXED}{key}")
    try:
        return None if told is None else float(told)
    except ValueError as error:
        raise ConfigurationError(f"{facts.name}/config.pbtxt has the parameter {_FIXED}{key} {told!r}; expected a number") from error
