"""Text of one page: detect, cut out lines, recognise them in shared batches, order them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from inference_server.errors import ConfigurationError
from inference_server.scheduler.port import Caller, Inference, InferenceRequest, InferenceResponse
from inference_server.tasks.builtin import builtin_facts
from inference_server.tasks.documents.detection import DetectionSettings, detector_input, text_quads
from inference_server.tasks.documents.layout import Fragment, reading_order
from inference_server.tasks.documents.recognition import (
    Character,
    Crop,
    Piece,
    RecognitionSettings,
    bucket_width,
    crops_of,
    decode,
    pieces_of,
    recognizer_input,
)
from inference_server.tasks.documents.values import Line, Page, Quad
from inference_server.tasks.documents.words import words_of

# What is read with less confidence is not text.
_LEAST_CONFIDENCE = 0.5


@dataclass(frozen=True, kw_only=True)
class TextModels:
    """Which models of the repository read."""

    # The repository's folder.
    models: Path
    detector: str
    recognizer: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read on a page."""

    lines: tuple[Line, ...]
    # The models that ran, as name:version@engine:precision.
    models: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """One way to read a quad."""

    quad: Quad
    crop: Crop
    pieces: tuple[Piece, ...]


class TextReader:
    """Reads pages with a detector and a recogniser."""

    def __init__(self, inference: Inference, models: TextModels, detection: DetectionSettings, recognition: RecognitionSettings) -> None:
        self._inference = inference
        self._models = models
        self._detection = detection
        self._recognition = recognition
        # By version of the recogniser.
        self._characters: dict[str, tuple[str, ...]] = {}

    async def read(self, page: Page, caller: Caller) -> Reading:
        """The lines of a page, in reading order. Raises what `Inference.infer` raises, and `ConfigurationError`."""
        used: dict[str, None] = {}
        quads = await self._detect(page, caller, used)
        fragments = await self._recognize(page, quads, caller, used) if quads else []
        lines = await asyncio.to_thread(reading_order, fragments)
        return Reading(lines=lines, models=tuple(used))

    async def _detect(self, page: Page, caller: Caller, used: dict[str, None]) -> list[Quad]:
        source = await asyncio.to_thread(detector_input, page, self._detection)
        facts = builtin_facts(self._inference, self._models.detector)
        response = await self._inference.infer(
            InferenceRequest(model=self._models.detector, inputs={facts.inputs[0].name: source.tensor}, caller=caller)
        )
        used[_told(response)] = None
        likelihood = np.asarray(response.outputs[facts.outputs[0].name], np.float32)
        return await asyncio.to_thread(text_quads, likelihood[0, 0], source, self._detection)

    async def _recognize(self, page: Page, quads: Sequence[Quad], caller: Caller, used: dict[str, None]) -> list[Fragment]:
        candidates = await asyncio.to_thread(_candidates, page, quads, self._recognition)
        pieces = [piece for candidate in candidates for piece in candidate.pieces]
        buckets: dict[int, list[Piece]] = defaultdict(list)
        for piece in pieces:
            buckets[bucket_width(piece.width, self._recognition)].append(piece)
        rows = max(1, builtin_facts(self._inference, self._models.recognizer).max_batch_size)
        batches = [(width, some) for width, bucket in sorted(buckets.items()) for some in _chunks(bucket, rows)]
        answers = await _gather(self._batch(width, some, caller, used) for width, some in batches)
        read = {
            id(piece): found for (_, some), answer in zip(batches, answers, strict=True) for piece, found in zip(some, answer, strict=True)
        }
        return await asyncio.to_thread(_fragments, candidates, read)

    async def _batch(self, width: int, pieces: Sequence[Piece], caller: Caller, used: dict[str, None]) -> list[list[Character]]:
        facts = builtin_facts(self._inference, self._models.recognizer)
        tensor = await asyncio.to_thread(recognizer_input, [piece.image for piece in pieces], width)
        response = await self._inference.infer(
            InferenceRequest(model=self._models.recognizer, inputs={facts.inputs[0].name: tensor}, caller=caller)
        )
        used[_told(response)] = None
        likelihood = np.asarray(response.outputs[facts.outputs[0].name])
        characters = await self._characters_of(response.version, likelihood.shape[-1])
        return await asyncio.to_thread(lambda: [decode(row, characters, width) for row in likelihood])

    async def _characters_of(self, version: str, classes: int) -> tuple[str, ...]:
        if version not in self._characters:
            path = self._models.models / self._models.recognizer / version / "characters.txt"
            characters = await asyncio.to_thread(_read_characters, path)
            if len(characters) != classes:
                raise ConfigurationError(
                    f"{path} has {len(characters) - 2} characters; the model has {classes} classes, of which 2 are blank and space. "
                    "Run `inference-server models build`."
                )
            self._characters[version] = characters
        return self._characters[version]


def _candidates(page: Page, quads: Sequence[Quad], settings: RecognitionSettings) -> list[_Candidate]:
    return [_Candidate(quad=quad, crop=crop, pieces=tuple(pieces_of(crop, settings))) for quad in quads for crop in crops_of(page, quad)]


def _fragments(candidates: Sequence[_Candidate], read: Mapping[int, list[Character]]) -> list[Fragment]:
    """Of each quad the reading that is surest, where it is sure enough to be text."""
    best: dict[int, tuple[float, _Candidate, list[Character]]] = {}
    for candidate in candidates:
        characters = _joined(candidate.pieces, read)
        confidence = float(np.mean([character.confidence for character in characters])) if characters else 0.0
        if confidence >= max(_LEAST_CONFIDENCE, best[id(candidate.quad)][0] if id(candidate.quad) in best else 0.0):
            best[id(candidate.quad)] = (confidence, candidate, characters)
    fragments = [Fragment(quad=found.quad, words=tuple(words_of(characters, found.crop))) for _, found, characters in best.values()]
    return [fragment for fragment in fragments if fragment.words]


def _joined(pieces: Sequence[Piece], read: Mapping[int, list[Character]]) -> list[Character]:
    characters: list[Character] = []
    for piece in pieces:
        if piece.after_space:
            characters.append(Character(text=" ", confidence=1.0, x=piece.offset))
        characters += [replace(character, x=character.x + piece.offset) for character in read[id(piece)]]
    return characters


def _read_characters(path: Path) -> tuple[str, ...]:
    try:
        # Only line feeds end a line here: other separators are characters of the list.
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} is missing: the recogniser's characters. Run `inference-server models build`.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__}); expected one character a line in UTF-8.") from error
    return ("", *lines, " ")


def _told(response: InferenceResponse) -> str:
    return f"{response.model}:{response.version}@{response.engine}"


def _chunks(pieces: Sequence[Piece], rows: int) -> list[Sequence[Piece]]:
    return [pieces[start : start + rows] for start in range(0, len(pieces), rows)]


async def _gather(work: Iterable[Coroutine[None, None, list[list[Character]]]]) -> list[list[list[Character]]]:
    """Await all; when one fails or the caller is cancelled, none goes on."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
