"""The manifest of a tile model, `slide.json` beside it in the repository: what the network itself cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inference_server.errors import ConfigurationError, NotFound
from inference_server.tasks.slides import he_baseline

FILE = "slide.json"

_Factor = Annotated[float, Field(gt=0)]


class TileClassifierManifest(BaseModel):
    """How tiles are cut for a classifier, and what its output means. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["classifier"] = "classifier"
    # Micrometres per pixel that the network was trained on.
    mpp: Annotated[float, Field(gt=0, le=100)]
    # Edge of its tiles in pixels.
    tile_size: Annotated[int, Field(ge=16, le=4096)]
    # Names of the classes, in the order of the output.
    classes: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(min_length=1, max_length=1000)]
    # The class that the heatmap shows; the last one when not given.
    positive: str = ""
    # Pixels (0 to 255) are multiplied by `scale`, then `mean` is subtracted and the result divided by `std`, by channel R, G, B.
    scale: _Factor = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[_Factor, _Factor, _Factor] = (1.0, 1.0, 1.0)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    # What turns the output into probabilities; none where the network does it itself.
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    # Names of the tensors; the model's only ones when not given.
    input: str = ""
    output: str = ""
    # A tile is classified when more than this share of it is tissue.
    least_tissue: Annotated[float, Field(ge=0, lt=1)] = 0.1
    # Colour of each class in overlays and in QuPath, 0 to 255.
    colors: dict[str, tuple[int, int, int]] = {}

    @model_validator(mode="after")
    def _names_agree(self) -> TileClassifierManifest:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes has the same name twice")
        unknown = ({self.positive} - {""} | set(self.colors)) - set(self.classes)
        if unknown:
            raise ValueError(f"positive and colors name {', '.join(sorted(unknown))}, which classes lacks")
        return self

    @property
    def heat_class(self) -> int:
        """Index of the class that the heatmap shows."""
        return self.classes.index(self.positive) if self.positive else len(self.classes) - 1


def available(models: Path) -> tuple[str, ...]:
    """Every analysis that can be named."""
    custom = sorted(path.parent.name for path in models.glob(f"*/{FILE}") if not path.parent.name.startswith((".", "_")))
    return (he_baseline.NAME, *(name for name in custom if name != he_baseline.NAME))


def read(models: Path, name: str) -> TileClassifierManifest:
    """The manifest of a tile model. Raises `NotFound` with what there is, `ConfigurationError` for a manifest that is wrong."""
    known = available(models)
    if name not in known:
        raise NotFound(
            f"no analysis is called {name}; there are: {', '.join(known)}. "
            f"To add one, put {FILE} beside an ONNX tile classifier in the repository."
        )
    try:
        return TileClassifierManifest.model_validate_json((models / name / FILE).read_bytes())
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(str(part) for part in each['loc']) or 'the whole'}: {each['msg']}" for each in error.errors())
        raise ConfigurationError(f"{name}/{FILE} is wrong: {wrong}. docs/slides.md tells each key.") from error
    except OSError as error:
        raise ConfigurationError(f"{name}/{FILE} cannot be read ({type(error).__name__}). Check its permissions.") from error
