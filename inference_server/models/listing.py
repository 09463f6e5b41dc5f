"""A model of the repository in words, without loading it into an engine."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from inference_server.errors import InferenceError, ModelFailed
from inference_server.models.repository import ModelFolder, ModelRepository


def described(repository: ModelRepository, name: str) -> tuple[str, str, str, str]:
    """Name, versions, batch size and state, as text."""
    try:
        folder = repository.read(name)
        for file in folder.versions:
            _check_file(folder, file.version, file.path)
    except InferenceError as error:
        return name, "", "", str(error)
    size = folder.configuration.max_batch_size
    versions = ", ".join(file.version for file in folder.versions)
    return name, versions, "as the model says" if size is None else str(size), "well-formed"


def _check_file(folder: ModelFolder, version: str, path: Path) -> None:
    """Raise `ModelFailed` where a version has no ONNX graph; whether an engine takes it shows when it is loaded."""
    if folder.configuration.steps:
        return  # a graph of other models has no file
    where = f"{folder.name}/{version}/{path.name}"
    if path.suffix == ".plan":
        if not path.is_file():
            raise ModelFailed(f"{where} is missing; put the plan there")
        return  # only the TensorRT that built it can tell more
    try:
        graph = onnx.load_model(path, load_external_data=False).graph
    except FileNotFoundError as error:
        raise ModelFailed(f"{where} is missing; put the model there") from error
    except (OSError, DecodeError) as error:
        raise ModelFailed(f"{where} is no ONNX model that can be read ({type(error).__name__}); copy or export it again") from error
    if not graph.input or not graph.output:
        raise ModelFailed(f"{where} is no ONNX model: its graph has no inputs or no outputs; copy or export it again")
