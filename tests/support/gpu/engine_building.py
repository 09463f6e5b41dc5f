"""A process that builds engines as the real one does, over the fake TensorRT: python -m tests.support.gpu.engine_building FAULT CACHE."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from inference_server.engine.port import EngineLoader
from inference_server.engine.runtimes import Runtimes
from inference_server.engine.selection.selector import EngineSelector
from inference_server.engine.tensorrt.ahead import AheadOfTime
from inference_server.engine.tensorrt.build_process import PlanBuilder
from inference_server.engine.tensorrt.building import EngineBuilds
from inference_server.engine.tensorrt.engine import TensorRtLoader
from inference_server.engine.tensorrt.plans import PlanCache, Recipe
from tests.support.gpu.fake_device import FakeDevice
from tests.support.gpu.fake_tensorrt import VERSION, fake_tensorrt


def builds(cache: Path, *, fault: str = "none", jobs: int = 1) -> EngineBuilds:
    """Builds in processes of their own. `fault`: none, fails, crashes, or waits, until there is a file `go` in the cache."""
    return EngineBuilds(cache, jobs=jobs, command=(sys.executable, "-m", "tests.support.gpu.engine_building", fault))


def gpu_with_tensorrt(
    cache: Path, reference: EngineLoader, *others: EngineLoader, precisions: tuple[str, ...] = ("float16",), **faults: Any
) -> EngineSelector:
    """The selector of a GPU with TensorRT over the fake, and these other engines, which need no building."""
    device = FakeDevice()
    native = TensorRtLoader(device=device, api=fake_tensorrt(device, **faults))
    ahead = AheadOfTime(PlanCache(cache), versions={"tensorrt": VERSION}, compute_capability="9.0", device=0, precisions=precisions)
    candidates = (*others, native)
    return EngineSelector(
        Runtimes(device="cuda:0", reference=reference, candidates=candidates, machine={"gpu": "test"}, ahead=ahead, memory=device.memory)
    )


def main() -> int:
    fault, cache = sys.argv[1], PlanCache(Path(sys.argv[2]))
    recipe = Recipe.from_json(sys.stdin.read())

    def report(phase: str, done: int, total: int) -> None:
        print(json.dumps({"phase": phase, "done": done, "total": total}), flush=True)

    report("Building Engine", 3, 10)
    print("a library writes this", flush=True)
    if fault == "fails":
        print(json.dumps({"failed": "TensorRT cannot build model.onnx: no kernel"}), flush=True)
        return 1
    if fault == "crashes":
        print("Myelin: assertion failed", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    until = time.monotonic() + 60
    while fault == "waits" and not Path(sys.argv[2], "go").exists() and time.monotonic() < until:
        time.sleep(0.02)
    with cache.building(recipe) as folder:
        if folder:
            PlanBuilder(fake_tensorrt(FakeDevice()), cache, report).build(recipe, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
