"""Editors of Windows put a byte order mark before a text in UTF-8: it is no part of what people write, in whichever file."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_server.models.config import read_configuration
from inference_server.models.repository import ModelRepository
from inference_server.service.security.tokens import read_tokens
from inference_server.tasks.documents.recognition.alphabet import read_alphabet
from inference_server.tasks.documents.recognition.spelling import Lexicon
from inference_server.tasks.labs.matching.aliases import AliasMemory
from inference_server.tasks.slides import manifest
from tests.support.models.small_models import sum_and_difference, write_model

LABELLED = 'output [{ name: "OUTPUT0" data_type: TYPE_INT32 dims: [16] label_filename: "labels.txt" }]\n'


def of_model(folder: Path) -> object:
    found = ModelRepository(folder).read("model")
    return found.labels, found.configuration.message


FILES: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "manifest": ("model/slide.json", '{"kind": "embedder", "mpp": 0.5, "tile_size": 64}', lambda folder: manifest.read(folder, "model")),
    "configuration": ("model/config.pbtxt", "max_batch_size: 8\n", lambda folder: read_configuration(folder / "model").message),
    "labels": ("model/labels.txt", "cat\ndog\n", of_model),
    "tokens by line": ("tokens", "bridge first-token-of-the-bridge slides\n", lambda folder: read_tokens(folder / "tokens")),
    "tokens as JSON": (
        "tokens",
        '[{"name": "bridge", "token": "first-token-of-the-bridge", "permissions": ["labs"]}]',
        lambda folder: read_tokens(folder / "tokens"),
    ),
    "words": ("words.txt", "the 9000\nannual 400\n", lambda folder: Lexicon.read(folder / "words.txt").likelihood),
    "characters": ("characters.txt", "a\nb\n", lambda folder: read_alphabet(folder, 4, None).characters),
    "reviewed names": ("aliases.jsonl", '{"name": "gula", "code": "2345-7"}\n', lambda folder: AliasMemory(folder / "aliases.jsonl").all()),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path, kind: str) -> None:
    name, text, read = FILES[kind]
    write_model(tmp_path, "model", sum_and_difference(), LABELLED)
    (tmp_path / "model" / "labels.txt").write_text("one\n")
    path = tmp_path / name
    path.write_text(text, "utf-8")
    plain = read(tmp_path)
    path.write_bytes(codecs.BOM_UTF8 + text.encode())
    assert plain == read(tmp_path)
    assert plain
