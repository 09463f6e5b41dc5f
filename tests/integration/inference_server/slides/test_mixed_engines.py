"""Servers with different engines that share a slide, or go on with one another's work: what was done stays done."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from inference_server.engine.runtimes import discover
from inference_server.engine.selection.selector import EngineSelector
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.port import Caller
from inference_server.scheduler.registry import ServingModels
from inference_server.storage.storage import Storage
from inference_server.tasks.slides import checkpoints
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, Checkpoint, Share
from tests.support.inference_server.serving import serving
from tests.support.slides.cut_off_analyses import REQUESTS, cut_off, parts, result_of, write_inputs
from tests.support.slides.written_files import contents

FIRST, SECOND = "onnxruntime:float32", "openvino:float32"
Events = list[Any]


class Fleet:
    """A slide, and servers of each engine that see it."""

    def __init__(self, folder: Path, inputs: Path, servers: dict[str, ServingModels]) -> None:
        self._folder = folder
        self._inputs = inputs
        self._servers = servers

    async def run(self, engine: str, name: str, *, until: float = 1.0, **changes: Any) -> tuple[Events, Path]:
        """The events of a run by an engine that is cut off once so many tiles are saved, and where it wrote."""
        out = self._folder / "out" / name
        storage = Storage(read_roots=(str(self._inputs),), write_roots=(str(self._folder / "out"),))
        analyzer = SlideAnalyzer(inference=self._servers[engine], storage=storage, models=self._inputs / "models")
        request = AnalysisRequest(slide_uri=str(self._inputs / "slide.svs"), output_uri=str(out), checkpoints=True)
        events = await cut_off(analyzer.analyze(dataclasses.replace(request, **changes), Caller()), until)
        return events, out


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder, 1024, 768)
    return folder


@pytest.fixture
async def fleet(tmp_path: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    # Parts are due by the share of the tiles alone, however fast the machine is.
    monkeypatch.setattr(checkpoints, "_LEAST_SECONDS", 0.0)
    async with AsyncExitStack() as stack:
        servers = {
            engine: await stack.enter_async_context(
                serving(inputs / "models", EngineSelector(discover(device="cpu")), options=SchedulingOptions(engine=engine))
            )
            for engine in (FIRST, SECOND)
        }
        yield Fleet(tmp_path, inputs, servers)


def report(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "analysis.json").read_text()))


def told(result: AnalysisResult) -> tuple[int, str]:
    return result.tiles_resumed, result.resume_refused


@pytest.mark.parametrize("analysis", sorted(REQUESTS))
@pytest.mark.parametrize("merger", [FIRST, SECOND])
async def test_shares_of_different_engines_are_merged_and_each_tile_tells_its_own(fleet: Fleet, analysis: str, merger: str) -> None:
    asked = REQUESTS[analysis]
    whole, alone = await fleet.run(FIRST, "whole", **asked)
    shares = [
        (await fleet.run(engine, f"share-{index}", share=Share(index=index, count=4), **asked))[0]
        for index, engine in enumerate((FIRST, SECOND, FIRST, FIRST))
    ]
    merged, out = await fleet.run(merger, "merged", resume_uris=sum(map(parts, shares), ()), **asked)

    total, by_second = result_of(whole).tiles_analyzed, result_of(shares[1]).tiles_analyzed
    assert (total, "") == told(result_of(merged))
    assert [FIRST, SECOND, FIRST, FIRST] == [result_of(share).engine for share in shares]
    assert f"{FIRST}, {SECOND}" == result_of(merged).engine == report(out)["model"]["engine"]
    assert {FIRST: total - by_second, SECOND: by_second} == report(out)["tiles"]["by_engine"]
    # In the order of the analysis, in which shares lie next to each other.
    first = result_of(shares[0]).tiles_analyzed
    engines = parquet.read_table(out / "tiles.parquet").column("engine").to_pylist()
    assert [FIRST] * first + [SECOND] * by_second + [FIRST] * (total - first - by_second) == engines
    _check_alike(analysis, alone, out)


@pytest.mark.parametrize("analysis", ["he_baseline", "colours", "stains"])
async def test_a_slide_that_was_cut_off_is_gone_on_with_by_another_engine(fleet: Fleet, analysis: str) -> None:
    asked = REQUESTS[analysis]
    _, alone = await fleet.run(SECOND, "whole", **asked)
    cut, _ = await fleet.run(FIRST, "cut", until=0.3, **asked)
    again, _ = await fleet.run(SECOND, "again", until=0.6, resume_uris=parts(cut), **asked)
    outs = []
    for number in range(2):
        last, out = await fleet.run(FIRST, f"last-{number}", resume_uris=parts(cut) + parts(again), **asked)
        outs.append(out)
        resumed, refused = told(result_of(last))
        assert ("", True) == (refused, resumed >= 0.6 * result_of(last).tiles_analyzed)
        assert all(event.resumed for event in [*again, *last] if isinstance(event, Checkpoint))
    by_engine = report(outs[0])["tiles"]["by_engine"]
    assert sum(by_engine.values()) == report(outs[0])["tiles"]["analyzed"]
    assert by_engine[SECOND] >= 0.25 * sum(by_engine.values())
    # Whoever does it again writes the same.
    assert contents(outs[0]) == contents(outs[1])
    _check_alike(analysis, alone, outs[0])


async def test_parts_of_one_engine_that_another_merges_give_the_bytes_of_the_one(fleet: Fleet) -> None:
    asked = REQUESTS["colours"]
    _, alone = await fleet.run(FIRST, "whole", **asked)
    shares = [(await fleet.run(FIRST, f"share-{index}", share=Share(index=index, count=2), **asked))[0] for index in range(2)]
    _, out = await fleet.run(SECOND, "merged", resume_uris=sum(map(parts, shares), ()), **asked)

    assert contents(alone) == contents(out)
    assert FIRST == report(out)["model"]["engine"]


def _check_alike(analysis: str, alone: Path, mixed: Path) -> None:
    """The same figures as one engine's alone: exactly of he_baseline, of others within what engines may differ by."""
    expected, found = report(alone), report(mixed)
    assert expected["tiles"]["unreadable"] == found["tiles"]["unreadable"] == 2
    one, other = (parquet.read_table(folder / "tiles.parquet").drop(["engine"]).to_pydict() for folder in (alone, mixed))
    assert one.keys() == other.keys()
    if analysis == "he_baseline":
        assert (expected["measures"], one) == (found["measures"], other)
        # All that draws or lists what was found.
        kept = {name: content for name, content in contents(mixed).items() if name not in {"analysis.json", "tiles.parquet"}}
        assert len(kept) == 4
        assert kept == {name: contents(alone)[name] for name in kept}
    for name, values in one.items():
        if not isinstance(values[0], str):
            np.testing.assert_allclose(other[name], values, rtol=0.02, atol=1e-3, err_msg=name)
