"""Which engines must be built before they are loaded, and from what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx
from google.protobuf.message import DecodeError

from inference_server.engine.port import TensorSpec
from inference_server.engine.tensorrt.build_process import NATIVE_OPTIONS
from inference_server.engine.tensorrt.plans import PLAN_FILE, PlanCache, Recipe
from inference_server.engine.tensorrt.profiles import Profile, check_profile, provider_shapes
from inference_server.errors import ConfigurationError, ModelFailed

NATIVE, PROVIDER = "tensorrt", "onnxruntime-tensorrt"
# Options of the provider that change how an engine runs, and not what is built.
_OF_THE_RUN = frozenset(
    {
        "pinned_input",
        "pinned_output",
        "cuda_graphs",
        "graph_shapes",
        "trt_cuda_graph_enable",
        "trt_context_memory_sharing_enable",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_profile_max_shapes",
    }
)
# Built for a model whose owner asks for TensorRT and no precision, where the operator named none either.
_DEFAULT_PRECISIONS = ("float16",)


class Buildable(Protocol):
    """What is to be known of a model."""

    @property
    def path(self) -> Path:
        """Its ONNX file."""

    @property
    def digest(self) -> str:
        """SHA-256 of it with whatever lies beside it."""

    @property
    def profiles(self) -> Callable[[Sequence[TensorSpec]], tuple[Profile, ...]]:
        """The ranges of shapes that it is to be built for, by its inputs."""

    @property
    def options(self) -> Mapping[str, Mapping[str, str]]:
        """Its own options of runtimes, by engine."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """An engine that was built, as its loader takes it."""

    path: Path
    options: Mapping[str, str]
    recipe: Recipe


class AheadOfTime:
    """The engines of one GPU that are built ahead.

    `versions`: of what builds, by engine. `precisions`: built of each model whose owner asks for nothing else.
    """

    def __init__(
        self, plans: PlanCache, *, versions: Mapping[str, str], compute_capability: str, device: int, precisions: Sequence[str] = ()
    ) -> None:
        self.plans = plans
        self._versions = dict(versions)
        self._compute_capability = compute_capability
        self._device = device
        self._precisions = tuple(precisions)
        self._inputs: dict[str, tuple[TensorSpec, ...]] = {}

    def needed(self, label: str) -> bool:
        """Whether an engine:precision is built ahead."""
        return label.partition(":")[0] in self._versions

    def wanted(self, pin: str) -> list[str]:
        """The engines, with their precisions, that a pin asks to be built."""
        engine, _, precision = pin.partition(":")
        if engine in self._versions:
            precisions = (precision,) if precision else self._precisions or _DEFAULT_PRECISIONS
            return [f"{engine}:{each}" for each in precisions]
        return [f"{NATIVE}:{each}" for each in self._precisions] if pin == "auto" and NATIVE in self._versions else []

    def recipe(self, model: Buildable, label: str) -> Recipe | None:
        """What an engine is built from; None for a model with strings, which TensorRT does not know.

        Raises `ModelFailed` for a file that is no ONNX, `ConfigurationError` for profiles and options that do not fit.
        """
        inputs = self._inputs_of(model)
        if any(spec.dtype == object for spec in inputs):
            return None
        engine, _, precision = label.partition(":")
        given = model.options.get(engine, {})
        options = {name: value for name, value in given.items() if name not in _OF_THE_RUN}
        strange = sorted(set(options) - NATIVE_OPTIONS) if engine == NATIVE else []
        if strange:
            raise ConfigurationError(
                f"TensorRT without ONNX Runtime takes no {', '.join(strange)}; it takes {', '.join(sorted(NATIVE_OPTIONS))}"
            )
        return Recipe(
            engine=engine,
            precision=precision,
            path=model.path.absolute(),
            digest=model.digest,
            version=self._versions[engine],
            compute_capability=self._compute_capability,
            device=self._device,
            profiles=self.plans.kept_profiles(model.digest) or model.profiles(inputs),
            options=options,
        )

    def keep_profiles(self, model: Buildable, profiles: Sequence[Profile]) -> None:
        """Build a model for these ranges from now on, whatever its configuration says. Raises `ConfigurationError`."""
        for profile in profiles:
            check_profile(profile, self._inputs_of(model))
        self.plans.keep_profiles(model.digest, profiles)

    def built(self, model: Buildable, recipe: Recipe) -> Built | None:
        """What was built from a recipe; None when nothing was."""
        folder = self.plans.find(recipe)
        if folder is None:
            return None
        own = dict(model.options.get(recipe.engine, {}))
        if recipe.engine == NATIVE:
            return Built(path=folder / PLAN_FILE, options=own, recipe=recipe)
        cached = {"trt_engine_cache_path": str(folder), "trt_timing_cache_path": str(self.plans.timing_cache(recipe).parent)}
        return Built(path=model.path, options=provider_shapes(recipe.profiles) | own | cached, recipe=recipe)

    def _inputs_of(self, model: Buildable) -> tuple[TensorSpec, ...]:
        if model.digest not in self._inputs:
            self._inputs[model.digest] = onnx_inputs(model.path)
        return self._inputs[model.digest]


def onnx_inputs(path: Path) -> tuple[TensorSpec, ...]:
    """The inputs of an ONNX file, without loading its weights into an engine. Raises `ModelFailed`."""
    try:
        graph = onnx.load_model(path, load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise ModelFailed(f"{path.name} is no ONNX model that can be read ({type(error).__name__})") from error
    weights = {initializer.name for initializer in graph.initializer}
    return tuple(_spec(value) for value in graph.input if value.name not in weights)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else -1 for size in kind.shape.dim)
    return TensorSpec(name=value.name, dtype=onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type), shape=shape)
