"""The lab task: categories and LOINC codes of printed tests, a search, reviewed names, and embeddings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import structlog

from inference_server.errors import InferenceError, InvalidCatalogue, ModelUnavailable, NotFound
from inference_server.scheduler.port import Caller, Inference
from inference_server.tasks.labs.catalogue.catalogue import FOLDER, Catalogue, load_catalogue
from inference_server.tasks.labs.catalogue.entries import Entry
from inference_server.tasks.labs.catalogue.importing import DEFAULT_MODEL
from inference_server.tasks.labs.catalogue.vectors import embedded_names
from inference_server.tasks.labs.categorise import Categoriser
from inference_server.tasks.labs.embed import Embedder, Vectors
from inference_server.tasks.labs.limits import Limits, check_locale
from inference_server.tasks.labs.matching.aliases import Alias, AliasMemory
from inference_server.tasks.labs.matching.match import AT_ONCE, Candidate, Match, Matcher, MatchSettings, Status
from inference_server.tasks.labs.matching.ranking import best_ranking
from inference_server.tasks.labs.matching.retrieve import Query
from inference_server.tasks.labs.meanings import Meanings
from inference_server.tasks.labs.measures.results import LabResult, lab_result
from inference_server.tasks.labs.measures.ucum import load as load_units
from inference_server.tasks.labs.parsing.normalise import PrintedTest

_Done = TypeVar("_Done")
_log = structlog.get_logger()
# Reviewed names are embedded behind every client.
_CALLER = Caller(client="reviewed names", priority=1_000)
# Parts of requests whose likeness with every name is held: the one that has its turn, and the next. Each takes 3 MB at 23,000 names.
_PREPARED = 2
_DEFAULT_CANDIDATES = 5
_DEFAULT_HITS = 10
ALIASES = "aliases.jsonl"
# A ranker that was trained on the repository's own catalogue.
RANKER = "ranker.json"


@dataclass(frozen=True, kw_only=True)
class Classification:
    """What one test is."""

    category: str
    # 0 to 1.
    category_confidence: float
    match: Match
    # What the value says; None without one.
    result: LabResult | None = None


@dataclass(frozen=True, kw_only=True)
class Classified:
    """What the tests of a request are, in its order."""

    tests: tuple[Classification, ...]
    # Model and catalogue that were used, as name:version.
    model: str
    catalogue: str


@dataclass(frozen=True, kw_only=True)
class _Ready:
    catalogue: Catalogue
    matcher: Matcher
    meanings: Meanings
    categoriser: Categoriser


class LabClassifier:
    """Classifies lab tests. Everything heavy runs in threads or in the scheduler."""

    def __init__(
        self,
        inference: Inference,
        models: Path,
        *,
        model: str = DEFAULT_MODEL,
        limits: Limits | None = None,
        settings: MatchSettings | None = None,
    ) -> None:
        """`model`: the sentence encoder; `models`: the repository, whose `_catalogue` folder holds imported codes, vectors and aliases."""
        self._embedder = Embedder(inference, models)
        self._models = models
        self._model = model
        self._limits = limits or Limits()
        self._settings = settings
        self._aliases: AliasMemory | None = None
        self._ready: _Ready | None = None
        self._starting = asyncio.Lock()
        self._remembering = asyncio.Lock()
        # One thread each, for what threads keep of their memory adds up. Idle ones end with the process.
        self._turns = ThreadPoolExecutor(1, "labs-turn")
        self._products = ThreadPoolExecutor(1, "labs-likeness")
        self._ahead = asyncio.Semaphore(_PREPARED)
        # Embedded meanings of the reviewed names.
        self._reviewed: dict[str, Vectors] = {}
        self._absence = "the catalogue of lab tests is loading"

    @property
    def absence(self) -> str:
        """Why no request is answered yet; empty once they are."""
        return self._absence

    async def start(self) -> None:
        """Load the catalogue and embed its names where that was not done before. Otherwise the first request does it.

        Raises `InvalidCatalogue`, and what `Inference` raises.
        """
        await self._loaded()

    async def classify(self, tests: Sequence[PrintedTest], *, top: int = 0, locale: str = "", caller: Caller) -> Classified:
        """Category, verdict, result and `top` candidates (0 for 5) of each test. `locale`: of its numbers; id, en or empty.

        Raises `InvalidInput`, and what `Inference` raises.
        """
        self._limits.check_tests(tests)
        check_locale(locale)
        wanted = self._limits.candidates(top, _DEFAULT_CANDIDATES)
        ready = await self._prepared()
        parts = [tests[start : start + AT_ONCE] for start in range(0, len(tests), AT_ONCE)]
        queries = [query for part in parts for query in await self._in_turn(partial(_read, ready, part))]
        vectors, facts = await ready.meanings.embed([query.meaning for query in queries], caller)
        found: list[Classification] = []
        for start in range(0, len(queries), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            # The product of vectors does not need the interpreter: it runs beside the turn of another request.
            async with self._ahead:
                likeness = await asyncio.get_running_loop().run_in_executor(self._products, ready.matcher.likeness, vectors[some])
                found += await self._in_turn(partial(_classified, ready, queries[some], vectors[some], likeness, wanted, locale))
        return Classified(tests=tuple(found), model=f"{facts.name}:{facts.version}", catalogue=ready.catalogue.version)

    async def search(self, query: str, *, limit: int = 0, caller: Caller) -> tuple[Candidate, ...]:
        """Codes that fit a free text, best first; `limit` of them, 0 for 10. Raises `InvalidInput`, and what `Inference` raises."""
        hits = self._limits.candidates(limit, _DEFAULT_HITS)
        self._limits.check_query(query)
        found = await self.classify([PrintedTest(name=query)], top=hits, caller=caller)
        return found.tests[0].match.candidates

    async def entries(self, codes: Collection[str]) -> dict[str, Entry]:
        """The catalogue's entries of those codes that it has, or of what stands for them, by code.

        Raises `Unavailable`, and what `Inference` raises.
        """
        catalogue = (await self._prepared()).catalogue
        current = {code: catalogue.current(code) for code in codes}
        return {code: catalogue.entries[catalogue.by_code[now]] for code, now in current.items() if now}

    async def upsert_aliases(self, aliases: Sequence[Alias]) -> tuple[int, int]:
        """Remember reviewed names for good: counts of new ones and of changed ones. Raises `InvalidInput`, `NotFound`, `Unavailable`."""
        self._limits.check_items(len(aliases), "aliases")
        ready = await self._prepared()
        unknown = [alias.code for alias in aliases if not ready.catalogue.current(alias.code)]
        if unknown:
            raise NotFound(
                f"the catalogue has no code {unknown[0]!r} ({len(unknown)} unknown); import a Loinc.csv that has it, or correct the code."
            )
        # Decided on this catalogue, and on what stands for a code that was deprecated.
        decided = [replace(each, code=ready.catalogue.current(each.code), catalogue=ready.catalogue.version) for each in aliases]
        async with self._remembering:
            counts = await asyncio.to_thread(self._memory().upsert, decided)
            if any(counts):
                await self._remember(ready)
        return counts

    async def review_with(self, memory: AliasMemory) -> None:
        """Go by other reviewed names from now on. Raises `Unavailable`, and what `Inference` raises."""
        ready = await self._prepared()
        async with self._remembering:
            self._aliases = memory
            await self._remember(ready)

    async def embed(self, texts: Sequence[str], *, model: str = "", caller: Caller) -> tuple[Vectors, str]:
        """One L2-normalised row for each text, and the model as name:version. Raises `InvalidInput`, and what `Inference` raises."""
        self._limits.check_embedded(texts)
        vectors, facts = await self._embedder.embed(texts, model=model or self._model, caller=caller)
        return vectors, f"{facts.name}:{facts.version}"

    async def _in_turn(self, work: Callable[[], _Done]) -> _Done:
        """Work on a few tests in turns with other requests.

        In one thread: it holds the interpreter's lock nearly always, and two of them wait for each other at each array.
        """
        return await asyncio.get_running_loop().run_in_executor(self._turns, work)

    async def _prepared(self) -> _Ready:
        """What a request needs. A damaged catalogue or a missing model is no fault of the caller's, who may try again once it is mended."""
        try:
            return await self._loaded()
        except (InvalidCatalogue, NotFound) as error:
            raise ModelUnavailable(
                "the server lacks its catalogue of lab tests or the model for it; its log says why (labs_unavailable). "
                "Try again once it is mended."
            ) from error

    async def _loaded(self) -> _Ready:
        if self._ready is None:
            async with self._starting:
                if self._ready is None:
                    self._ready = await self._tried()
        return self._ready

    async def _tried(self) -> _Ready:
        try:
            ready = await self._prepare()
        except InferenceError as error:
            self._absence = str(error)
            raise
        self._absence = ""
        return ready

    async def _prepare(self) -> _Ready:
        started = time.monotonic()
        catalogue = await asyncio.to_thread(load_catalogue, self._models)
        vectors = await embedded_names(catalogue.names.meanings, self._embedder, self._models, model=self._model)
        memory = await asyncio.to_thread(self._memory)
        ranking, ranker = await asyncio.to_thread(best_ranking, catalogue, self._models / FOLDER / RANKER)
        await asyncio.to_thread(load_units)
        _log.info(
            "catalogue_ready",
            catalogue=catalogue.version,
            codes=len(catalogue.entries),
            names=len(catalogue.names.texts),
            aliases=len(memory),
            ranker=ranker,
            seconds=round(time.monotonic() - started, 3),
        )
        ready = _Ready(
            catalogue=catalogue,
            matcher=Matcher(catalogue, memory, vectors, self._settings, ranking),
            meanings=Meanings(self._embedder, self._model, catalogue.names.meanings, vectors),
            categoriser=Categoriser(catalogue.entries),
        )
        await self._remember(ready)
        return ready

    async def _remember(self, ready: _Ready) -> None:
        """Let the matcher know the reviewed names as they are now, each embedded once."""
        names = self._memory().all()
        meanings = await asyncio.to_thread(lambda: [ready.matcher.read(PrintedTest(name=alias.name)).meaning for alias in names])
        missing = list(dict.fromkeys(meaning for meaning in meanings if meaning not in self._reviewed))
        if missing:
            rows, _ = await ready.meanings.embed(missing, _CALLER)
            self._reviewed.update(zip(missing, rows, strict=True))
        vectors = np.stack([self._reviewed[meaning] for meaning in meanings]) if meanings else None
        await asyncio.to_thread(ready.matcher.remember, self._memory(), vectors)

    def _memory(self) -> AliasMemory:
        if self._aliases is None:
            self._aliases = AliasMemory(self._models / FOLDER / ALIASES)
        return self._aliases


def _read(ready: _Ready, tests: Sequence[PrintedTest]) -> list[Query]:
    return [ready.matcher.read(test) for test in tests]


def _classified(
    ready: _Ready, queries: Sequence[Query], vectors: Vectors, likeness: Vectors, top: int, locale: str
) -> list[Classification]:
    found = []
    for query, match in zip(queries, ready.matcher.match(queries, vectors, likeness, top), strict=True):
        category, confidence = ready.categoriser.categorise(query, match)
        believed = match.candidates[0].entry if match.status is Status.MATCHED else None
        code, component = (believed.code, believed.component) if believed else ("", "")
        result = lab_result(query.test, code=code, component=component, locale=locale)
        found.append(Classification(category=category, category_confidence=confidence, match=match, result=result))
    return found
