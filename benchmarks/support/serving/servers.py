"""The servers that are compared: ours, MLServer and Triton, each started as its users start it, with the same models.

MLServer and Triton are installed from locked requirements into environments of their own under `.cache/peers`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from benchmarks.support.peers.environments import MODELS, PeerMissing, environment
from benchmarks.support.process_tree import cpu_seconds
from benchmarks.support.serving.load import MINILM, TRIVIAL, wait_for_models
from tests.support.child_processes import wait_or_kill

_MOST_ROWS = 64
# For a server to end what it does at its start; and the processor time in half a second of one that has.
_START_SECONDS = 120.0
_QUIET_SECONDS = 0.05
_TRITON = Path("lib") / f"python{sysconfig.get_python_version()}" / "site-packages" / "pytriton" / "tritonserver"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that runs."""

    name: str
    # host:port of gRPC.
    address: str
    # Of the process above all its others.
    pid: int


@dataclass(frozen=True, kw_only=True)
class _Command:
    """How a server is started."""

    arguments: list[str]
    address: str
    environment: Mapping[str, str]


def write_repository(models: Path, minilm: Path) -> None:
    """The models in Triton's layout, as ours and Triton read them; `minilm` is the folder of the model."""
    shutil.copytree(minilm, models / MINILM)
    folder = models / TRIVIAL / "1"
    folder.mkdir(parents=True)
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "width"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], TRIVIAL, tensors[:1], tensors[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")
    (models / TRIVIAL / "config.pbtxt").write_text(f"max_batch_size: {_MOST_ROWS}\n")


@contextmanager
def running(name: str, models: Path, folder: Path) -> Iterator[Server]:
    """One of `SERVERS` on a free port, ready with both models. Raises `PeerMissing`."""
    folder.mkdir(parents=True)
    command = SERVERS[name](models, folder)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command.arguments, cwd=folder, stdout=output, stderr=output, env={**os.environ, **command.environment}, start_new_session=True
        )
    try:
        try:
            wait_for_models(command.address, (TRIVIAL, MINILM), runs=lambda: process.poll() is None)
            _wait_until_quiet(process.pid)
        except TimeoutError as error:
            raise PeerMissing(f"{name}: {error}; its log ends with: {log.read_text(errors='replace')[-500:]}") from error
        yield Server(name=name, address=command.address, pid=process.pid)
    finally:
        process.terminate()
        wait_or_kill(process, seconds=30)


def _wait_until_quiet(pid: int) -> None:
    """Wait until what a server does at its start, beside loading models, is done. Raises `TimeoutError`."""
    until = time.monotonic() + _START_SECONDS
    while True:
        before = cpu_seconds(pid)
        time.sleep(0.5)
        if cpu_seconds(pid) - before < _QUIET_SECONDS:
            return
        if time.monotonic() > until:
            raise TimeoutError(f"it is still busy with its start after {_START_SECONDS:.0f} s")


def _lamina(models: Path, folder: Path, engine: str = "onnxruntime:float32") -> _Command:
    address = _free_address()
    arguments = [sys.executable, "-m", "inference_server", "serve", "--models", str(models), "--engine", engine]
    arguments += ["--listen", address, "--http", _free_address(), "--engine-cache", str(folder / "engines")]
    return _Command(arguments=arguments, address=address, environment={})


def _mlserver(models: Path, folder: Path) -> _Command:
    python = environment("mlserver")
    shutil.copy(MODELS / "mlserver_models.py", folder)
    port, http, metrics = (int(_free_address().rpartition(":")[2]) for _ in range(3))
    own = folder / "models"
    trivial = {"name": TRIVIAL, "implementation": "mlserver_models.Trivial"}
    minilm = {
        "name": MINILM,
        "implementation": "mlserver_models.MiniLm",
        "parameters": {"uri": str(models / MINILM / "1" / "model.onnx")},
        "max_batch_size": _MOST_ROWS,
        "max_batch_time": 0.005,
    }
    for settings in (trivial, minilm):
        (own / str(settings["name"])).mkdir(parents=True)
        (own / str(settings["name"]) / "model-settings.json").write_text(json.dumps(settings))
    # Without its worker process, which costs it more than it saves here.
    server = {"debug": False, "host": "127.0.0.1", "grpc_port": port, "http_port": http, "metrics_port": metrics, "parallel_workers": 0}
    (own / "settings.json").write_text(json.dumps({**server, "grpc_max_message_length": 2**30}))
    arguments = [str(python), "-c", "from mlserver.cli import main; main()", "start", str(own)]
    return _Command(arguments=arguments, address=f"127.0.0.1:{port}", environment={"PYTHONPATH": str(folder)})


def _triton(models: Path, folder: Path) -> _Command:
    python = environment("triton")
    # Started where it was installed: its libraries are found from there.
    binaries = python.parents[1] / _TRITON
    stub = binaries / "python_backend_stubs" / sysconfig.get_python_version() / "triton_python_backend_stub"
    if not stub.exists():
        raise PeerMissing(f"triton: the wheel has no Python backend for Python {sysconfig.get_python_version()}")
    shutil.copy(stub, binaries / "backends" / "python")
    own = folder / "models"
    shapes = {TRIVIAL: ({"x": "TYPE_FP32"}, {"y": "TYPE_FP32"}, -1)}
    shapes[MINILM] = ({"input_ids": "TYPE_INT64", "attention_mask": "TYPE_INT64"}, {"sentence_embedding": "TYPE_FP32"}, 384)
    for (name, (inputs, outputs, width)), source in zip(shapes.items(), ("triton_trivial.py", "triton_minilm.py"), strict=True):
        (own / name / "1").mkdir(parents=True)
        shutil.copy(MODELS / source, own / name / "1" / "model.py")
        (own / name / "config.pbtxt").write_text(_triton_config(name, inputs, outputs, width))
    os.link(models / MINILM / "1" / "model.onnx", own / MINILM / "1" / "model.onnx")
    port = int(_free_address().rpartition(":")[2])
    arguments = [str(binaries / "bin" / "tritonserver"), f"--model-repository={own}", f"--backend-directory={binaries / 'backends'}"]
    arguments += [f"--grpc-port={port}", "--grpc-address=127.0.0.1", "--allow-http=false", "--allow-metrics=false"]
    libraries = ":".join(filter(None, (sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH"))))
    packages = str(binaries.parents[1])
    path = f"{python.parent}:{os.environ['PATH']}"
    return _Command(
        arguments=arguments,
        address=f"127.0.0.1:{port}",
        environment={"LD_LIBRARY_PATH": libraries, "PYTHONPATH": packages, "PATH": path, "PYTHONHOME": sys.base_prefix},
    )


def _triton_config(name: str, inputs: Mapping[str, str], outputs: Mapping[str, str], width: int) -> str:
    lines = [f'name: "{name}"', 'backend: "python"', f"max_batch_size: {_MOST_ROWS}", "dynamic_batching {}"]
    lines += [f'input [{{ name: "{tensor}" data_type: {kind} dims: [ -1 ] }}]' for tensor, kind in inputs.items()]
    lines += [f'output [{{ name: "{tensor}" data_type: {kind} dims: [ {width} ] }}]' for tensor, kind in outputs.items()]
    return "\n".join([*lines, "instance_group [{ kind: KIND_CPU }]", ""])


# The engine that all of them run, and for `lamina-auto` the one that it chooses.
SERVERS: Mapping[str, Callable[[Path, Path], _Command]] = {
    "lamina": _lamina,
    "lamina-auto": partial(_lamina, engine="auto"),
    "mlserver": _mlserver,
    "triton": _triton,
}


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
