"""The manifest of an analysis, `slide.json` beside its model in the repository: what the model itself cannot say."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from inference_server.errors import ConfigurationError, NotFound
from inference_server.models import shipped

# The analysis that is run where none is named.
BUILT_IN = "he_baseline"
FILE = "slide.json"

_Factor = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Level = Annotated[int, Field(ge=0, le=255)]
_Colour = tuple[_Level, _Level, _Level]
_Edge = Annotated[int, Field(ge=16, le=4096)]
_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Kind = TypeVar("_Kind", bound="Manifest")


class StainManifest(BaseModel):
    """How the colours of a slide are brought to those that a network was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["macenko", "reinhard"]
    # What the colours are estimated from: tiles spread over the slide, or each tile alone.
    estimate: Literal["slide", "tile"] = "slide"


class Manifest(BaseModel):
    """What all kinds share. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkManifest(Manifest):
    """What all networks share."""

    # Names of the tensors; the model's only ones when not given.
    input: str = ""
    output: str = ""


class TileManifest(NetworkManifest):
    """How tiles are cut, and how a network takes them."""

    # Micrometres per pixel that the network was trained on.
    mpp: Annotated[float, Field(gt=0, le=100)]
    # Edge of its tiles in pixels.
    tile_size: _Edge
    # Pixels that neighbouring tiles share; each speaks for its centre.
    overlap: Annotated[int, Field(ge=0)] = 0
    # Pixels (0 to 255) are multiplied by `scale`, then `mean` is subtracted and the result divided by `std`, by channel R, G, B.
    scale: _Factor = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[_Factor, _Factor, _Factor] = (1.0, 1.0, 1.0)
    # Before that, the colours of the stains; None to take them as they are.
    stain: StainManifest | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    # A tile is analysed when more than this share of it is tissue.
    least_tissue: Annotated[float, Field(ge=0, lt=1)] = 0.1
    # Whether what has the colours of ink is left out of the tissue, or kept: stains of other kinds than HE have them.
    ink: Literal["exclude", "keep"] = "exclude"

    @model_validator(mode="after")
    def _tiles_have_a_centre(self) -> TileManifest:
        if self.overlap % 2 or self.tile_size - self.overlap < 16:
            raise ValueError(f"overlap is {self.overlap}; expected an even number that leaves at least 16 px of each tile")
        return self

    @property
    def core(self) -> int:
        """Edge of the centre that a tile speaks for."""
        return self.tile_size - self.overlap


class Classes(BaseModel):
    """What the values of an output mean."""

    # Names of the classes, in the order of the output.
    classes: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=1000)]
    # The class that the heatmap shows; the last one when not given.
    positive: str = ""
    # Least probability by class at which it is taken; of those that reach theirs the likeliest is.
    thresholds: dict[str, _Share] = {}
    # What turns the output into probabilities; none where the network does it itself.
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    # Colour of each class in overlays and in QuPath, 0 to 255.
    colors: dict[str, _Colour] = {}

    @model_validator(mode="after")
    def _names_agree(self) -> Classes:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes has the same name twice")
        unknown = ({self.positive} - {""} | set(self.colors) | set(self.thresholds)) - set(self.classes)
        if unknown:
            raise ValueError(f"positive, colors and thresholds name {', '.join(sorted(unknown))}, which classes lacks")
        if len(self.classes) == 1 and (self.activation == "softmax" or not self.thresholds):
            raise ValueError(
                "classes has one name, which would be taken always; give it a threshold, with the activation sigmoid or none, "
                "or name a second class for the rest"
            )
        return self

    @property
    def heat_class(self) -> int:
        """Index of the class that the heatmap shows."""
        return self.classes.index(self.positive) if self.positive else len(self.classes) - 1


class TileClassifierManifest(TileManifest, Classes):
    """A network that gives each tile a class."""

    kind: Literal["classifier"] = "classifier"


class EmbedderManifest(TileManifest):
    """A network that gives each tile a vector."""

    kind: Literal["embedder"]
    # Length of the vectors; 0 to take it from the network.
    features: Annotated[int, Field(ge=0, le=65_536)] = 0
    # As which they are kept, handed to a head and written.
    precision: Literal["float32", "float16"] = "float32"


class HeadManifest(NetworkManifest, Classes):
    """A network that judges a slide by the vectors of its tiles."""

    kind: Literal["mil"]
    # The embedder's name in the repository.
    embedder: _Name
    # The output with one weight a tile; empty for a head without.
    attention: str = ""
    # softmax where the network gives the weights before it.
    attention_activation: Literal["softmax", "none"] = "none"
    # Tiles of at least this rank of attention become features for QuPath.
    attention_shown: _Share = 0.9
    # Most tiles that are judged; of more, every second, third and so on is taken.
    most_tiles: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000


class SegmenterManifest(TileManifest, Classes):
    """A network that gives each pixel a class."""

    kind: Literal["segmenter"]
    # Pixels of the tile for each pixel of the output, along each axis.
    output_stride: Annotated[int, Field(ge=1, le=64)] = 1
    # The class that is nothing: it has no polygons.
    background: str = ""
    # Smaller polygons are left out.
    least_area_um2: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _outputs_fit(self) -> SegmenterManifest:
        if self.background and self.background not in self.classes:
            raise ValueError(f"background is {self.background}, which classes lacks")
        if len(self.classes) > _MOST_PIXEL_CLASSES:
            raise ValueError(f"classes has {len(self.classes)} names; at most {_MOST_PIXEL_CLASSES} fit into a mask")
        if self.core % self.output_stride or (self.overlap // 2) % self.output_stride:
            raise ValueError(f"output_stride {self.output_stride} does not divide tile_size less overlap, and half the overlap")
        return self


class NucleiManifest(Manifest):
    """A filter that puts out maxima of haematoxylin at several scales, without learned weights: `he_baseline` is one."""

    kind: Literal["nuclei"]
    # Micrometres per pixel at which the filter is run.
    mpp: Annotated[float, Field(gt=0, le=100)]
    # Edge of a tile's core in pixels where the request names none, and the least and the greatest that it may name.
    tile_size: _Edge
    tile_sizes: tuple[_Edge, _Edge] = (64, 2048)
    # Pixels that the filter sees beyond each side of the core, and the edge of the cells of its means.
    halo: Annotated[int, Field(ge=0, le=1024)]
    cell: Annotated[int, Field(ge=4, le=256)]
    # σ of each scale in µm, by the output that has its maxima.
    scales: Annotated[dict[_Name, _Factor], Field(min_length=2, max_length=8)]
    # What candidates are called, by QuPath too.
    classes: tuple[_Name]
    colors: dict[str, _Colour] = {}
    # A candidate answers at least so much, in OD (less where strong maxima are far above it), and this share of what those do.
    least_response_od: _Factor
    response_share: _Share

    @model_validator(mode="after")
    def _numbers_agree(self) -> NucleiManifest:
        least, most = self.tile_sizes
        if not least <= self.tile_size <= most or any(edge % self.cell for edge in (self.tile_size, least, most)):
            raise ValueError(
                f"tile_size is {self.tile_size}, and tile_sizes are {least} to {most}; expected the one within the others, "
                f"and all as multiples of cell, {self.cell}"
            )
        if len(set(self.scales.values())) < len(self.scales):
            raise ValueError("scales has the same σ twice; expected one for each output")
        if unknown := set(self.colors) - set(self.classes):
            raise ValueError(f"colors names {', '.join(sorted(unknown))}, which classes lacks")
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those of the scales, the finest first."""
        return tuple(sorted(self.scales, key=self.scales.__getitem__))

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Of the scales, as their outputs, in pixels of the filter."""
        return tuple(self.scales[name] / self.mpp for name in self.outputs)


# A mask has a byte a pixel, and two of its values mean no class.
_MOST_PIXEL_CLASSES = 254
_KINDS: dict[str, type[Manifest]] = {
    "classifier": TileClassifierManifest,
    "embedder": EmbedderManifest,
    "mil": HeadManifest,
    "segmenter": SegmenterManifest,
    "nuclei": NucleiManifest,
}


def available(models: Path) -> tuple[str, ...]:
    """Every analysis that can be named."""
    custom = sorted(path.parent.name for path in models.glob(f"*/{FILE}") if not path.parent.name.startswith((".", "_")))
    return (BUILT_IN, *(name for name in custom if name != BUILT_IN))


def read(models: Path, name: str) -> Manifest:
    """The manifest of an analysis, of the class of its kind.

    Raises `NotFound` with what there is, `ConfigurationError` for a manifest that is wrong.
    """
    known = available(models)
    if name not in known:
        raise NotFound(
            f"no analysis is called {name}; there are: {', '.join(known)}. To add one, put {FILE} beside an ONNX model in the repository."
        )
    try:
        content = _content(models, name).removeprefix(codecs.BOM_UTF8)
        return _kind(name, content).model_validate_json(content)
    except ValidationError as error:
        raise _wrong(name, "; ".join(map(_told, error.errors()))) from error
    except OSError as error:
        raise ConfigurationError(f"{name}/{FILE} cannot be read ({type(error).__name__}). Check its permissions.") from error


def wrong(models: Path) -> dict[str, str]:
    """Why manifests cannot be used, by analysis; whether they fit their models shows when these are loaded."""
    reasons = {}
    for name in available(models):
        try:
            read(models, name)
        except ConfigurationError as error:
            reasons[name] = str(error)
    return reasons


def read_as(kind: type[_Kind], models: Path, name: str, *, used_by: str) -> _Kind:
    """A manifest that must be of one kind. Raises as `read` does, and `ConfigurationError` where it is of another."""
    found = read(models, name)
    if not isinstance(found, kind):
        wanted = next(key for key, each in _KINDS.items() if each is kind)
        raise ConfigurationError(f"{used_by} needs {name} to be a model of kind {wanted}; its {FILE} says another. Name another model.")
    return found


def _wrong(name: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"{name}/{FILE} is wrong: {what}. docs/slides/models.md tells each key.")


def _told(fault: ErrorDetails) -> str:
    """What is wrong with one key."""
    key = ".".join(str(part) for part in fault["loc"]) or "the whole"
    return f"{key}: {'there is no such key' if fault['type'] == 'extra_forbidden' else fault['msg'].removeprefix('Value error, ')}"


def _content(models: Path, name: str) -> bytes:
    try:
        return (models / name / FILE).read_bytes()
    except FileNotFoundError:
        if name != BUILT_IN:
            raise
        # The repository was built by a release whose built-in analysis had no manifest; it ran by the same numbers.
        return shipped.slide_manifest(name)


def _kind(name: str, content: bytes) -> type[Manifest]:
    """By the manifest's `kind`; what is no JSON object is left to the kind that needs none."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return TileClassifierManifest
    kind = told.get("kind", "classifier") if isinstance(told, dict) else "classifier"
    if not isinstance(kind, str) or kind not in _KINDS:
        raise _wrong(name, f"kind: {kind!r}; there are {', '.join(_KINDS)}")
    return _KINDS[kind]
