"""The folder of models, laid out as Triton has it: `name/config.pbtxt`, `name/1/model.onnx`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from inference import model_config_pb2

from inference_server.errors import ConfigurationError, ModelFailed, NotFound
from inference_server.models.config import ONNX_FILENAME, PLAN_FILENAME, parse_configuration, read_configuration
from inference_server.models.values import ConfigMessage, Configuration

# Bytes; no file system takes more.
_LONGEST_NAME = 255


@dataclass(frozen=True, kw_only=True)
class VersionFile:
    """One version of a model."""

    # As its folder is named.
    version: str
    # The model's file; whether it is there shows when it is loaded.
    path: Path

    def digests(self) -> tuple[str, str]:
        """SHA-256 of the model's file, and of it with the names and sizes of the files beside it, which may hold its weights.

        Raises `ModelFailed` when the file is not there.
        """
        try:
            with self.path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            beside = sorted(entry.name for entry in self.path.parent.glob("*"))
            raise ModelFailed(
                f"version {self.version} has no readable {self.path.name}; its folder holds: {', '.join(beside) or 'nothing'}"
            ) from error
        beside = sorted(f"{entry.name} {entry.stat().st_size}" for entry in self.path.parent.iterdir())
        return sha256, hashlib.sha256("\n".join([sha256, *beside]).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model of the repository."""

    name: str
    configuration: Configuration
    # The versions that its policy lets serve, oldest first.
    versions: tuple[VersionFile, ...]
    # Names of the classes, in the order of their indices, by output.
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class ModelRepository:
    """Reads a folder of models. Folders whose name starts with `_` or `.` are not models."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> tuple[str, ...]:
        """The models that are there, sorted. Raises `ConfigurationError` when the folder itself is not."""
        try:
            return tuple(sorted(entry.name for entry in self._root.iterdir() if entry.is_dir() and not entry.name.startswith(("_", "."))))
        except OSError as error:
            raise ConfigurationError(f"the folder of models {self._root} cannot be read; create it or name another one") from error

    def read(self, name: str, *, config: str | None = None) -> ModelFolder:
        """A model's configuration and versions; `config`, as JSON, stands for the folder's config.pbtxt.

        Raises `NotFound`, `InvalidInput` when `config` is no configuration, or `ConfigurationError` when the model is broken.
        """
        folder = self._root / name
        if not _is_model_name(name) or not folder.is_dir():
            raise no_such_model(name)
        configuration = read_configuration(folder) if config is None else parse_configuration(folder, config)
        numbers = sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and _is_version(entry.name))
        if not numbers and configuration.steps:
            numbers = [1]  # a graph of other models has no file
        if not numbers:
            raise ConfigurationError(f"model {name} has no version; put its file into {name}/1/{configuration.filename}")
        chosen = _chosen(name, configuration.message, numbers)
        if _holds_plans(folder, configuration, chosen):
            configuration = replace(configuration, filename=PLAN_FILENAME)
        files = tuple(VersionFile(version=str(number), path=folder / str(number) / configuration.filename) for number in chosen)
        labels = {output.name: _labels(folder, output) for output in configuration.message.output if output.label_filename}
        return ModelFolder(name=name, configuration=configuration, versions=files, labels=labels)


def no_such_model(name: str) -> NotFound:
    """What is told to one who names a model that there is not, or none."""
    if not name:
        return NotFound("there is no model without a name: name one in model_name (or name); RepositoryIndex lists them")
    return NotFound(f"there is no model {name}")


def _holds_plans(folder: Path, configuration: Configuration, numbers: Sequence[int]) -> bool:
    """Whether the configuration leaves the kind of file open, and the versions hold plans of TensorRT, as Triton takes them."""
    message = configuration.message
    if message.platform or message.backend or message.default_model_filename or not numbers:
        return False
    return all((folder / str(n) / PLAN_FILENAME).is_file() and not (folder / str(n) / ONNX_FILENAME).exists() for n in numbers)


def _labels(folder: Path, output: model_config_pb2.ModelOutput) -> tuple[str, ...]:
    """The lines of an output's `label_filename`."""
    file = output.label_filename
    if Path(file).name != file:
        raise ConfigurationError(f"model {folder.name} has label_filename {file} for {output.name}; expected a file name in its folder")
    try:
        return tuple((folder / file).read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"model {folder.name}: the labels of {output.name}, {file}, cannot be read ({type(error).__name__})"
        ) from error


def _is_model_name(name: str) -> bool:
    """Whether a folder of the repository may be so called; a caller may ask for anything."""
    return bool(name) and Path(name).name == name and not name.startswith(("_", ".")) and len(name.encode()) <= _LONGEST_NAME


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0")


def _chosen(name: str, message: ConfigMessage, numbers: Sequence[int]) -> Sequence[int]:
    """The versions that the policy lets serve: the highest one where it says nothing."""
    policy = message.version_policy
    if policy.HasField("all"):
        return numbers
    if policy.HasField("specific"):
        absent = sorted(set(policy.specific.versions) - set(numbers))
        if absent:
            raise ConfigurationError(f"model {name} is to serve the versions {absent}, which are not there; there are {list(numbers)}")
        return sorted(policy.specific.versions)
    return numbers[-max(1, policy.latest.num_versions) :]
