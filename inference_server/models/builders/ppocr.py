"""The built-in text models `ppocrv6_small_det` and `ppocrv6_small_rec`, from the files that the wheel `rapidocr` carries.

PP-OCRv6 small (PaddlePaddle, Apache-2.0), as ONNX. Detector: a page [N, 3, H, W] → for each pixel how likely it is text [N, 1, H, W],
sides multiples of 32. Recogniser: lines of text [N, 3, 48, W] → for each step along the line the logits of the common characters, and
what tells of the rare ones (`recognizer_head`).
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from inference_server.errors import ConfigurationError
from inference_server.models.builders.detector_graph import made_cheaper
from inference_server.models.builders.graph_rewriting import GraphRewriter
from inference_server.models.builders.int8_ranges import tell_ranges
from inference_server.models.builders.recognizer_head import split_recognizer
from inference_server.models.builders.word_list import word_list
from inference_server.models.recognizer_files import CHARACTERS, RARE_CHARACTERS, RARE_WEIGHTS, WORDS

DETECTOR = "ppocrv6_small_det"
RECOGNIZER = "ppocrv6_small_rec"
_DETECTOR_FILE = "PP-OCRv6_det_small.onnx"
_RECOGNIZER_FILE = "PP-OCRv6_rec_small.onnx"

# Raised when a folder's content changes, so that models of an older build are built again.
_REVISION = 13
# A column of pixels of lines: three colours, 48 high, as float32.
_COLUMN_BYTES = 3 * 48 * 4
# What a thread reads of lines at once. OpenVINO keeps some 5 MiB for each shape, so many lines and so wide, that it has met: of the 184
# that there may be with batches of eight 69 are left, and more columns at once are read no faster. With these numbers of lines alone 47.
_RUN_COLUMNS, _RUN_ROWS = 1280, (1, 2, 4, 8)
_SAMPLE_CELLS = ("Hemoglobin 13.5 g/dL", "Glucose 5.4 mmol/L")


@dataclass(frozen=True, kw_only=True)
class _Source:
    """One model of the wheel, and what its configuration says."""

    name: str
    # Its file in the wheel's folder `models`.
    file: str
    max_batch_size: int
    # How many batches run side by side, each on its share of the cores.
    instances: int = 1
    # Largest deviation from the float32 reference that an engine may have, as a share.
    tolerance: str
    # Most bytes of one execution for each thread of it; 0 for no bound.
    run_bytes: int = 0
    # Numbers of rows that one execution may have; empty for any.
    run_rows: tuple[int, ...] = ()
    input_dims: str
    # Of its one output, where the file leaves them open; empty where it tells them.
    output_dims: str = ""
    # Ranges of shapes that TensorRT builds for, a bucket each.
    profiles: tuple[str, ...]
    # One sample [3, H, W] on which engines are warmed up and compared.
    sample: Callable[[], NDArray[np.float32]]
    # Makes what is served of the wheel's model, and writes what lies beside it into the model's folder.
    serve: Callable[[Path, onnx.ModelProto], onnx.ModelProto]
    # What it writes there.
    beside: tuple[str, ...] = ()


def build_detector(models: Path) -> Path:
    """Write `<models>/ppocrv6_small_det/`; skipped when it is up to date. Raises `ConfigurationError` when the wheel is damaged."""
    # A page of three million pixels fills any device and takes 0.75 GB while it runs: more at once would only hold memory.
    # In bfloat16 and int8 the steep edges of the likelihood move by a fraction of a pixel, which errs by 3 to 10 %; the quads are the same.
    return _build(
        models,
        _Source(
            name=DETECTOR,
            file=_DETECTOR_FILE,
            max_batch_size=1,
            tolerance="0.15",
            input_dims="3, -1, -1",
            output_dims="1, -1, -1",
            # Pages in one piece, then tall and wide ones, as `tasks/documents/detection` scales them.
            profiles=(
                "x=1x3x32x32:1x3x1024x736:1x3x1472x1472",
                "x=1x3x64x64:1x3x2048x1472:1x3x4096x1472",
                "x=1x3x64x64:1x3x1472x2048:1x3x1472x4096",
            ),
            sample=_sample_page,
            serve=_serve_detector,
        ),
    )


def build_recognizer(models: Path) -> Path:
    """Write `<models>/ppocrv6_small_rec/`; skipped when it is up to date. Raises `ConfigurationError` when the wheel is damaged."""
    # More lines at once would be read no faster. Two batches side by side, on half of the cores each, take less processor time than one on
    # all, whose threads wait for each other.
    # In bfloat16 features err by 2.6 % on the sample, with 25 convolutions in int8 by 4.4 %; pages are read as well.
    return _build(
        models,
        _Source(
            name=RECOGNIZER,
            file=_RECOGNIZER_FILE,
            max_batch_size=8,
            instances=2,
            run_bytes=_RUN_COLUMNS * _COLUMN_BYTES,
            run_rows=_RUN_ROWS,
            tolerance="0.07",
            input_dims="3, 48, -1",
            profiles=tuple(f"x=1x3x48x32:8x3x48x{width}:8x3x48x{width}" for width in (320, 640, 1280)),
            sample=_sample_line,
            serve=_serve_recognizer,
            beside=(WORDS, *(f"1/{name}" for name in (CHARACTERS, RARE_CHARACTERS, RARE_WEIGHTS))),
        ),
    )


def _build(models: Path, source: _Source) -> Path:
    origin = _wheel_file(source.file)
    content = origin.read_bytes()
    fingerprint = hashlib.sha256(f"{_REVISION} {source.max_batch_size} {source.tolerance} ".encode() + content).hexdigest()
    target = models / source.name
    if _is_up_to_date(target, source, fingerprint):
        return target
    models.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{source.name}-", dir=models))
    try:
        scratch.chmod(0o755)
        _write(scratch, source, content, fingerprint)
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def wheel_model(name: str) -> onnx.ModelProto:
    """What the wheel has of a model, from which it is built. Raises `ConfigurationError`."""
    return onnx.load_model(_wheel_file({DETECTOR: _DETECTOR_FILE, RECOGNIZER: _RECOGNIZER_FILE}[name]))


def _wheel_file(name: str) -> Path:
    # The package is found and not imported: only its data are wanted.
    spec = find_spec("rapidocr")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    for folder in folders:
        if (folder / "models" / name).is_file():
            return folder / "models" / name
    raise ConfigurationError(f"the package rapidocr does not carry models/{name}. Install rapidocr 3.10 or newer, below 4.")


def _is_up_to_date(target: Path, source: _Source, fingerprint: str) -> bool:
    config = target / "config.pbtxt"
    wanted = ("config.pbtxt", "1/model.onnx", *source.beside)
    return all((target / name).is_file() for name in wanted) and fingerprint in config.read_text("utf-8")


def _write(folder: Path, source: _Source, content: bytes, fingerprint: str) -> None:
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ConfigurationError(f"{source.file} of the package rapidocr is not a whole ONNX model. Install the package again.") from error
    (folder / "1").mkdir()
    served = source.serve(folder, model)
    onnx.save_model(served, folder / "1" / "model.onnx")
    sample = source.sample()
    (folder / "warmup").mkdir()
    (folder / "warmup" / "x").write_bytes(sample.astype("<f4").tobytes())
    (folder / "config.pbtxt").write_text(_config_text(source, served, sample.shape, fingerprint), "utf-8")


def _serve_detector(folder: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    served = made_cheaper(model)
    tell_ranges(served, model, DETECTOR)
    return served


def _serve_recognizer(folder: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    split = split_recognizer(model, _characters(model), _RECOGNIZER_FILE)
    for name, characters in ((CHARACTERS, split.common), (RARE_CHARACTERS, split.rare)):
        (folder / "1" / name).write_text("".join(f"{character}\n" for character in characters), "utf-8", newline="\n")
    np.save(folder / "1" / RARE_WEIGHTS, split.rare_weights)
    (folder / WORDS).write_text(word_list(), "utf-8", newline="\n")
    graph = GraphRewriter(split.model)
    graph.drop_identities()
    graph.convolve_before_joining()
    graph.clip_convolutions()
    served = graph.model()
    tell_ranges(served, model, RECOGNIZER)
    return served


def _characters(model: onnx.ModelProto) -> list[str]:
    characters = next((entry.value for entry in model.metadata_props if entry.key == "character"), "").split("\n")
    classes = model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    # The model also has the blank of CTC, first, and the space, last.
    if len(characters) + 2 != classes:
        raise ConfigurationError(
            f"{_RECOGNIZER_FILE} of the package rapidocr has {classes} classes and names {len(characters)} characters; expected 2 fewer. "
            "Install rapidocr 3.10 or newer, below 4."
        )
    return characters


def _sample_page() -> NDArray[np.float32]:
    # As large as small pages are: on less, the engines' times differ too little to tell which is the fastest.
    page = np.full((640, 640), 245, np.uint8)
    for row in range(11):
        for column, text in enumerate(_SAMPLE_CELLS):
            cv2.putText(page, text, (16 + 320 * column, 48 + 56 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.75, 20, 2, cv2.LINE_AA)
    return _normalised(page)


def _sample_line() -> NDArray[np.float32]:
    # As long as lines are read at once, for the same reason.
    line = np.full((48, 1280), 245, np.uint8)
    for column in range(4):
        cv2.putText(line, _SAMPLE_CELLS[1], (4 + 320 * column, 34), cv2.FONT_HERSHEY_SIMPLEX, 0.95, 20, 2, cv2.LINE_AA)
    return _normalised(line)


def _normalised(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled = (gray.astype(np.float32) / 255 - 0.5) / 0.5
    return np.ascontiguousarray(np.broadcast_to(scaled, (3, *gray.shape)))


def _config_text(source: _Source, model: onnx.ModelProto, sample_shape: tuple[int, ...], fingerprint: str) -> str:
    dims = ", ".join(map(str, sample_shape))
    outputs = ", ".join(_output_text(output, source.output_dims) for output in model.graph.output)

    def parameter(key: str, value: object) -> str:
        return f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}\n'

    return (
        f'name: "{source.name}"\nbackend: "onnxruntime"\nmax_batch_size: {source.max_batch_size}\n'
        f'input [{{ name: "x" data_type: TYPE_FP32 dims: [ {source.input_dims} ] }}]\n'
        f"output [{outputs}]\n"
        f"dynamic_batching {{ }}\ninstance_group [ {{ count: {source.instances} }} ]\n"
        'model_warmup [{\n  name: "printed_text"\n  batch_size: 1\n'
        f'  inputs {{ key: "x" value: {{ data_type: TYPE_FP32 dims: [ {dims} ] input_data_file: "x" }} }}\n}}]\n'
        + parameter("lamina.warmup_shape.x", "x".join(map(str, sample_shape)))
        + parameter("lamina.tolerance", source.tolerance)
        + (parameter("lamina.run_bytes", source.run_bytes) if source.run_bytes else "")
        + (parameter("lamina.run_rows", ",".join(map(str, source.run_rows))) if source.run_rows else "")
        + "".join(parameter(f"lamina.tensorrt_profile.{number}", profile) for number, profile in enumerate(source.profiles, 1))
        + parameter("fingerprint", fingerprint)
    )


def _output_text(output: onnx.ValueInfoProto, dims: str) -> str:
    dims = dims or ", ".join(str(size.dim_value or -1) for size in output.type.tensor_type.shape.dim[1:])
    return f'{{ name: "{output.name}" data_type: TYPE_FP32 dims: [ {dims} ] }}'
