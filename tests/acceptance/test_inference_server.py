"""The inference server as a user meets it: a process, its command line, its signals, and buf curl."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc
from lamina.v1 import slides_pb2, slides_pb2_grpc
from onnx import TensorProto

from tests.support.inference_server.server_process import ServerProcess, running_server
from tests.support.models.small_models import identity, slow, write_model, write_small_repository
from tests.support.slides.hamamatsu import write_ndpi
from tests.support.slides.painted import paint
from tests.support.slides.range_server import range_server

BUF = Path(sys.executable).parent / "buf"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def models(folder: Path) -> Path:
    write_small_repository(folder / "models")
    return folder / "models"


@pytest.fixture(scope="module")
def server(models: Path, folder: Path) -> Iterator[ServerProcess]:
    with running_server(models, folder, "--engine", "onnxruntime") as server:
        server.wait_for("ready")
        yield server


def _buf_curl(server: ServerProcess, method: str, data: str) -> dict[str, Any]:
    """What the README tells to type, with this server's address."""
    if not BUF.exists():
        pytest.skip("buf is not installed: install the development dependencies")
    command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", data, f"http://{server.grpc}/{method}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_buf_curl_checks_health(server: ServerProcess) -> None:
    answer = _buf_curl(server, "grpc.health.v1.Health/Check", '{"service": "inference.GRPCInferenceService"}')
    assert answer == {"status": "SERVING"}


def test_buf_curl_asks_who_the_server_is(server: ServerProcess) -> None:
    assert _buf_curl(server, "inference.GRPCInferenceService/ServerMetadata", "{}")["name"] == "lamina"


def test_buf_curl_lists_the_repository(server: ServerProcess) -> None:
    answer = _buf_curl(server, "inference.GRPCInferenceService/RepositoryIndex", '{"ready": true}')
    assert [model["name"] for model in answer["models"]] == ["slow", "sum_and_difference", "text_identity"]


def test_buf_curl_runs_a_model(server: ServerProcess) -> None:
    tensors = [{"name": name, "datatype": "FP32", "shape": [1, 4], "contents": {"fp32_contents": [1, 2, 3, 4]}} for name in ("a", "b")]
    request = {"model_name": "sum_and_difference", "inputs": tensors, "outputs": [{"name": "sum"}]}
    answer = _buf_curl(server, "inference.GRPCInferenceService/ModelInfer", json.dumps(request))
    assert answer["parameters"]["engine"] == {"stringParam": "onnxruntime:float32"}
    # 2, 4, 6, 8 as little-endian float32.
    assert answer["rawOutputContents"] == ["AAAAQAAAgEAAAMBAAAAAQQ=="]


def _steps(count: int) -> wire.ModelInferRequest:
    request = wire.ModelInferRequest(model_name="slow", raw_input_contents=[np.array([count], np.int64).tobytes()])
    request.inputs.add(name="steps", datatype="INT64", shape=[1])
    return request


def _readiness(server: ServerProcess) -> int:
    try:
        with urllib.request.urlopen(f"http://{server.http}/readyz", timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_calls_in_flight_and_leaves_nothing(models: Path, folder: Path, number: signal.Signals) -> None:
    try:
        _drains(models, folder, number, grace_seconds=3)
    except (AssertionError, grpc.RpcError):
        # This machine may have stood still for as long as the grace.
        _drains(models, folder, number, grace_seconds=10)


def _drains(models: Path, folder: Path, number: signal.Signals, *, grace_seconds: int) -> None:
    flags = ("--engine", "onnxruntime", "--grace-seconds", str(grace_seconds), "--drain-seconds", "100")
    with running_server(models, folder, *flags) as server, grpc.insecure_channel(server.grpc) as channel, ThreadPoolExecutor(2) as pool:
        server.wait_for("ready")
        stub = wire_grpc.GRPCInferenceServiceStub(channel)
        long = pool.submit(stub.ModelInfer, _steps(2500 * grace_seconds), timeout=100)
        time.sleep(0.2)
        server.signal(number)
        server.wait_for("leaving")
        # It still serves, and tells load balancers to turn away.
        in_grace = pool.submit(stub.ModelInfer, _steps(1), timeout=60)
        assert _readiness(server) == 503
        assert not stub.ServerReady(wire.ServerReadyRequest(), timeout=60).ready
        server.wait_for("draining")
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(_steps(1), timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert long.result().model_name == "slow"
        assert in_grace.result().model_name == "slow"
        assert (server.wait(), server.has_left_nothing()) == (0, True)


def test_a_second_signal_ends_the_waits(models: Path, folder: Path) -> None:
    with running_server(models, folder, "--engine", "onnxruntime", "--grace-seconds", "600") as server:
        server.wait_for("ready")
        server.signal(signal.SIGTERM)
        server.wait_for("leaving")
        server.signal(signal.SIGTERM)
        assert server.wait(seconds=60) == 0


def test_a_second_signal_ends_the_wait_for_calls_in_flight(models: Path, folder: Path) -> None:
    flags = ("--engine", "onnxruntime", "--grace-seconds", "0", "--drain-seconds", "600")
    with running_server(models, folder, *flags) as server, grpc.insecure_channel(server.grpc) as channel, ThreadPoolExecutor(4) as pool:
        server.wait_for("ready")
        stub = wire_grpc.GRPCInferenceServiceStub(channel)
        # All of them together would take minutes: the first one runs, and the others wait for it.
        calls = [pool.submit(stub.ModelInfer, _steps(15_000), timeout=600) for _ in range(4)]
        while not _pending(server):
            time.sleep(0.02)
        server.signal(signal.SIGTERM)
        server.wait_for("draining")
        assert server.process.poll() is None
        server.signal(signal.SIGTERM)
        told = server.wait_for("cancelling")
        assert told["in_flight"] > 0
        codes = {call.exception(timeout=60).code() for call in calls if call.exception(timeout=60)}
        assert codes == {grpc.StatusCode.UNAVAILABLE}
        assert len([call for call in calls if call.exception(timeout=60)]) >= 3
        assert (server.wait(seconds=60), server.has_left_nothing()) == (0, True)


def _pending(server: ServerProcess) -> float:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith('nv_inference_pending_request_count{model="slow"'))


def test_a_server_whose_models_load_is_live_and_not_ready(tmp_path: Path) -> None:
    # The model loads for as long as nobody writes what its warm-up is to read.
    warmup = tmp_path / "models" / "slow" / "warmup"
    config = (
        'max_batch_size: 0\nmodel_warmup [{ name: "long" batch_size: 1 inputs { key: "steps" '
        'value: { data_type: TYPE_INT64 dims: [1] input_data_file: "steps" } } }]\n'
    )
    write_model(tmp_path / "models", "slow", slow(), config)
    warmup.mkdir()
    os.mkfifo(warmup / "steps")
    few = np.array([3], np.int64).tobytes()
    (warmup / "few").write_bytes(few)
    with (
        running_server(tmp_path / "models", tmp_path, "--engine", "onnxruntime:float32") as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        stub = wire_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(wire.ServerLiveRequest(), timeout=60).live
        assert not stub.ServerReady(wire.ServerReadyRequest(), timeout=60).ready
        assert _readiness(server) == 503
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(_steps(1), timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        # Who reads it has this, and whoever reads it again the file.
        with (warmup / "steps").open("wb") as reader:
            (warmup / "few").replace(warmup / "steps")
            reader.write(few)
        server.wait_for("ready")
        assert _readiness(server) == 200


def _command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inference_server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)


def test_a_mistake_of_the_user_gets_one_clear_message_and_status_2(folder: Path) -> None:
    done = _command("serve", "--models", "absent", folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "inference-server: INFERENCE_MODELS (--models): absent is no folder. "
        "Make it with the built-in models in it: inference-server models build --models absent\n"
    )


def test_the_command_line_tells_its_version_and_its_models(models: Path, folder: Path) -> None:
    assert _command("--version", folder=folder).stdout.startswith("inference-server ")
    listed = _command("models", "list", "--models", str(models), folder=folder)
    assert (listed.returncode, "sum_and_difference" in listed.stdout) == (0, True)


def test_the_built_in_models_are_built_once(folder: Path) -> None:
    first = _command("models", "build", "--models", "built", folder=folder)
    assert (first.returncode, first.stderr.count("Traceback")) == (0, 0), first.stderr
    files = {path: path.stat().st_mtime_ns for path in (folder / "built").rglob("*") if path.is_file()}
    names = {path.relative_to(folder / "built").parts[0] for path in files}
    assert names == {"he_baseline", "ppocrv6_small_det", "ppocrv6_small_rec", "all_minilm_l6_v2"}
    assert _command("models", "build", "--models", "built", folder=folder).returncode == 0
    assert files == {path: path.stat().st_mtime_ns for path in (folder / "built").rglob("*") if path.is_file()}


def test_copies_of_slides_that_a_killed_server_left_are_gone_when_the_next_one_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = tmp_path / "staging"
    (tmp_path / "store" / "slides").mkdir(parents=True)
    picture = paint(640, 480, tissue=(20, 20, 600, 440))
    write_ndpi(tmp_path / "store" / "slides" / "a.ndpi", [picture, np.ascontiguousarray(picture[::4, ::4])])
    with range_server(tmp_path / "store") as store:
        for name, value in store.s3_environment.items():
            monkeypatch.setenv(name, value)
        flags = ("--services", "slides", "--read-roots", "s3://slides", "--allow-http", "--staging", str(staging))
        (tmp_path / "models").mkdir()
        start = partial(running_server, tmp_path / "models", tmp_path, *flags)
        with start() as killed, start() as other:
            for server in (killed, other):
                with grpc.insecure_channel(server.grpc) as channel:
                    asked = slides_pb2.GetSlideInfoRequest(slide_uri="s3://slides/a.ndpi")
                    slides_pb2_grpc.SlideServiceStub(channel).GetSlideInfo(asked, timeout=60, wait_for_ready=True)
            killed.signal(signal.SIGKILL)
            killed.wait()
            assert len(list(staging.rglob("a.ndpi"))) == 2
            with start() as server:
                server.wait_for("ready")
                until = time.monotonic() + 60
                while len(list(staging.rglob("a.ndpi"))) > 1 and time.monotonic() < until:
                    time.sleep(0.05)
            # That of the one that still runs.
            assert len(list(staging.rglob("a.ndpi"))) == 1


def test_large_requests_find_the_memory_that_those_before_have_left(folder: Path) -> None:
    """Else the kernel hands out and clears each page anew, several times a request, which takes longer than all the rest."""
    models = folder / "large"
    write_model(models, "identity", identity(TensorProto.FLOAT), "max_batch_size: 65536")
    values = np.zeros((2**16, 4), np.float32)  # 1 MiB
    request = wire.ModelInferRequest(model_name="identity", raw_input_contents=[values.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=values.shape)
    with running_server(models, folder, "--engine", "onnxruntime") as server, grpc.insecure_channel(server.grpc) as channel:
        server.wait_for("ready")
        infer = wire_grpc.GRPCInferenceServiceStub(channel).ModelInfer

        def faults() -> int:
            return int(Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()[7])

        for _ in range(20):
            infer(request)
        before = faults()
        for _ in range(50):
            infer(request)
        assert (faults() - before) / 50 < values.nbytes / os.sysconf("SC_PAGE_SIZE")
