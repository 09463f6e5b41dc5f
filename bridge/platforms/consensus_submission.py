"""Asks for runs of the consensus pipeline, as the platform's web service does: first the row, then the message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from bridge.errors import PermanentError
from bridge.job import Delivery
from bridge.records.consensus import ConsensusRecords, NewRun, RunRecord
from bridge.settings_consensus import ConsensusSettings
from bridge.store import Store
from bridge.systems.consensus import messages
from bridge.systems.consensus.steps import STEPS
from bridge.transports.sending import send_job


class Submission:
    """Writes runs and sends their messages to where jobs come from."""

    def __init__(self, store: Store, settings: ConsensusSettings) -> None:
        """Raises `ConfigurationError` for a database that cannot hold runs."""
        self._store = store
        self._settings = settings
        self.records = ConsensusRecords(store.database)

    async def ask(
        self, idea: str, *, extra_context: Mapping[str, Any] | str | None, parent: str, edits: Mapping[str, Any], high: bool
    ) -> str:
        """Ask for a run; returns its id. `parent`: the run that it revises, or empty.

        Raises `PermanentError` for what is too long or missing.
        """
        await self.records.check()
        revised = await self._revisable(parent) if parent else None
        idea = idea.strip() or (revised.input_idea if revised else "")
        self._check_lengths(idea, extra_context, edits)
        if revised is None and any(edits.values()):
            raise PermanentError("--edited-proposal and --edit-notes change a run; name it with --revise")
        run = self._new_run(idea, extra_context, revised, high=high)
        await self.records.create(run)
        await self._send(str(run.run_id), run_type=run.run_type, priority=run.priority, payload=_payload(run, edits))
        return str(run.run_id)

    async def pass_on(self, body: bytes) -> str:
        """Send a message as it is; returns the id of its run. Raises `PoisonError`."""
        job = messages.job_of(Delivery(source="standard input", queue="", message_id="", receipt="", body=body))
        await send_job(self._store.settings, job, body, local=self._store.queue, attributes=_attributes(job.request))
        await self._store.jobs.announce(job)
        return job.key

    async def retry(self, run: RunRecord) -> RunRecord:
        """Ask for a run again; of one that a bridge works on this does no harm. Raises `PermanentError` for one that is completed."""
        known = await self._store.jobs.find(run.id)
        if run.status == "completed":
            raise PermanentError(f"the run {run.id} is {run.status}; only a failed one is retried, or one whose message was lost")
        # The message comes last: when we are killed before it, doing this again does no harm.
        await self._store.jobs.reopen(run.id, ended=True)
        await self.records.requeue(run.id)
        edits = dict(known.request) if known is not None else {"edit_notes": run.edit_notes}
        payload = {"input_idea": run.input_idea, "edited_proposal": edits.get("edited_proposal"), "edit_notes": edits.get("edit_notes")}
        await self._send(run.id, run_type=run.run_type, priority=run.priority, payload=payload)
        return await self.records.find(run.id) or run

    async def _send(self, run_id: str, *, run_type: str, priority: str, payload: Mapping[str, Any]) -> None:
        await self.pass_on(messages.message_of(run_id=run_id, run_type=run_type, priority=priority, payload=payload))

    async def _revisable(self, parent: str) -> RunRecord:
        try:
            run = await self.records.find(str(UUID(parent)))
        except ValueError as error:
            raise PermanentError(f"{parent!r} is no UUID; a run's id was printed when it was asked for") from error
        if run is None or run.status != "completed" or run.proposal is None or not run.reviews:
            stands = "there is none" if run is None else f"it is {run.status}"
            raise PermanentError(f"the run {parent} cannot be revised ({stands}); it must be completed, with its proposal and reviews")
        return run

    def _check_lengths(self, idea: str, extra_context: Mapping[str, Any] | str | None, edits: Mapping[str, Any]) -> None:
        if not idea:
            raise PermanentError("--idea is empty; say in one to ten sentences what is to be reviewed")
        limits = {
            "idea": (idea, self._settings.max_idea_length),
            "extra context": (extra_context, self._settings.max_extra_context_length),
            "edited proposal": (edits.get("edited_proposal"), self._settings.max_edited_proposal_length),
            "edit notes": (edits.get("edit_notes"), self._settings.max_edit_notes_length),
        }
        for name, (text, most) in limits.items():
            length = len(text if isinstance(text, str) else str(text or ""))
            if length > most:
                raise PermanentError(
                    f"the {name} has {length} characters; expected at most {most} (MAX_{name.upper().replace(' ', '_')}_LENGTH)"
                )

    def _new_run(self, idea: str, extra_context: Mapping[str, Any] | str | None, revised: RunRecord | None, *, high: bool) -> NewRun:
        settings = self._settings
        # A revision inherits what its parent was asked with.
        priority = "high" if high else revised.priority if revised else "normal"
        context = {"text": extra_context} if isinstance(extra_context, str) else extra_context
        return NewRun(
            run_id=uuid4(),
            input_idea=idea,
            extra_context=context if context is not None or revised is None else revised.extra_context,
            run_type="revision" if revised else "initial",
            priority=priority,
            parent_run_id=UUID(revised.id) if revised else None,
            model=settings.expand_model,
            temperature=settings.expand_temperature,
            parameters={
                "expand_model": settings.expand_model,
                "expand_temperature": settings.expand_temperature,
                "review_model": settings.review_model,
                "review_temperature": settings.review_temperature,
                "persona_template_version": settings.persona_template_version,
                "max_retries_per_persona": settings.max_retries_per_persona,
            },
            version=settings.persona_template_version,
            steps=[step.name for step in STEPS],
        )


def _payload(run: NewRun, edits: Mapping[str, Any]) -> Mapping[str, Any]:
    shared = {"extra_context": run.extra_context, "parameters": run.parameters}
    if run.parent_run_id is None:
        return {"idea": run.input_idea, **shared}
    return {"parent_run_id": str(run.parent_run_id), "input_idea": run.input_idea, **edits, **shared}


def _attributes(request: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(request[name]) for name in ("run_id", "run_type", "priority")}
