"""Clients that know nothing of this server, unchanged and in their own environment, against a server in its own process."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.inference_server.client_environment import run_node_client, run_python_client
from tests.support.inference_server.server_process import ServerProcess, running_server
from tests.support.models.small_models import write_small_repository

SHARED_MEMORY = "lamina_clients_"
# perf_analyzer names its keys after the tensors.
PERF_ANALYZER_KEYS = "a,b,sum,difference"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("clients")
    write_small_repository(folder / "models")
    with running_server(
        folder / "models", folder, "--engine", "onnxruntime", "--shared-memory", f"{SHARED_MEMORY},{PERF_ANALYZER_KEYS}"
    ) as server:
        server.wait_for("ready")
        yield server


def test_tritonclient_makes_every_call_and_gets_tritons_statuses(server: ServerProcess) -> None:
    statuses = json.loads(run_python_client("triton_sync.py", server.grpc))
    assert statuses == {
        "unknown model": "StatusCode.NOT_FOUND",
        "unknown version": "StatusCode.NOT_FOUND",
        "missing input": "StatusCode.INVALID_ARGUMENT",
        "extra input": "StatusCode.INVALID_ARGUMENT",
        "wrong datatype": "StatusCode.INVALID_ARGUMENT",
        "wrong shape": "StatusCode.INVALID_ARGUMENT",
        "unloaded": "StatusCode.UNAVAILABLE",
    }


def test_tritonclient_streams_many_requests_some_of_them_wrong_and_cancels(server: ServerProcess) -> None:
    told = json.loads(run_python_client("triton_stream.py", server.grpc))
    assert (told["results"], told["errors"]) == (41, 10)
    # The few that had their turn before, and one request more; those behind them had none.
    assert 1 <= told["runs"] <= 10


def test_tritonclient_makes_calls_and_streams_with_asyncio(server: ServerProcess) -> None:
    assert run_python_client("triton_aio.py", server.grpc) == "done\n"


def test_tritonclient_passes_tensors_in_shared_memory(server: ServerProcess) -> None:
    assert run_python_client("triton_shared_memory.py", server.grpc, SHARED_MEMORY + secrets.token_hex(4)) == "done\n"


def test_kserves_client_runs_a_model(server: ServerProcess) -> None:
    assert run_python_client("kserve_grpc.py", server.grpc).endswith("done\n")


def test_grpc_js_calls_and_streams(server: ServerProcess) -> None:
    assert run_node_client(server.grpc) == "done\n"


@pytest.mark.parametrize("flags", [(), ("--streaming", "--async"), ("--shared-memory=system",)], ids=["calls", "stream", "shared memory"])
def test_perf_analyzer_measures_the_server_and_reads_its_statistics(server: ServerProcess, flags: tuple[str, ...]) -> None:
    program = shutil.which("perf_analyzer")
    if program is None:
        pytest.skip("perf_analyzer is not on the PATH; docs/serving.md tells where it comes from")
    command = [program, "-m", "sum_and_difference", "-i", "grpc", "-u", server.grpc, "-b", "2", "--concurrency-range", "4"]
    done = subprocess.run(
        [*command, "--measurement-interval", "500", "-s", "100000", "-r", "10", *flags], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = {name: int(count) for name, count in re.findall(r"(Inference count|Execution count): (\d+)", done.stdout)}
    assert 0 < counted["Execution count"] < counted["Inference count"]
