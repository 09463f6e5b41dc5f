"""The GPU, or a visible skip."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_server.engine import devices
from inference_server.engine.runtimes import Runtimes
from inference_server.errors import ConfigurationError
from inference_server.model_serving import runtimes
from inference_server.settings import Settings

DEVICE = "cuda:0"


@pytest.fixture(scope="session")
def gpu() -> str:
    """The GPU that tests run on."""
    if not devices.gpus():
        pytest.skip("there is no GPU on this machine")
    return DEVICE


@pytest.fixture(scope="session")
def engine_cache(gpu: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines that were built, for all tests of a run: each takes minutes."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def settings(gpu: str, engine_cache: Path) -> Settings:
    return Settings.load(device=gpu, engine_cache=engine_cache)


@pytest.fixture(scope="session")
def found(settings: Settings) -> Runtimes:
    """The engines of the GPU, TensorRT among them."""
    try:
        made = runtimes(settings, settings.device)
    except ConfigurationError as error:
        pytest.skip(str(error))
    if made.ahead is None:
        pytest.skip("TensorRT is not installed")
    return made
