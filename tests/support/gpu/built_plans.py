"""Plans for tests: built from ONNX by the real builder over the fake TensorRT, or written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from inference_server.engine.port import Engine
from inference_server.engine.tensorrt.build_process import PlanBuilder
from inference_server.engine.tensorrt.engine import TensorRtLoader
from inference_server.engine.tensorrt.plans import PLAN_FILE, PlanCache, Recipe
from inference_server.engine.tensorrt.profiles import Profile, read_profile
from inference_server.errors import ModelFailed
from tests.support.gpu.fake_device import FakeDevice
from tests.support.gpu.fake_tensorrt import VERSION, fake_tensorrt


def recipe(path: Path, *profiles: str, **parts: Any) -> Recipe:
    """A recipe of an ONNX file; without profiles, one that takes almost any shape."""
    told: tuple[Profile, ...] = tuple(map(read_profile, profiles))
    made = {"engine": "tensorrt", "precision": "float32", "digest": "d", "version": VERSION, "compute_capability": "9.0", "device": 0}
    return Recipe(path=path, profiles=told or (wide_profile(path),), **{**made, **parts})


def wide_profile(path: Path) -> Profile:
    """Holds the shapes of tests."""
    try:
        inputs = onnx.load(path).graph.input
    except Exception:
        return {}
    shapes = {value.name: [size.dim_value or -1 for size in value.type.tensor_type.shape.dim] for value in inputs}
    least = {name: "x".join(str(max(1, size)) for size in shape) for name, shape in shapes.items()}
    most = {name: "x".join(str(size if size > 0 else 4096) for size in shape) for name, shape in shapes.items()}
    return read_profile(",".join(f"{name}={least[name]}:{least[name]}:{most[name]}" for name in shapes))


def build_plan(folder: Path, made: Recipe) -> Path:
    """Build a plan with the real builder over the fake package."""
    folder.mkdir(parents=True, exist_ok=True)
    PlanBuilder(fake_tensorrt(FakeDevice()), PlanCache(folder), lambda phase, done, total: None).build(made, folder)
    return folder / PLAN_FILE


def write_plan(path: Path, tensors: list[dict[str, Any]], profile: Mapping[str, Any], **more: Any) -> Path:
    """A plan without a model, whose outputs are its inputs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"tensors": tensors, "profiles": [profile], **more}))
    return path


class BuildingLoader:
    """Builds an ONNX file and loads the plan, so that TensorRT's adapter can run the conformance suite of engines."""

    name = "tensorrt"
    version = VERSION

    def __init__(self) -> None:
        self.device = FakeDevice()
        self._loader = TensorRtLoader(device=self.device, api=fake_tensorrt(self.device))
        self.precisions = self._loader.precisions

    def load(self, path: Path, precision: str, *, threads: int = 0, options: Mapping[str, str] | None = None) -> Engine:
        if precision not in self.precisions:
            raise ModelFailed(f"tensorrt does not compute in {precision}")
        plan = build_plan(path.parent / precision, recipe(path, precision=precision))
        return self._loader.load(plan, precision, options=options)
