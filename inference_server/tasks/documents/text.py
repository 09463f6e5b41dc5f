"""Text of one page: detect, find which way up the page is, recognise its lines in shared batches, order them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from inference_server.models.recognizer_files import WORDS
from inference_server.scheduler.port import Caller, Inference, InferenceRequest
from inference_server.tasks.builtin import builtin_facts
from inference_server.tasks.documents.detection.cell_search import cell_rows_of
from inference_server.tasks.documents.detection.cells import CellRow, without_letters, without_rules
from inference_server.tasks.documents.detection.detector import DetectedText, DetectionSettings, detected_text, detector_input
from inference_server.tasks.documents.detection.leveled import leveled
from inference_server.tasks.documents.detection.orientation import Trial, Turn, is_better, is_sure, lies_on_side, telling
from inference_server.tasks.documents.detection.strips import joined, strips_of
from inference_server.tasks.documents.layout.reading_order import reading_order
from inference_server.tasks.documents.recognition.cell_words import fragments_of
from inference_server.tasks.documents.recognition.lines import LineReader, ReadQuad, told
from inference_server.tasks.documents.recognition.recogniser import RecognitionSettings
from inference_server.tasks.documents.recognition.spelling import Lexicon, Speller
from inference_server.tasks.documents.recognition.strays import with_dashes, without_marks, without_specks_of
from inference_server.tasks.documents.values import Line, Outline, Page

# What is read with less confidence is not text.
_LEAST_CONFIDENCE = 0.5
# Lines that tell which way up a page is, and their length in heights beyond which they tell no more.
_TRIAL_LINES = 6
_TRIAL_RATIO = 10.0


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

    # Coordinates are of the page as it came.
    lines: tuple[Line, ...]
    # The clockwise turn after which the text stands upright: 0, 90, 180 or 270.
    rotation_degrees: int
    # The models that ran, as name:version@engine:precision.
    models: tuple[str, ...]


class TextReader:
    """Reads pages with a detector and a recogniser."""

    def __init__(self, inference: Inference, models: TextModels, detection: DetectionSettings, recognition: RecognitionSettings) -> None:
        self._inference = inference
        self._detector = models.detector
        self._models = (models.detector, models.recognizer)
        self._detection = detection
        self._lines = LineReader(inference, models.models, models.recognizer, recognition)
        self._lexicon = Lexicon.read(models.models / models.recognizer / WORDS)

    def check_device(self, caller: Caller) -> None:
        """Raises `DeviceMissing` where the devices that a caller allows do not run the models, `Unavailable` where these are missing."""
        if caller.device:
            for model in self._models:
                builtin_facts(self._inference, model).check_device(caller.device)

    async def read(self, page: Page, caller: Caller) -> Reading:
        """The lines of a page, in reading order. Raises what `Inference.infer` raises, and `ConfigurationError`."""
        used: dict[str, None] = {}
        rows = await asyncio.to_thread(cell_rows_of, page)
        if not rows or (found := await self._read_with_cells(page, rows, caller, used)) is None:
            rows = ()
            outlines = await self._outlines(page, caller, used)
            found = await self._recognize(page, outlines, (), caller, used)
        turn, quads = found
        lines = await asyncio.to_thread(_lines, turn, quads, rows, self._lexicon)
        return Reading(lines=lines, rotation_degrees=turn.degrees, models=tuple(used))

    async def _read_with_cells(
        self, page: Page, rows: Sequence[CellRow], caller: Caller, used: dict[str, None]
    ) -> tuple[Turn, list[ReadQuad]] | None:
        """What is read in rows of cells, and beside them; None where the page lies on its side, so that they are none."""
        page = await asyncio.to_thread(without_rules, page, rows)
        outlines = await self._outlines(await asyncio.to_thread(without_letters, page, rows), caller, used)
        in_cells = [outline for row in rows for outline in row.outlines()]
        turn, found = await self._recognize(page, outlines, in_cells, caller, used)
        return None if turn.quarters % 2 else (turn, found)

    async def _outlines(self, page: Page, caller: Caller, used: dict[str, None]) -> Sequence[Outline]:
        found = await self._detect(page, caller, used)
        if lies_on_side(found.outlines):
            # Of text that runs up or down the detector loses what is short, such as lone digits and dashes, and ends of lines.
            turned = await asyncio.to_thread(np.ascontiguousarray, replace(_as_it_came(page), quarters=1).page(page))
            upright = await self._level_outlines(turned, await self._detect(turned, caller, used), caller, used)
            back = replace(_as_it_came(turned), quarters=3)
            again = [back.outline(outline) for outline in upright]
            # A page of short words and tall marks may only have seemed to lie so: turned, what was found is lost in its turn.
            if lies_on_side(again):
                return again
        return await self._level_outlines(page, found, caller, used)

    async def _level_outlines(self, page: Page, found: DetectedText, caller: Caller, used: dict[str, None]) -> Sequence[Outline]:
        """What was found on a page, or, where lines hang together, on it made level."""
        if not found.is_tangled:
            return found.outlines
        level = await asyncio.to_thread(leveled, page, found.outlines, self._detection.most_short_side)
        if level is None:
            return found.outlines
        again = await self._detect(level.page, caller, used)
        return [level.back(outline) for outline in again.outlines]

    async def _detect(self, page: Page, caller: Caller, used: dict[str, None]) -> DetectedText:
        # One strip after the other, which bounds the memory whatever a page's length.
        strips = await asyncio.to_thread(strips_of, page, self._detection)
        found = [await self._detect_strip(strip.page, caller, used) for strip in strips]
        # One strip alone may begin anywhere too: blank ones are left out.
        return await asyncio.to_thread(joined, strips, found, self._detection)

    async def _detect_strip(self, page: Page, caller: Caller, used: dict[str, None]) -> DetectedText:
        source = await asyncio.to_thread(detector_input, page, self._detection)
        facts = builtin_facts(self._inference, self._detector)
        response = await self._inference.infer(
            InferenceRequest(model=self._detector, inputs={facts.inputs[0].name: source.tensor}, caller=caller)
        )
        used[told(response)] = None
        likelihood = np.asarray(response.outputs[facts.outputs[0].name], np.float32)
        return await asyncio.to_thread(detected_text, likelihood[0, 0], source, self._detection)

    async def _recognize(
        self, page: Page, outlines: Sequence[Outline], in_cells: Sequence[Outline], caller: Caller, used: dict[str, None]
    ) -> tuple[Turn, list[ReadQuad]]:
        """Read a few lines to find the page's turn, then the rest in it. `in_cells`: those that tell it only where there are no others."""
        lines = [*outlines, *in_cells]
        trial = outlines if len(outlines) >= _TRIAL_LINES // 2 else lines

        async def read(turn: Turn, some: Sequence[int]) -> list[ReadQuad]:
            return await self._lines.read(turn.page(page), [turn.outline(lines[index]) for index in some], caller, used)

        as_it_came = _as_it_came(page)
        turn = replace(as_it_came, quarters=int(lies_on_side(trial)))
        some = telling([turn.outline(outline) for outline in trial], _TRIAL_LINES, _TRIAL_RATIO)
        found = await read(turn, some)
        if not is_sure(_trials(found)):
            other = await read(turn.reversed(), some)
            if is_better(_trials(other), _trials(found)):
                turn, found = turn.reversed(), other
            elif turn != as_it_came and not is_better(_trials(found), _trials(other)):
                # Read badly both ways, it does not lie on its side.
                turn, some, found = as_it_came, [], []
        rest = sorted(set(range(len(lines))) - set(some))
        return turn, found + await read(turn, rest)


def _as_it_came(page: Page) -> Turn:
    return Turn(quarters=0, height=page.shape[0], width=page.shape[1])


def _trials(found: Sequence[ReadQuad]) -> list[Trial]:
    return [Trial(characters=len(quad.characters), confidence=quad.confidence) for quad in found]


def _lines(turn: Turn, found: Sequence[ReadQuad], rows: Sequence[CellRow], lexicon: Lexicon) -> tuple[Line, ...]:
    """Put what is sure enough to be text in order, on the upright page, and tell where it lies on the page as it came."""
    found = with_dashes(found)
    sure = [quad for quad in found if quad.confidence >= _LEAST_CONFIDENCE]
    speller = Speller(lexicon, [quad.characters for quad in sure])
    fragments = fragments_of(found, rows, turn, speller, _LEAST_CONFIDENCE)
    return tuple(turn.line_back(line) for line in without_marks(reading_order(without_specks_of(fragments))))
