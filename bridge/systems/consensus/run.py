"""One try at one run. Each finished step is committed with its rows before the next begins, so that a later try goes on from there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from bridge.errors import BridgeError, OverloadError, PermanentError, TransientError
from bridge.gathering import Gatherer
from bridge.job import Units, Write
from bridge.llm.port import LanguageModel, Question
from bridge.records.consensus import ConsensusRecords, RunRecord
from bridge.systems.consensus import prompts, reuse
from bridge.systems.consensus.aggregation import aggregate
from bridge.systems.consensus.books import Books
from bridge.systems.consensus.lifecycle import Lifecycle
from bridge.systems.consensus.options import ModelChoice, RunOptions
from bridge.systems.consensus.personas import Persona, PromptSet
from bridge.systems.consensus.schemas import DecisionAggregation, ExpandedProposal, PersonaReview
from bridge.systems.consensus.steps import AGGREGATE, BY_PERSONA, EXPAND, REVIEWS, STEPS, PipelineStep
from bridge.systems.port import Context


class RunInProgress:
    """Does what is left to do."""

    def __init__(
        self,
        run: RunRecord,
        *,
        context: Context,
        records: ConsensusRecords,
        model: LanguageModel,
        prompt_set: PromptSet,
        options: RunOptions,
        lifecycle: Lifecycle,
    ) -> None:
        self._run = run
        self._context = context
        self._records = records
        self._model = model
        self._prompts = prompt_set
        self._options = options
        self._lifecycle = lifecycle
        self._books = Books(options, context.claim.checkpoint.get("usage", {}))
        self._done = 0
        self._stored = {row["persona_id"]: PersonaReview.model_validate(row["review"]) for row in run.reviews}
        # Steps that end at the same time are saved together; what they save must not overtake each other.
        self._saves: Gatherer[Sequence[Write], None] = Gatherer(self._save_all)
        self._saving = asyncio.Lock()

    async def begin(self) -> None:
        """Have it known that the run is worked on, and which steps are."""
        first = [self._running(EXPAND)] if self._run.proposal is None else self._running_reviews()
        await self._save(self._records.started(self._run.id), *self._stored_steps(), *first)
        self._lifecycle.tell("job_started", self._run.id, status="RUNNING")
        versions = {"schema_version": self._options.version, "prompt_set_version": self._options.version}
        self._lifecycle.tell("version_audit", self._run.id, **versions)

    async def expand(self, parent: RunRecord | None, edits: Mapping[str, Any]) -> ExpandedProposal:
        """The proposal: the one that an earlier try has stored, or a new one."""
        if self._run.proposal is not None:
            self._advance(EXPAND)
            return ExpandedProposal.model_validate(self._run.proposal)
        choice = self._choice("expand", self._options.expand)
        old = parent.proposal if parent is not None else None
        idea = prompts.idea_text(self._run.input_idea, self._run.extra_context)
        notes = edits.get("edit_notes")
        if old is not None:
            idea = prompts.revision_text(idea, old, edits.get("edited_proposal"), notes)
        async with self._step(EXPAND, seconds=self._options.step_seconds):
            question = Question(
                model=choice.model,
                temperature=choice.temperature,
                instructions=self._prompts.revise if old is not None else self._prompts.expand,
                input=idea,
                answer=ExpandedProposal,
            )
            proposal = (await self._model.ask(question, self._books.meter(EXPAND.name))).value
            stored = proposal.model_dump(mode="json")
            write = self._records.proposal(
                self._run.id,
                proposal=stored,
                diff=reuse.difference(old, stored) if old is not None else None,
                version=self._options.version,
                edit_notes=notes,
            )
            await self._complete(EXPAND, choice, write, *self._running_reviews())
        return proposal

    async def review(self, proposal: ExpandedProposal, parent: RunRecord | None) -> Sequence[PersonaReview]:
        """All personas' reviews in their order; those that earlier tries have stored are taken as they are."""
        began = time.monotonic()
        versions = {"schema_version": self._options.version, "prompt_set_version": self._options.version}
        self._lifecycle.tell("reviews_started", self._run.id, run_type=self._run.run_type, **versions)
        kept = reuse.reusable_reviews(parent) if parent is not None else {}
        turns = asyncio.Semaphore(self._options.parallel_reviews)
        until = asyncio.get_running_loop().time() + self._options.step_seconds

        async def one(persona: Persona) -> PersonaReview:
            if persona.id in self._stored:
                self._advance(BY_PERSONA[persona.id])
                return self._stored[persona.id]
            async with turns:
                return await self._review_by(persona, proposal, kept.get(persona.id), until)

        reviews = await _all([one(persona) for persona in self._prompts.personas])
        self._lifecycle.tell("reviews_completed", self._run.id, review_count=len(reviews), latency_ms=_ms(began))
        return reviews

    async def decide(self, reviews: Sequence[PersonaReview]) -> tuple[DecisionAggregation, tuple[Write, ...]]:
        """The decision, and the writes that end the run."""
        async with self._step(AGGREGATE):
            decision = aggregate(reviews, self._prompts.personas)
        metadata = {**self._metadata(AGGREGATE, self._options.aggregate), "run_usage": self._books.total().facts()}
        step = self._step_write(AGGREGATE, "COMPLETED", metadata=metadata)
        return decision, (step, *self._records.ended(self._run.id, decision=decision.model_dump(mode="json")))

    def usage(self) -> Mapping[str, Any]:
        """What the run has cost in all its tries."""
        return self._books.total().facts()

    async def _review_by(self, persona: Persona, proposal: ExpandedProposal, kept: PersonaReview | None, until: float) -> PersonaReview:
        step = BY_PERSONA[persona.id]
        choice = self._choice("review", self._options.review)
        async with self._step(step, until=until):
            review = kept or await self._ask_for_review(persona, proposal, choice)
            parameters = {
                "model": choice.model,
                "temperature": choice.temperature,
                "persona_template_version": self._options.version,
                "prompt_set_version": self._options.version,
            }
            write = self._records.review(
                self._run.id, review=review.model_dump(mode="json"), security=review.has_security_concerns, parameters=parameters
            )
            await self._complete(step, choice, write)
        return review

    async def _ask_for_review(self, persona: Persona, proposal: ExpandedProposal, choice: ModelChoice) -> PersonaReview:
        question = Question(
            model=choice.model,
            temperature=choice.temperature,
            instructions=prompts.review_instructions(self._prompts, persona),
            input=prompts.proposal_text(proposal),
            answer=PersonaReview,
        )
        answer = await self._model.ask(question, self._books.meter(BY_PERSONA[persona.id].name))
        said = answer.value
        about = {"model": answer.model, "latency": round(answer.seconds, 3), "request_id": answer.response_id, "timestamp": _now()}
        if said.persona_id != persona.id:
            # Whom we asked counts, not whom the model takes itself for.
            about["answered_as"] = said.persona_id
        return said.model_copy(update={"persona_id": persona.id, "persona_name": persona.name, "internal_metadata": about})

    @asynccontextmanager
    async def _step(self, step: PipelineStep, *, seconds: float | None = None, until: float | None = None) -> AsyncIterator[None]:
        """Around a step's work: its beginning is told, its failure stored; it is cut off after `seconds`, or at `until`."""
        began = time.monotonic()
        versions = {"schema_version": self._options.version, "prompt_set_version": self._options.version}
        self._lifecycle.tell("step_started", self._run.id, step_name=step.name, **versions)
        limit = asyncio.timeout(seconds) if until is None else asyncio.timeout_at(until)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            reason = f"the step took longer than {self._options.step_seconds:g} s (WORKER_STEP_TIMEOUT_SECONDS)"
            raise await self._failed(step, TransientError(reason), began) from error
        except (BridgeError, ValueError) as error:
            raise await self._failed(step, error, began) from error
        self._lifecycle.tell("step_completed", self._run.id, step_name=step.name, latency_ms=_ms(began))
        self._advance(step)

    async def _failed(self, step: PipelineStep, error: Exception, began: float) -> BridgeError:
        """What a step's failure is raised as, once it is stored. A service that is down is no failure of the step."""
        told = _named(step.failure, error)
        self._lifecycle.tell("step_failed", self._run.id, step_name=step.name, error_message=str(told), latency_ms=_ms(began))
        waits = isinstance(told, OverloadError)
        await self._save(*(() if waits else (self._step_write(step, "FAILED", error=str(told)),)))
        return told

    async def _complete(self, step: PipelineStep, choice: ModelChoice, *writes: Write) -> None:
        await self._save(*writes, self._step_write(step, "COMPLETED", metadata=self._metadata(step, choice)))

    async def _save(self, *writes: Write) -> None:
        await self._saves.ask(writes)

    async def _save_all(self, asked: Sequence[Sequence[Write]]) -> Sequence[None]:
        async with self._saving:
            await self._context.checkpoint({"usage": self._books.saved()}, [write for writes in asked for write in writes])
        return [None] * len(asked)

    def _running(self, step: PipelineStep) -> Write:
        choice = self._choice("review", self._options.review) if step.persona else self._choice("expand", self._options.expand)
        return self._step_write(step, "RUNNING", metadata=self._metadata(step, choice))

    def _stored_steps(self) -> list[Write]:
        """The ends of steps whose rows an earlier worker, which may be another program, has stored and not told of."""
        told = {row["step_name"] for row in self._run.steps if row["status"] == "completed"}
        stored = [step for step in STEPS if step.persona in self._stored or (step is EXPAND and self._run.proposal is not None)]
        return [self._step_write(step, "COMPLETED") for step in stored if step.name not in told]

    def _running_reviews(self) -> list[Write]:
        return [self._running(step) for step in REVIEWS if step.persona not in self._stored]

    def _step_write(self, step: PipelineStep, status: str, *, error: str | None = None, metadata: Mapping[str, Any] | None = None) -> Write:
        return self._records.step(self._run.id, name=step.name, place=step.order, status=status, error=error, metadata=metadata)

    def _metadata(self, step: PipelineStep, choice: ModelChoice) -> Mapping[str, Any]:
        return {
            "schema_version": self._options.version,
            "prompt_set_version": self._options.version,
            "model": choice.model,
            "temperature": choice.temperature,
            "max_retries": self._options.tries,
            "usage": self._books.of(step.name),
        }

    def _choice(self, kind: str, default: ModelChoice) -> ModelChoice:
        """The run's own parameters, else the settings."""
        asked = self._run.parameters_json if isinstance(self._run.parameters_json, Mapping) else {}
        model, temperature = asked.get(f"{kind}_model"), asked.get(f"{kind}_temperature")
        usable = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        return ModelChoice(
            model=model if isinstance(model, str) and model else default.model,
            temperature=float(temperature) if usable and temperature is not None else default.temperature,
        )

    def _advance(self, step: PipelineStep) -> None:
        self._done += 1
        self._context.report(self._done / len(STEPS), step.name, Units(done=self._done, total=len(STEPS)))


async def _all(works: Sequence[Any]) -> list[PersonaReview]:
    """Every result in order. Work that is paid for is not cut off because another's failed: the first error is raised in the end."""
    results = await asyncio.gather(*works, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:
        # A permanent one first: waiting for the others would change nothing.
        raise next((error for error in errors if isinstance(error, PermanentError)), errors[0])
    return [result for result in results if isinstance(result, PersonaReview)]


def _named(failure: str, error: Exception) -> BridgeError:
    """An error that says which step it ended, of the same class."""
    text = f"{failure}: {error}"
    if isinstance(error, OverloadError):
        return OverloadError(text, retry_after=error.retry_after)
    return type(error)(text) if isinstance(error, BridgeError) else PermanentError(text)


def _now() -> str:
    return datetime.now(tz=UTC).isoformat()


def _ms(began: float) -> float:
    return round(1000 * (time.monotonic() - began), 1)
