"""Builds engines in a process of its own, so that neither minutes of work nor a crash touch a server.

    python -m inference_server.engine.tensorrt.build_process CACHE < recipe.json

Standard output is one JSON object a line: `{"phase", "done", "total"}` while it works, and at the end `{"built": seconds}` or
`{"failed": reason}`, then with exit status 1.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from inference_server.engine.cuda import CudaDevice
from inference_server.engine.tensorrt.engine import bindings, messages
from inference_server.engine.tensorrt.plans import PLAN_FILE, PlanCache, Recipe
from inference_server.engine.tensorrt.profiles import Profile, provider_shapes
from inference_server.errors import ConfigurationError, InferenceError, ModelFailed

# Told the phase, and the steps that are done of how many.
Report = Callable[[str, int, int], None]
# Options of a recipe, in the names of ONNX Runtime's provider, which both engines take.
_WORKSPACE = "trt_max_workspace_size"
_LEVEL = "trt_builder_optimization_level"
_STREAMS = "trt_auxiliary_streams"
_SPARSE = "trt_sparsity_enable"
_TIMINGS = "trt_timing_cache_enable"
_FLAGS: Mapping[str, tuple[str, ...]] = {"float32": (), "float16": ("FP16",), "bfloat16": ("BF16",)}
NATIVE_OPTIONS = frozenset({_WORKSPACE, _LEVEL, _STREAMS, _SPARSE, _TIMINGS})


class PlanBuilder:
    """Builds plans with TensorRT itself. `api`: the package, as `bindings` gives it."""

    def __init__(self, api: Any, cache: PlanCache, report: Report) -> None:
        self._api = api
        self._cache = cache
        self._report = report
        self._messages = messages(api)

    def build(self, recipe: Recipe, folder: Path) -> None:
        """Write the plan into a folder. Raises `ModelFailed` with TensorRT's reason."""
        api = self._api
        api.init_libnvinfer_plugins(self._messages, "")
        builder = api.Builder(self._messages)
        network = builder.create_network(0)
        parser = api.OnnxParser(network, self._messages)
        if not parser.parse_from_file(str(recipe.path)):
            raise ModelFailed(f"TensorRT cannot read {recipe.path.name}: {self._parser_errors(parser, recipe.path)}")
        config = self._config(recipe, builder, network)
        timings = self._attach_timings(recipe, config)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise ModelFailed(
                f"TensorRT cannot build {recipe.path.name} in {recipe.precision}: {self._messages.last or 'it gave no reason'}"
            )
        (folder / PLAN_FILE).write_bytes(memoryview(plan))
        if timings is not None:
            self._cache.write_timings(recipe, bytes(memoryview(config.get_timing_cache().serialize())))

    def _config(self, recipe: Recipe, builder: Any, network: Any) -> Any:
        api, options = self._api, recipe.options
        config = builder.create_builder_config()
        for flag in _FLAGS[recipe.precision]:
            config.set_flag(getattr(api.BuilderFlag, flag))
        # As ONNX Runtime on CUDA is asked to: float32 means float32.
        config.clear_flag(api.BuilderFlag.TF32)
        if options.get(_SPARSE) == "1":
            config.set_flag(api.BuilderFlag.SPARSE_WEIGHTS)
        if _WORKSPACE in options:
            config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, int(options[_WORKSPACE]))
        if _LEVEL in options:
            config.builder_optimization_level = int(options[_LEVEL])
        if _STREAMS in options:
            config.max_aux_streams = int(options[_STREAMS])
        config.progress_monitor = _progress_monitor(api, self._report)
        inputs = [network.get_input(number).name for number in range(network.num_inputs)]
        for profile in recipe.profiles:
            config.add_optimization_profile(self._profile(builder, profile, inputs))
        return config

    def _profile(self, builder: Any, profile: Profile, inputs: list[str]) -> Any:
        if set(profile) != set(inputs):
            raise ConfigurationError(
                f"an optimisation profile names {', '.join(sorted(profile))}; the model's inputs are {', '.join(inputs)}"
            )
        made = builder.create_optimization_profile()
        for name, told in profile.items():
            made.set_shape(name, told.least, told.best, told.most)
        return made

    def _attach_timings(self, recipe: Recipe, config: Any) -> Any:
        if recipe.options.get(_TIMINGS) == "0":
            return None
        path = self._cache.timing_cache(recipe)
        cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            cache = config.create_timing_cache(b"")  # of another driver or GPU: begin anew
            config.set_timing_cache(cache, ignore_mismatch=False)
        return cache

    def _parser_errors(self, parser: Any, path: Path) -> str:
        told = [f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in map(parser.get_error, range(parser.num_errors))]
        return "; ".join(told)[:1000].replace(str(path), path.name) or self._messages.last or "it gave no reason"


def build_with_onnxruntime(recipe: Recipe, folder: Path, cache: PlanCache, report: Report) -> None:
    """Let ONNX Runtime's TensorRT provider build and keep its engines in a folder, by a first run at each profile's best shapes."""
    import numpy as np

    from inference_server.engine.onnxruntime.engine import OnnxRuntimeLoader, tensorrt_provider
    from inference_server.engine.selection.sample import filled

    bindings()  # brings the libraries that the provider needs
    timings = cache.timing_cache(recipe).parent
    timings.mkdir(parents=True, exist_ok=True)
    report("building with ONNX Runtime", 0, 1)
    loader = OnnxRuntimeLoader(threads=0, provider=tensorrt_provider(recipe.device, folder))
    options = provider_shapes(recipe.profiles) | {"trt_timing_cache_path": str(timings)} | dict(recipe.options)
    engine = loader.load(recipe.path, recipe.precision, options=options)
    generator = np.random.default_rng(1)
    for profile in recipe.profiles:
        engine.run({spec.name: filled(profile[spec.name].best, spec.dtype, generator) for spec in engine.inputs})
    if not any(folder.iterdir()):
        raise ModelFailed(f"TensorRT takes no part of {recipe.path.name}; let onnxruntime-cuda serve it")
    report("building with ONNX Runtime", 1, 1)


def _progress_monitor(api: Any, report: Report) -> Any:
    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self._phases: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = num_steps
            report(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            report(phase_name, step + 1, self._phases.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

    return Monitor()


def build(recipe: Recipe, cache: PlanCache, report: Report) -> None:
    """Build an engine into the cache, unless it is there. Raises `ModelFailed` or `ConfigurationError`."""
    with cache.building(recipe) as folder:
        if folder is None:
            return
        if recipe.engine == "onnxruntime-tensorrt":
            build_with_onnxruntime(recipe, folder, cache, report)
            return
        CudaDevice(recipe.device)
        PlanBuilder(bindings(), cache, report).build(recipe, folder)


def main() -> int:
    """Build what standard input tells."""

    def say(**told: object) -> None:
        print(json.dumps(told), flush=True)  # noqa: T201  # the protocol of this process

    started = time.monotonic()
    try:
        recipe = Recipe.from_json(sys.stdin.read())
        build(recipe, PlanCache(Path(sys.argv[1])), lambda phase, done, total: say(phase=phase, done=done, total=total))
    except InferenceError as error:
        say(failed=str(error))
        return 1
    except OSError as error:
        say(failed=f"the folder of engines cannot be written to: {error.strerror}")
        return 1
    say(built=round(time.monotonic() - started, 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
