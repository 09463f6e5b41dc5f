"""The built-in text models."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from inference_server.engine.openvino import OpenVinoLoader
from inference_server.engine.selection.agreement import deviation
from inference_server.models.builders.int8_ranges import tell_ranges
from inference_server.models.builders.ppocr import build_detector, build_recognizer
from inference_server.models.config import read_configuration
from inference_server.tasks.documents.recognition.alphabet import read_alphabet
from inference_server.tasks.documents.recognition.recogniser import RecognitionSettings
from inference_server.tasks.documents.recognition.steps import answered, steps_of


def wheel_file(name: str) -> Path:
    return Path(str(files("rapidocr") / "models" / name))


def wheel_characters() -> list[str]:
    return str(session_of(wheel_file("PP-OCRv6_rec_small.onnx")).get_modelmeta().custom_metadata_map["character"]).split("\n")


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_both_models_are_written_in_the_repository_layout(tmp_path: Path) -> None:
    detector, recognizer = build_detector(tmp_path), build_recognizer(tmp_path)
    assert [tmp_path / "ppocrv6_small_det", tmp_path / "ppocrv6_small_rec"] == [detector, recognizer]
    assert {"1/model.onnx", "config.pbtxt", "warmup/x"} == set(contents(detector))
    beside = {"1/characters.txt", "1/rare_characters.txt", "1/rare_weights.npy", "words.txt"}
    assert {"1/model.onnx", "config.pbtxt", "warmup/x"} | beside == set(contents(recognizer))
    assert {detector.name, recognizer.name} == {path.name for path in tmp_path.iterdir()}


def test_lines_are_put_together_for_the_numbers_of_lines_that_the_recogniser_runs(tmp_path: Path) -> None:
    assert set(RecognitionSettings().run_rows) == set(read_configuration(build_recognizer(tmp_path)).run_rows)


def characters_in(path: Path) -> list[str]:
    return path.read_bytes().decode().removesuffix("\n").split("\n")


def test_the_characters_are_those_of_the_model_without_blank_and_space(tmp_path: Path) -> None:
    version = build_recognizer(tmp_path) / "1"
    common, rare = characters_in(version / "characters.txt"), characters_in(version / "rare_characters.txt")
    session = onnxruntime.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"])
    classes = {output.name: output.shape[-1] for output in session.get_outputs()}
    assert classes["common"] == len(common) + 2
    assert {"A", "z", "0", "µ", "%", "/", "^", "±"} <= set(common)
    assert {"≤", "血", "ア"} <= set(rare)
    assert (len(rare), classes["features"] + 1) == np.load(version / "rare_weights.npy").shape
    assert 18_708 == len({*common, *rare}) == len(common) + len(rare)


def test_the_recogniser_tells_what_the_one_of_the_wheel_does(tmp_path: Path) -> None:
    folder = build_recognizer(tmp_path)
    line = np.frombuffer((folder / "warmup" / "x").read_bytes(), np.float32).reshape(1, 3, 48, -1)
    noise = np.random.default_rng(0).uniform(-1, 1, line.shape).astype(np.float32)
    for x in (line, noise):
        (whole,) = session_of(wheel_file("PP-OCRv6_rec_small.onnx")).run(None, {"x": x})
        names = [output.name for output in session_of(folder / "1" / "model.onnx").get_outputs()]
        answer = dict(zip(names, session_of(folder / "1" / "model.onnx").run(None, {"x": x}), strict=True))
        expected, found = steps_of({"likelihood": whole}, None), steps_of(answer, np.load(folder / "1" / "rare_weights.npy"))
        alphabet = read_alphabet(folder / "1", *answered(answer))
        everything = ("", *wheel_characters(), " ")
        assert [everything[index] for index in expected.classes[0]] == [alphabet.characters[index] for index in found.classes[0]]
        np.testing.assert_allclose(expected.confidences, found.confidences, atol=0.03)
        np.testing.assert_allclose(expected.spaces, found.spaces, atol=0.03)


def convolutions_in_int8(folder: Path) -> int:
    """How many have a range told of what they take; each line of the ranges tells of one."""
    model = onnx.load(folder / "1" / "model.onnx")
    told = next(entry.value for entry in model.metadata_props if entry.key == "lamina.int8_ranges").splitlines()
    taken = {node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    assert {line.split()[0] for line in told} <= taken
    return len(told)


@pytest.mark.parametrize(("build", "count"), [(build_detector, 28), (build_recognizer, 25)])
def test_the_file_tells_ranges_of_what_convolutions_take(tmp_path: Path, build: Callable[[Path], Path], count: int) -> None:
    assert count == convolutions_in_int8(build(tmp_path))


def answers_of(folder: Path, x: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """By how it is computed: in float32, in bfloat16 with ranges and without them, and in float32 by the file with ranges."""
    loader = OpenVinoLoader(threads=1)
    if "bfloat16" not in loader.precisions:
        pytest.skip("the processor does not compute in bfloat16")
    path = folder / "1" / "model.onnx"
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path.with_name("untold.onnx"))
    engines = {
        "float32": loader.load(path.with_name("untold.onnx"), "float32"),
        "bfloat16": loader.load(path.with_name("untold.onnx"), "bfloat16"),
        "int8": loader.load(path, "bfloat16"),
        "told float32": loader.load(path, "float32"),
    }
    return {name: engine.run({"x": x}) for name, engine in engines.items()}


def test_the_recogniser_reads_the_same_in_int8(tmp_path: Path) -> None:
    folder = build_recognizer(tmp_path)
    line = np.frombuffer((folder / "warmup" / "x").read_bytes(), np.float32).reshape(1, 3, 48, -1)
    answers = answers_of(folder, line)
    expected = answers["float32"]
    assert deviation(answers["bfloat16"], expected) < deviation(answers["int8"], expected) < 0.07
    # In float32 all is computed as the file says.
    assert deviation(answers["told float32"], expected) == 0
    # Two steps of a hundred at most, at the edges of characters.
    assert np.mean(answers["int8"]["common"].argmax(axis=2) != expected["common"].argmax(axis=2)) <= 0.02


def test_the_detector_finds_the_same_in_int8(tmp_path: Path) -> None:
    folder = build_detector(tmp_path)
    page = np.frombuffer((folder / "warmup" / "x").read_bytes(), np.float32).reshape(1, 3, 640, -1)
    answers = answers_of(folder, page)
    (expected,), (found,) = answers["float32"].values(), answers["int8"].values()
    assert deviation(answers["bfloat16"], answers["float32"]) < deviation(answers["int8"], answers["float32"]) < 0.15
    assert deviation(answers["told float32"], answers["float32"]) == 0
    # Of the text's pixels, at its edges.
    assert np.sum((found > 0.3) != (expected > 0.3)) <= 0.05 * np.sum(expected > 0.3)


@pytest.mark.parametrize("name", ["det", "rec"])
def test_weights_of_another_release_get_no_ranges(name: str) -> None:
    model = onnx.load(wheel_file(f"PP-OCRv6_{name}_small.onnx"))
    served = onnx.ModelProto()
    tell_ranges(served, model, f"ppocrv6_small_{name}")
    assert served.metadata_props
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros(3, np.float32), model.graph.initializer[0].name))
    other = onnx.ModelProto()
    tell_ranges(other, model, f"ppocrv6_small_{name}")
    assert not other.metadata_props


def test_the_words_are_english_and_indonesian_with_their_counts(tmp_path: Path) -> None:
    lines = (build_recognizer(tmp_path) / "words.txt").read_text("utf-8").splitlines()
    counts = {word: int(count) for word, count in (line.split(" ") for line in lines)}
    assert {"annual", "laboratory", "darah", "periksa"} <= set(counts)
    assert counts["the"] > counts["annual"] > counts["teat"] > 0


def test_a_second_build_writes_nothing_and_a_damaged_folder_is_mended(tmp_path: Path) -> None:
    recognizer = build_recognizer(tmp_path)
    before = contents(recognizer)
    stamp = (recognizer / "config.pbtxt").stat().st_mtime_ns
    build_recognizer(tmp_path)
    assert stamp == (recognizer / "config.pbtxt").stat().st_mtime_ns
    for file in ("1/characters.txt", "1/rare_characters.txt", "1/rare_weights.npy", "words.txt"):
        (recognizer / file).unlink()
        build_recognizer(tmp_path)
        assert before == contents(recognizer)
