"""Optimisation profiles of TensorRT: the ranges of shapes that an engine is built for, one for each bucket of shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference_server.engine.port import TensorSpec
from inference_server.engine.selection.sample import sample_shape
from inference_server.errors import ConfigurationError

Shape = tuple[int, ...]
_RANGE = re.compile(r"(?P<input>[^=,]+)=(?P<least>\d+(x\d+)*):(?P<best>\d+(x\d+)*):(?P<most>\d+(x\d+)*)")
_EXPECTED = "expected INPUT=MIN:OPT:MAX, such as x=1x3x224x224:8x3x224x224:32x3x224x224, and a comma between inputs"
# Where nobody tells the sizes of a dimension that varies: a quarter to four times of a likely one.
_SPREAD = 4


@dataclass(frozen=True, kw_only=True)
class Range:
    """Shapes of one input, the batch dimension included."""

    least: Shape
    # What the engine is made fastest for.
    best: Shape
    most: Shape

    def holds(self, shape: Shape) -> bool:
        """Whether a shape lies within."""
        return len(shape) == len(self.least) and all(
            low <= size <= high for low, size, high in zip(self.least, shape, self.most, strict=True)
        )

    def __str__(self) -> str:
        return ":".join("x".join(map(str, shape)) for shape in (self.least, self.best, self.most))


# Ranges by input.
Profile = Mapping[str, Range]


def written(profile: Profile) -> str:
    """A profile as settings and configurations write it."""
    return ",".join(f"{name}={profile[name]}" for name in sorted(profile))


def read_profile(text: str) -> dict[str, Range]:
    """A profile of `INPUT=MIN:OPT:MAX,…`. Raises `ConfigurationError`."""
    profile = {}
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        if not found:
            raise ConfigurationError(f"{part.strip()!r} is no part of an optimisation profile; {_EXPECTED}")
        least, best, most = (tuple(map(int, found[name].split("x"))) for name in ("least", "best", "most"))
        if len({len(least), len(best), len(most)}) > 1 or not all(
            low <= mid <= high for low, mid, high in zip(least, best, most, strict=True)
        ):
            raise ConfigurationError(f"the optimisation profile {part.strip()!r} does not ascend in each dimension; {_EXPECTED}")
        profile[found["input"]] = Range(least=least, best=best, most=most)
    return profile


def check_profile(profile: Profile, inputs: Sequence[TensorSpec]) -> None:
    """Raises `ConfigurationError` for a profile that does not name the model's inputs or does not fit their shapes."""
    specs = {spec.name: spec for spec in inputs}
    if set(profile) != set(specs):
        raise ConfigurationError(
            f"the optimisation profile {written(profile)} names the inputs {', '.join(sorted(profile))}; the model has {', '.join(specs)}"
        )
    for name, told in profile.items():
        shape = specs[name].shape
        fits = len(told.least) == len(shape) and all(
            size < 0 or size == low == high for size, low, high in zip(shape, told.least, told.most, strict=True)
        )
        if not fits:
            raise ConfigurationError(f"the optimisation profile gives {name} the shapes {told}; the model's file has {list(shape)}")


def likely_profile(inputs: Sequence[TensorSpec], *, rows: int, shapes: Mapping[str, Shape]) -> dict[str, Range]:
    """The profile of a model whose owner gave none: from one row to the largest batch, and around the sizes to warm up on.

    `rows`: largest batch; 0 for models without one. `shapes`: sizes to warm up on, by input, without the batch dimension.
    """
    return {spec.name: _likely_range(spec, rows, shapes.get(spec.name)) for spec in inputs}


def _likely_range(spec: TensorSpec, rows: int, told: Shape | None) -> Range:
    best = sample_shape(spec, rows, told)
    fixed = [size > 0 for size in spec.shape]
    least = [size if is_fixed else max(1, size // _SPREAD) for size, is_fixed in zip(best, fixed, strict=True)]
    most = [size if is_fixed else size * _SPREAD for size, is_fixed in zip(best, fixed, strict=True)]
    if rows:
        least[0], most[0] = 1, rows
    return Range(least=tuple(least), best=best, most=tuple(most))


def most_rows(engine: object, rows: int) -> int:
    """The largest batch of so many rows that an engine takes: one without profiles takes any."""
    profiles: Sequence[Profile] = getattr(engine, "profiles", ())
    largest = [min((told.most[0] for told in profile.values() if told.most), default=rows) for profile in profiles]
    return min(rows, max(largest, default=rows))


def fitting(profiles: Sequence[Profile], shapes: Mapping[str, Shape]) -> int | None:
    """The number of the tightest profile that holds these shapes; None when none does."""
    found = [
        (math.prod(math.prod(each.most) for each in profile.values()), number)
        for number, profile in enumerate(profiles)
        if all(name in shapes and each.holds(shapes[name]) for name, each in profile.items())
    ]
    return min(found)[1] if found else None


_PARTS = {"trt_profile_min_shapes": "least", "trt_profile_opt_shapes": "best", "trt_profile_max_shapes": "most"}


def provider_shapes(profiles: Sequence[Profile]) -> dict[str, str]:
    """Profiles in the words of ONNX Runtime's TensorRT provider: `input:1x3,input:4x3`, one after another for each input."""
    return {
        option: ",".join(f"{name}:{'x'.join(map(str, getattr(told, part)))}" for each in profiles for name, told in sorted(each.items()))
        for option, part in _PARTS.items()
        if profiles
    }


def read_provider_shapes(options: Mapping[str, str]) -> tuple[dict[str, Range], ...]:
    """The reverse; none where the options name no shapes. Raises `ConfigurationError`."""
    told = {part: _by_input(options.get(option, ""), option) for option, part in _PARTS.items()}
    counts = {(name, len(shapes)) for part in told.values() for name, shapes in part.items()}
    if not counts:
        return ()
    if any(set(part) != {name for name, _ in counts} for part in told.values()) or len({count for _, count in counts}) > 1:
        raise ConfigurationError(f"{', '.join(_PARTS)} must name the same inputs, each equally often")
    texts = [
        ",".join(f"{name}={told['least'][name][number]}:{told['best'][name][number]}:{told['most'][name][number]}" for name, _ in counts)
        for number in range(next(iter(counts))[1])
    ]
    return tuple(map(read_profile, texts))


def _by_input(text: str, option: str) -> dict[str, list[str]]:
    shapes: dict[str, list[str]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, shape = part.rpartition(":")
        if not name or not re.fullmatch(r"\d+(x\d+)*", shape):
            raise ConfigurationError(f"{option} has {part!r}; expected INPUT:SIZES, such as x:1x3x224x224")
        shapes.setdefault(name, []).append(shape)
    return shapes
