"""The text of quads of a page: cut out, read in batches of one width, and of several ways to read a quad the surest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from inference_server.scheduler.port import Caller, Inference, InferenceRequest, InferenceResponse
from inference_server.tasks.builtin import builtin_facts
from inference_server.tasks.documents.recognition.alphabet import Alphabet, read_alphabet
from inference_server.tasks.documents.recognition.crosses import with_printed_x
from inference_server.tasks.documents.recognition.dashes import dash_in
from inference_server.tasks.documents.recognition.recogniser import (
    Character,
    Crop,
    Piece,
    RecognitionSettings,
    batches_of,
    crops_of,
    decode,
    pieces_of,
    recognizer_input,
)
from inference_server.tasks.documents.recognition.signs import latin_signs
from inference_server.tasks.documents.recognition.steps import answered, steps_of
from inference_server.tasks.documents.values import Outline, Page

# What one letter is read as it stands with less is nothing. What strokes and dots are read as, however they are turned; what ticks are.
_SURE_OF_ONE = 0.5
_STROKES, _TICKS = frozenset("1Iil|/\\-_=~.,:;'\"`"), frozenset("√✓✔×")


@dataclass(frozen=True, kw_only=True)
class ReadQuad:
    """What was read in a quad."""

    outline: Outline
    crop: Crop
    # From left to right, spaces included; x in pixels of the crop.
    characters: tuple[Character, ...]
    # Their mean, 0 to 1; 0 when there are none.
    confidence: float


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """One way to read a quad."""

    # Among the quads asked for.
    position: int
    crop: Crop
    pieces: tuple[Piece, ...]


class LineReader:
    """Reads quads with a recogniser of the repository. `models`: the repository's folder, where its characters lie."""

    def __init__(self, inference: Inference, models: Path, recognizer: str, settings: RecognitionSettings) -> None:
        self._inference = inference
        self._models = models
        self._recognizer = recognizer
        self._settings = settings
        # By version of the recogniser, and the last sizes of what it answers.
        self._alphabets: dict[tuple[object, ...], Alphabet] = {}
        self._reading = threading.Lock()

    async def read(self, page: Page, outlines: Sequence[Outline], caller: Caller, used: dict[str, None]) -> list[ReadQuad]:
        """Read each of them, in their order, in the surest way; those that cannot be cut out are left out.

        `used` gets the models that ran. Raises what `Inference.infer` raises, and `ConfigurationError`.
        """
        if not outlines:
            return []
        candidates = await asyncio.to_thread(_candidates, page, outlines, self._settings)
        pieces = [piece for candidate in candidates for piece in candidate.pieces]
        rows = max(1, builtin_facts(self._inference, self._recognizer).max_batch_size)
        batches = batches_of(pieces, rows, self._settings)
        answers = await _gather(self._batch(width, some, caller, used) for width, some in batches)
        read = {
            id(piece): found for (_, some), answer in zip(batches, answers, strict=True) for piece, found in zip(some, answer, strict=True)
        }
        return _surest(outlines, candidates, read)

    async def _batch(self, width: int, pieces: Sequence[Piece], caller: Caller, used: dict[str, None]) -> list[list[Character]]:
        facts = builtin_facts(self._inference, self._recognizer)
        tensor = await asyncio.to_thread(recognizer_input, [piece.image for piece in pieces], width)
        response = await self._inference.infer(
            InferenceRequest(model=self._recognizer, inputs={facts.inputs[0].name: tensor}, caller=caller)
        )
        used[told(response)] = None
        alphabet = await self._alphabet_of(response)
        return await asyncio.to_thread(lambda: decode(steps_of(response.outputs, alphabet.rare_weights), alphabet.characters, width))

    async def _alphabet_of(self, response: InferenceResponse) -> Alphabet:
        # A model that was built anew may answer otherwise.
        key = (response.version, *(output.shape[2:] for output in response.outputs.values()))
        if key not in self._alphabets:
            await asyncio.to_thread(self._read_alphabet, key, response)
        return self._alphabets[key]

    def _read_alphabet(self, key: tuple[object, ...], response: InferenceResponse) -> None:
        """Read it once: all batches of a first page want it, and several threads of Python 3.11 may not open files of numpy at once."""
        with self._reading:
            if key not in self._alphabets:
                folder = self._models / self._recognizer / response.version
                self._alphabets[key] = read_alphabet(folder, *answered(response.outputs))


def told(response: InferenceResponse) -> str:
    """The model that answered, as name:version@engine:precision."""
    return f"{response.model}:{response.version}@{response.engine}"


def _candidates(page: Page, outlines: Sequence[Outline], settings: RecognitionSettings) -> list[_Candidate]:
    return [
        _Candidate(position=position, crop=crop, pieces=tuple(pieces_of(crop, settings)))
        for position, outline in enumerate(outlines)
        for crop in crops_of(page, outline)
    ]


def _surest(outlines: Sequence[Outline], candidates: Sequence[_Candidate], read: Mapping[int, list[Character]]) -> list[ReadQuad]:
    best: dict[int, ReadQuad] = {}
    for candidate in candidates:
        characters = _characters(candidate, read)
        confidence = float(np.mean([character.confidence for character in characters])) if characters else 0.0
        if candidate.position in best and len(characters) <= 1 and not counts_turned(best[candidate.position], characters):
            continue
        if candidate.position not in best or confidence >= best[candidate.position].confidence:
            best[candidate.position] = ReadQuad(
                outline=outlines[candidate.position], crop=candidate.crop, characters=characters, confidence=confidence
            )
    return list(best.values())


def counts_turned(standing: ReadQuad, turned: Sequence[Character]) -> bool:
    """Whether a turned reading of one letter counts: where nothing of Latin text was read as it stands, and what is no mere stroke now.

    Turned, a dash is a 1.
    """
    is_read = standing.confidence >= _SURE_OF_ONE and all(character.text.isascii() for character in standing.characters)
    return not is_read and any(
        character.text in _TICKS or (character.text.isascii() and character.text not in _STROKES) for character in turned
    )


def _characters(candidate: _Candidate, read: Mapping[int, list[Character]]) -> tuple[Character, ...]:
    characters = tuple(with_printed_x(latin_signs(_joined(candidate.pieces, read)), candidate.crop))
    dash = dash_in(candidate.crop, characters)
    return (dash,) if dash else characters


def _joined(pieces: Sequence[Piece], read: Mapping[int, list[Character]]) -> list[Character]:
    characters: list[Character] = []
    for piece in pieces:
        if piece.after_space:
            characters.append(Character(text=" ", confidence=1.0, x=piece.offset))
        found = read[id(piece)]
        characters += [replace(character, x=character.x + piece.offset) for character in found] if piece.offset else found
    return characters


async def _gather(work: Iterable[Coroutine[None, None, list[list[Character]]]]) -> list[list[list[Character]]]:
    """Await all; when one fails or the caller is cancelled, none goes on."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
