from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.scheduler.port import Caller
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, SlideLimits
from tests.support.models.built_models import built_models
from tests.support.models.direct_inference import DirectInference


@dataclass(frozen=True, kw_only=True)
class Analysed:
    """An analysis that was run, and what it wrote."""

    result: AnalysisResult
    report: dict[str, Any]
    folder: Path

    @property
    def features(self) -> list[dict[str, Any]]:
        return list(json.loads(gzip.decompress((self.folder / "detections.geojson.gz").read_bytes()))["features"])

    @property
    def points(self) -> NDArray[np.float64]:
        return np.array([feature["geometry"]["coordinates"] for feature in self.features]).reshape(-1, 2)


class Analyses:
    """Runs analyses of slides under a folder."""

    def __init__(self, folder: Path, models: Path, limits: SlideLimits | None = None) -> None:
        self.folder = folder
        storage = Storage(read_roots=(str(folder),), write_roots=(str(folder / "out"),))
        self.analyzer = SlideAnalyzer(inference=DirectInference(models), storage=storage, models=models, limits=limits)
        self._runs = 0

    async def run(self, slide: Path, **request: Any) -> Analysed:
        self._runs += 1
        out = self.folder / "out" / str(self._runs)
        wanted = AnalysisRequest(slide_uri=str(slide), output_uri=str(out), **request)
        events = [event async for event in self.analyzer.analyze(wanted, Caller())]
        result = events[-1]
        assert isinstance(result, AnalysisResult)
        return Analysed(result=result, report=json.loads(result.report_json), folder=out)


@pytest.fixture(scope="session")
def models() -> Path:
    return built_models("he_baseline")


@pytest.fixture
def analyses(tmp_path: Path, models: Path) -> Analyses:
    return Analyses(tmp_path, models)


@pytest.fixture
def analyses_with(tmp_path: Path) -> Callable[..., Analyses]:
    """Over another repository, or with other limits."""
    return lambda models, **limits: Analyses(tmp_path, models, SlideLimits(**limits))
