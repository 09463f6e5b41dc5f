"""What all tile models share: how they take tiles, where tiles lie, and how values become classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor, Tensors, TensorSpec
from inference_server.errors import ConfigurationError, InvalidInput
from inference_server.scheduler.port import ModelFacts
from inference_server.tasks.slides.findings import AnalysisPlan, Corners
from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.kinds.levels import Levels
from inference_server.tasks.slides.kinds.stains import Normaliser, normaliser
from inference_server.tasks.slides.manifest import FILE, Classes, TileManifest
from inference_server.tasks.slides.values import Pixels

# About the cell of the tissue mask, in µm.
_CELL_MICROMETRES = 8.0
_MOST_DOUBLINGS = 16
_PIXELS_A_CALL = 16 * 256 * 256
# What probabilities of networks of 16 bits may be beyond 0 and 1, and their sum beside 1.
ROUNDING = 0.01
# Fewer judgements may all be undecided, as those of a field of a few tiles are.
_LEAST_TOLD = 32
# Of them so many are looked at together.
_LOOKED_AT = 1024
# One value tells both of two classes.
_COMPLEMENTS = 2
# What leaves a pixel as it is.
_UNTOUCHED: dict[str, object] = {"scale": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
# Okabe and Ito's colours, which readers without colour vision can tell apart.
_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (240, 228, 66), (110, 110, 110))


class TileModel:
    """How one network takes tiles."""

    def __init__(self, *, manifest: TileManifest, facts: ModelFacts) -> None:
        """Raises `ConfigurationError` when the manifest does not fit the model."""
        self.manifest = manifest
        self.model = facts.name
        self.output = tensor_name(facts, manifest.output, "output")
        self.output_dtype = next(spec.dtype for spec in facts.outputs if spec.name == self.output)
        self._input = tensor_name(facts, manifest.input, "input")
        spec = next(spec for spec in facts.inputs if spec.name == self._input)
        _check_input(spec, manifest, facts.name)
        if spec.dtype == np.uint8:
            _check_untouched(manifest, facts.name)
        self._levels = None if spec.dtype == np.uint8 else Levels(manifest, spec.dtype, model=facts.name)
        self._limit = facts.max_batch_size or 1

    def plan(self, tile_size: int = 0, *, analysis: str = "", extras: tuple[str, ...] = (), step: int = 1, weight: int = 1) -> AnalysisPlan:
        """The plan. `step`: a number of pixels that the mask's cells are whole multiples of; `weight`: as plans have it.

        Raises `InvalidInput` for another tile size than the model's.
        """
        manifest = self.manifest
        if tile_size not in (0, manifest.tile_size):
            raise InvalidInput(f"tile_size is {tile_size}; {self.model} takes {manifest.tile_size} px. Leave it 0.")
        return AnalysisPlan(
            model=self.model,
            analysis=analysis,
            outputs=(self.output,),
            mpp=manifest.mpp,
            tile_size=manifest.core,
            halo=manifest.overlap // 2,
            cell=_cell(manifest, step),
            least_tissue=manifest.least_tissue,
            keeps_ink=manifest.ink == "keep",
            batch=max(min(_PIXELS_A_CALL // (manifest.tile_size**2 * weight), self._limit), 1),
            learned_weights=True,
            weight=weight,
            extras=extras,
        )

    def inputs(self, tiles: Pixels, normalise: Normaliser | None = None) -> Tensors:
        """Normalised as the manifest says; a model of uint8 takes the pixels as they are."""
        if normalise is not None:
            # Each by itself, so that a tile's pixels do not depend on its batch.
            tiles = np.stack([normalise(tile) for tile in tiles])
        planes = self.manifest.layout == "NCHW"
        if self._levels is not None:
            return {self._input: self._levels.of(tiles, planes=planes)}
        return {self._input: np.ascontiguousarray(np.moveaxis(tiles, -1, 1)) if planes else tiles}

    def values(self, outputs: Mapping[str, Tensor], tiles: int) -> Tensor:
        """What the network put out of so many tiles, as `output_of` gives it. Raises `ConfigurationError` for another number of them."""
        check_rows(outputs, tiles, self.model)
        return output_of(outputs, self.output, self.model)

    def normaliser(self, sample: Pixels) -> Normaliser | None:
        """How colours are brought to the reference's, estimated from a sample where the manifest says so; None to leave them."""
        stain = self.manifest.stain
        return None if stain is None else normaliser(stain, sample if stain.estimate == "slide" else None)


def _check_input(spec: TensorSpec, manifest: TileManifest, model: str) -> None:
    """Raise `ConfigurationError` where a network takes other tiles than its manifest tells of."""
    if spec.dtype.hasobject:
        raise ConfigurationError(f"{model} takes text as {spec.name}; a model of tiles takes numbers.")
    edge, known = manifest.tile_size, list(spec.shape)
    expected = [1, 3, edge, edge] if manifest.layout == "NCHW" else [1, edge, edge, 3]
    if len(known) != 4 or any(size not in (-1, wanted) for size, wanted in zip(known, expected, strict=True)):
        raise ConfigurationError(
            f"{model} takes {spec.name} of the shape {known}, and its {FILE} says {expected}, where the first is any number (-1) or 1. "
            "Say tile_size and layout as the network has them, or export it for any number of tiles."
        )


def _check_untouched(manifest: TileManifest, model: str) -> None:
    """Raise `ConfigurationError` where a manifest normalises what a network takes as it is."""
    told = sorted(key for key, neutral in _UNTOUCHED.items() if key in manifest.model_fields_set and getattr(manifest, key) != neutral)
    if told:
        raise ConfigurationError(
            f"{model} takes pixels as uint8, as they are, and its {FILE} says {' and '.join(told)}, which nothing would apply. "
            "Leave them out if the network normalises pixels itself; else export it so that it takes float32."
        )


def tensor_name(facts: ModelFacts, wanted: str, side: str) -> str:
    """The tensor that a manifest names, or the only one. Raises `ConfigurationError`."""
    names = [spec.name for spec in (facts.inputs if side == "input" else facts.outputs)]
    if wanted and wanted not in names:
        raise ConfigurationError(f"{facts.name}/{FILE} names the {side} {wanted}; the model has: {', '.join(names)}.")
    if not wanted and len(names) > 1:
        raise ConfigurationError(f"{facts.name} has several {side}s ({', '.join(names)}); name one as {side} in {FILE}.")
    return wanted or names[0]


def check_rows(outputs: Mapping[str, Tensor], tiles: int, model: str) -> None:
    """Raise `ConfigurationError` where an output has not a row for each of so many tiles."""
    for name, values in outputs.items():
        if values.shape[:1] != (tiles,):
            raise ConfigurationError(
                f"{model} puts out {name} of the shape {list(values.shape)} for {tiles} tiles; "
                "expected them along the first dimension. Export it with that dimension."
            )


def output_of(outputs: Mapping[str, Tensor], name: str, model: str) -> Tensor:
    """What a model put out under a name. Raises `ConfigurationError` where a value is no number."""
    values = outputs[name]
    if values.dtype.hasobject:
        raise ConfigurationError(f"{model} puts out text as {name}; numbers were expected.")
    if not np.isfinite(values).all():
        raise ConfigurationError(
            f"{model} puts out values of {name} that are no finite numbers. Export it again, and check its precision and its normalisation."
        )
    return values


def as_numbers_of(dtype: np.dtype[Any], values: Tensor, *, source: str, way_out: str) -> NDArray[np.floating]:
    """Finite values in a type that must hold them. `source`, `way_out`: for errors. Raises `ConfigurationError` where one is too large."""
    with np.errstate(over="ignore"):
        cast: NDArray[np.floating] = values.astype(dtype)
    if not np.isfinite(cast).all():
        largest, most = float(values.reshape(-1)[np.abs(values).argmax()]), float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
        raise ConfigurationError(f"{source} puts out {largest:g}, and {dtype.name} holds ±{most:g} at most. {way_out}")
    return cast


def class_probabilities(values: NDArray[np.floating], manifest: Classes, *, axis: int, model: str, unit: str) -> NDArray[np.floating]:
    """What a network puts out as a probability for each class, along their axis. A single value is that of the second of two classes.

    `model` and the `unit` that it judges are named in errors. Raises `ConfigurationError` for another number of values than of classes.
    """
    probabilities = activated(values, manifest.activation, axis)
    least, most = (float(edge) for edge in (probabilities.min(initial=0), probabilities.max(initial=0)))
    if least < -ROUNDING or most > 1 + ROUNDING:
        raise ConfigurationError(
            f"{model} puts out {least if least < 0 else most:g} as a probability. "
            f"Say the activation that it needs in {FILE}: softmax or sigmoid instead of none."
        )
    count, classes = values.shape[axis], len(manifest.classes)
    if count == 1 and classes == 2 and manifest.activation != "softmax":
        return np.concatenate([1 - probabilities, probabilities], axis=axis)
    if count != classes:
        single = " A single value of two classes needs the activation sigmoid or none." if (count, classes) == (1, 2) else ""
        raise ConfigurationError(f"{model} puts out {count} values a {unit}, and {FILE} names {classes} classes.{single}")
    return probabilities


def activated(values: NDArray[np.floating], activation: str, axis: int) -> NDArray[np.floating]:
    """Values as probabilities, along the axis of the classes."""
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=axis, keepdims=True))
        return np.asarray(powers / powers.sum(axis=axis, keepdims=True))
    return np.asarray(1 / (1 + np.exp(-values))) if activation == "sigmoid" else values


def doubt(probabilities: NDArray[np.float64], manifest: Classes) -> tuple[str, ...]:
    """A note where the network seems to have made probabilities itself, before the manifest's activation did.

    `probabilities`: of many judgements, count × classes, after the activation; of a few there is no note.
    """
    if len(probabilities) < _LEAST_TOLD or manifest.activation == "none":
        return ()
    made = _made_by_softmax if manifest.activation == "softmax" else _made_by_sigmoid
    values = probabilities[:, -1:] if made is _made_by_sigmoid and len(manifest.classes) == _COMPLEMENTS else probabilities
    if not all(made(values[start : start + _LOOKED_AT]) for start in range(0, len(values), _LOOKED_AT)):
        return ()
    return (twice(manifest.activation),)


def _made_by_softmax(probabilities: NDArray[np.float64]) -> bool:
    """Whether what softmax was applied to can have been probabilities: of values that sum to 1, none is below 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = np.log(probabilities)
        before = logarithms - logarithms.mean(axis=1, keepdims=True) + 1 / probabilities.shape[1]
    return bool((before >= -ROUNDING).all())


def _made_by_sigmoid(probabilities: NDArray[np.float64]) -> bool:
    least, most = activated(np.array([-ROUNDING, 1 + ROUNDING]), "sigmoid", 0)
    return bool(((probabilities >= least) & (probabilities <= most)).all())


def twice(activation: str) -> str:
    """The note of it."""
    return (
        f"No value of the network seems to lie outside 0 to 1: if it makes probabilities itself, {activation} was applied twice, "
        f"which makes them too alike. Then say the activation none in {FILE}."
    )


def taken(probabilities: NDArray[np.floating], classes: Sequence[str], thresholds: Mapping[str, float], axis: int) -> NDArray[np.int64]:
    """The likeliest of the classes that reach their threshold, the first of equals; -1 where none does."""
    if not thresholds:
        return np.asarray(probabilities.argmax(axis=axis), np.int64)
    shape = [1] * probabilities.ndim
    shape[axis] = len(classes)
    least = np.array([thresholds.get(name, 0.0) for name in classes], probabilities.dtype).reshape(shape)
    reached = np.where(probabilities >= least, probabilities, -1)
    return np.where(reached.max(axis=axis) < 0, -1, reached.argmax(axis=axis)).astype(np.int64)


def colour_of(name: str, classes: Sequence[str], colors: Mapping[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    """As the manifest says, else from the palette."""
    return colors.get(name, _COLOURS[classes.index(name) % len(_COLOURS)])


def rectangle(row: int, column: int, size: int, grid: Grid) -> Corners:
    """A tile's corners in level-0 pixels, cut at the slide's edge."""
    left, top = column * size * grid.scale_x, row * size * grid.scale_y
    right = min((column + 1) * size * grid.scale_x, grid.slide_width)
    bottom = min((row + 1) * size * grid.scale_y, grid.slide_height)
    return (left, top), (right, top), (right, bottom), (left, bottom)


def _cell(manifest: TileManifest, step: int) -> int:
    """`step` doubled as often as brings it nearest to 8 µm: levels of a pyramid have whole blocks of that."""
    return min((step << doubled for doubled in range(_MOST_DOUBLINGS)), key=lambda size: abs(size * manifest.mpp - _CELL_MICROMETRES))
