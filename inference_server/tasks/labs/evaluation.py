"""How well printed tests are matched: figures over tests whose code is known."""

from __future__ import annotations

import asyncio
import csv
import itertools
import math
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inference_server.errors import InvalidInput
from inference_server.scheduler.port import Caller
from inference_server.tasks.labs.catalogue.entries import Entry
from inference_server.tasks.labs.categorise import CATEGORIES
from inference_server.tasks.labs.classifier import LabClassifier
from inference_server.tasks.labs.limits import Limits
from inference_server.tasks.labs.matching.aliases import Alias, AliasMemory
from inference_server.tasks.labs.matching.match import Candidate
from inference_server.tasks.labs.parsing.normalise import PrintedTest

COLUMNS = ("name", "specimen", "unit", "category", "loinc")
_CANDIDATES = 20
_BINS = 10
_PRECISION = 0.95
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Gold:
    """A printed test and what it is."""

    test: PrintedTest
    code: str
    # One of `categorise.CATEGORIES`; empty when it is not known.
    category: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was found for a test whose code is known."""

    gold: Gold
    # Best first.
    candidates: tuple[Candidate, ...]
    category: str

    @property
    def is_exact(self) -> bool:
        """Whether the best candidate is the code."""
        return self.has_within(1)

    @property
    def score(self) -> float:
        """Of the best candidate, 0 to 1; 0 without one."""
        return self.candidates[0].score if self.candidates else 0.0

    def has_within(self, first: int) -> bool:
        """Whether the code is among the first candidates."""
        return any(candidate.entry.code == self.gold.code for candidate in self.candidates[:first])


@dataclass(frozen=True, kw_only=True)
class LabFigures:
    """Shares are 0 to 1, and None where no test tells."""

    tests: int
    # Tests whose code the catalogue lacks, which none can find, and those codes.
    tests_without_entry: int
    codes_without_entry: tuple[str, ...]
    top_1: float
    top_5: float
    recall_20: float
    # Of the tests whose code is in the catalogue.
    component_and_specimen_top_1: float | None
    # Of the tests whose category is given.
    category_accuracy: float | None
    expected_calibration_error: float
    coverage_at_95_precision: float
    # Model and catalogue that were used, as name:version.
    model: str = ""
    catalogue: str = ""


def read_gold(path: Path) -> list[Gold]:
    """Read a CSV with `COLUMNS`, and maybe `value`. Raises `InvalidInput`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise InvalidInput(
                    f"{path} lacks the column(s) {', '.join(missing)}; expected a CSV whose first line is {','.join(COLUMNS)}, "
                    "and maybe a column value. specimen, unit and category may be empty in a row."
                )
            gold = [_gold(row, f"{path}, line {reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InvalidInput(f"{path} cannot be read ({reason}); expected a CSV in UTF-8.") from error
    if not gold:
        raise InvalidInput(f"{path} has no rows; expected a test in each line after the first.")
    return gold


def _gold(row: Mapping[str, str], place: str) -> Gold:
    texts = {column: (row.get(column) or "").strip() for column in (*COLUMNS, "value")}
    most = Limits().most_characters
    if max(map(len, texts.values())) > most:
        raise InvalidInput(f"{place}: a text has more than {most} characters, which is no printed test. Is a quote missing?")
    for column in ("name", "loinc"):
        if not texts[column]:
            raise InvalidInput(f"{place}: {column} is empty; expected the name as it is printed, and the LOINC code that is right.")
    # Not one of ours, it is the heading that the laboratory prints the test under.
    heading = "" if texts["category"] in CATEGORIES else texts["category"]
    test = PrintedTest(name=texts["name"], value=texts["value"], unit=texts["unit"], specimen=texts["specimen"], heading=heading)
    return Gold(test=test, code=texts["loinc"], category="" if heading else texts["category"])


async def evaluate(
    labs: LabClassifier, gold: Sequence[Gold], caller: Caller, progress: Callable[[int], None], *, folds: int = 0
) -> LabFigures:
    """Classify the tests as the service does; `progress` gets the count of those done.

    With `folds`, the tests are dealt to so many parts, and each part is classified with the names of the others reviewed, in the place of
    the repository's reviewed names. Raises what `LabClassifier.classify` raises.
    """
    answers: list[Answer] = []
    model = catalogue = ""
    for part, others in _parts(gold, folds):
        if folds:
            await _review(labs, others)
        for start in range(0, len(part), _AT_ONCE):
            some = part[start : start + _AT_ONCE]
            found = await labs.classify([each.test for each in some], top=_CANDIDATES, caller=caller)
            model, catalogue = found.model, found.catalogue
            pairs = zip(some, found.tests, strict=True)
            answers += [Answer(gold=each, candidates=test.match.candidates, category=test.category) for each, test in pairs]
            progress(len(answers))
    entries = await labs.entries({each.code for each in gold})
    # A deprecated code is right when what stands for it is found.
    answers = [replace(each, gold=replace(each.gold, code=_now(each.gold.code, entries))) for each in answers]
    entries = {_now(code, entries): entry for code, entry in entries.items()}
    return figures(answers, entries, model=model, catalogue=catalogue)


def _parts(gold: Sequence[Gold], folds: int) -> Iterator[tuple[list[Gold], list[Gold]]]:
    """Each part and what is not in it; one part that is all of it without `folds`. The same tests are dealt the same way."""
    fold_of = [zlib.crc32(f"{number} {each.test.name}".encode()) % max(folds, 1) for number, each in enumerate(gold)]
    for fold in range(max(folds, 1)):
        pairs = list(zip(gold, fold_of, strict=True))
        yield [each for each, of in pairs if of == fold], [each for each, of in pairs if of != fold]


async def _review(labs: LabClassifier, gold: Sequence[Gold]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        memory = AliasMemory(Path(folder) / "aliases.jsonl")
        aliases = [Alias(name=each.test.name, code=each.code, unit=each.test.unit, specimen=each.test.specimen) for each in gold]
        await asyncio.to_thread(memory.upsert, aliases)
        await labs.review_with(memory)


def _now(code: str, entries: Mapping[str, Entry]) -> str:
    return entries[code].code if code in entries else code


def figures(answers: Sequence[Answer], entries: Mapping[str, Entry], *, model: str = "", catalogue: str = "") -> LabFigures:
    """All figures of at least one answer. `entries`: the catalogue's, by code; at least of those right codes that it has."""
    known = [answer for answer in answers if answer.gold.code in entries]
    told = [answer for answer in answers if answer.gold.category]
    return LabFigures(
        tests=len(answers),
        tests_without_entry=len(answers) - len(known),
        codes_without_entry=tuple(sorted({answer.gold.code for answer in answers} - entries.keys())),
        top_1=recall(answers, 1),
        top_5=recall(answers, 5),
        recall_20=recall(answers, 20),
        component_and_specimen_top_1=_share(is_same_analyte(answer, entries[answer.gold.code]) for answer in known),
        category_accuracy=_share(answer.category == answer.gold.category for answer in told),
        expected_calibration_error=expected_calibration_error(answers),
        coverage_at_95_precision=coverage(answers, _PRECISION),
        model=model,
        catalogue=catalogue,
    )


def recall(answers: Sequence[Answer], first: int) -> float:
    """Share of tests whose code is among the first candidates."""
    return sum(answer.has_within(first) for answer in answers) / len(answers)


def is_same_analyte(answer: Answer, right: Entry) -> bool:
    """Whether component and system of the best candidate are those of the right code."""
    if not answer.candidates:
        return False
    best = answer.candidates[0].entry
    return (best.component, best.system) == (right.component, right.system)


def expected_calibration_error(answers: Sequence[Answer]) -> float:
    """Mean distance between the best candidate's score and how often it is exact, over ten bins of the score, by their size.

    Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3. A score between two bins belongs to the lower one.
    """
    bins: dict[int, list[Answer]] = {}
    for answer in answers:
        # The smallest step over a bound comes from float32.
        number = max(math.ceil(answer.score * _BINS - 1e-5) - 1, 0)
        bins.setdefault(number, []).append(answer)
    distances = (abs(sum(answer.score for answer in some) - sum(answer.is_exact for answer in some)) for some in bins.values())
    return sum(distances) / len(answers)


def coverage(answers: Sequence[Answer], precision: float) -> float:
    """Largest share of tests, the surest first, of which at least `precision` have the exact code first. Equal scores go together."""
    surest = sorted(answers, key=lambda answer: -answer.score)
    taken = right = covered = 0
    for _, alike in itertools.groupby(surest, key=lambda answer: answer.score):
        for answer in alike:
            taken += 1
            right += answer.is_exact
        if right >= precision * taken:
            covered = taken
    return covered / len(answers)


def _share(truths: Iterable[bool]) -> float | None:
    counted = list(truths)
    return sum(counted) / len(counted) if counted else None
