"""The built-in text models."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from inference_server.models.builders.ppocr import build_detector, build_recognizer


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_both_models_are_written_in_the_repository_layout(tmp_path: Path) -> None:
    detector, recognizer = build_detector(tmp_path), build_recognizer(tmp_path)
    assert [tmp_path / "ppocrv6_small_det", tmp_path / "ppocrv6_small_rec"] == [detector, recognizer]
    assert {"1/model.onnx", "config.pbtxt", "warmup/x"} == set(contents(detector))
    assert {"1/model.onnx", "1/characters.txt", "words.txt", "config.pbtxt", "warmup/x"} == set(contents(recognizer))
    assert {detector.name, recognizer.name} == {path.name for path in tmp_path.iterdir()}


def test_the_characters_are_those_of_the_model_without_blank_and_space(tmp_path: Path) -> None:
    recognizer = build_recognizer(tmp_path)
    characters = (recognizer / "1" / "characters.txt").read_bytes().decode().removesuffix("\n").split("\n")
    session = onnxruntime.InferenceSession(recognizer / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape[-1] == len(characters) + 2
    assert {"A", "z", "0", "µ", "%", "/", "^", "±", "≤"} <= set(characters)


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
    for file in ("1/characters.txt", "words.txt"):
        (recognizer / file).unlink()
        build_recognizer(tmp_path)
        assert before == contents(recognizer)
