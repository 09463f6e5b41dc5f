"""`inference-server models compile`: without a GPU, and over a fake one with real processes that build."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from inference_server import compilation
from inference_server.__main__ import cli
from inference_server.engine.devices import gpus
from inference_server.errors import ConfigurationError
from tests.support.gpu.engine_building import builds, gpu_with_tensorrt
from tests.support.inference_server.serving import serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader
from tests.support.virtual_clock import measured_virtually

Run = Callable[..., Result]
PROFILE = "x=1x1:4x8:8x16"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    onnx_models.write_model(tmp_path / "models", "double", onnx_models.double())
    onnx_models.write_model(
        tmp_path / "models",
        "widths",
        onnx_models.widths(),
        config='parameters { key: "lamina.engine" value { string_value: "onnxruntime-cuda" } }',
    )
    return tmp_path / "models"


@pytest.fixture
def run(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command on a machine with a GPU of numpy; `fault` is the builder's."""
    monkeypatch.setenv("COLUMNS", "200")
    plans = tmp_path / "engines" / "plans"
    found = gpu_with_tensorrt(plans, ReferenceLoader(), ReferenceLoader("onnxruntime-cuda"))._runtimes
    monkeypatch.setattr(compilation, "runtimes", lambda settings, device: found)

    def run(*arguments: str, fault: str = "none") -> Result:
        monkeypatch.setattr(compilation, "EngineBuilds", lambda cache, jobs: builds(cache, fault=fault, jobs=jobs))
        fixed = ["--models", str(models), "--engine-cache", str(tmp_path / "engines")]
        return CliRunner().invoke(cli, ["models", "compile", *arguments, *fixed])

    return run


def _plans(tmp_path: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted((tmp_path / "engines" / "plans").glob("*/model.plan"))]


@pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")
def test_without_a_gpu_there_is_one_clear_error(models: Path, tmp_path: Path) -> None:
    ended = CliRunner().invoke(cli, ["models", "compile", "--models", str(models)])
    assert isinstance(ended.exception, ConfigurationError)
    assert "there is no device cuda:0; there are: cpu" == str(ended.exception)


def test_every_model_is_built_but_those_whose_owner_wants_another_engine(run: Run, tmp_path: Path) -> None:
    ended = run()
    assert (0, True, False) == (ended.exit_code, "double:1" in ended.stdout, "widths" in ended.stdout), ended.output
    assert [["FP16"]] == [plan["flags"] for plan in _plans(tmp_path)]
    again = run()
    assert (0, True) == (again.exit_code, "built" in again.stdout)
    assert 1 == len(_plans(tmp_path))


def test_precisions_may_be_named(run: Run, tmp_path: Path) -> None:
    ended = run("double", "--precision", "float32", "--precision", "bfloat16", "--jobs", "2")
    assert 0 == ended.exit_code, ended.output
    assert [[], ["BF16"]] == sorted(plan["flags"] for plan in _plans(tmp_path))  # type: ignore[type-var]


@pytest.mark.parametrize(("fault", "reason"), [("fails", "no kernel"), ("crashes", "ended with status -9")])
def test_a_build_that_fails_is_told_and_ends_with_status_1(run: Run, fault: str, reason: str) -> None:
    ended = run("double", fault=fault)
    assert (1, True) == (ended.exit_code, "double:1 tensorrt:float16: " in ended.stderr and reason in ended.stderr), ended.output


def test_a_broken_model_is_told_and_the_others_are_built(run: Run, models: Path, tmp_path: Path) -> None:
    onnx_models.write_model(models, "junk", onnx_models.double()).write_bytes(b"no model")
    ended = run()
    assert (1, True) == (ended.exit_code, "junk: model.onnx is no ONNX model" in ended.stderr), ended.output
    assert 1 == len(_plans(tmp_path))


async def test_profiles_that_are_named_are_what_the_server_uses(
    models: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_virtually(monkeypatch)
    (models / "widths" / "config.pbtxt").unlink()
    ended = run("widths", "--profile", PROFILE, "--profile", "x=1x17:4x32:8x64")
    assert 0 == ended.exit_code, ended.output
    (plan,) = _plans(tmp_path)
    assert [[[1, 1], [4, 8], [8, 16]], [[1, 17], [4, 32], [8, 64]]] == [profile["x"] for profile in plan["profiles"]]  # type: ignore[attr-defined]
    selector = gpu_with_tensorrt(tmp_path / "engines" / "plans", ReferenceLoader(), ReferenceLoader("onnxruntime-cuda", seconds=0.03))
    async with serving(models, {"cuda:0": selector}) as served:
        assert "tensorrt:float16" == served.facts("widths").engine


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--profile", PROFILE), "--profile is for one model; 0 are named"),
        (("double", "widths", "--profile", PROFILE), "2 are named"),
        (("double", "--profile", "x=wide"), "'x=wide' is no part of an optimisation profile; expected INPUT=MIN:OPT:MAX"),
        (("double", "--profile", PROFILE), "the model's file has [-1, 4]"),
        (("absent", "--profile", PROFILE), "there is no model absent"),
    ],
)
def test_what_does_not_fit_is_told(run: Run, arguments: tuple[str, ...], reason: str) -> None:
    ended = run(*arguments)
    assert reason in str(ended.exception)
