"""The card platform's items: the id of a document, and nothing else."""

from __future__ import annotations

from uuid import UUID

from bridge.errors import PoisonError
from bridge.job import CORRELATION, Delivery, Job

SYSTEM = "cards"


def is_request(delivery: Delivery) -> bool:
    """Whether an item is a document's id, however it is broken: anything that is no JSON object."""
    return not delivery.body.lstrip().startswith(b"{")


def job_of(delivery: Delivery) -> Job:
    """The job that an item asks for. A document that is asked for again is a new job. Raises `PoisonError`."""
    text = delivery.body.decode(errors="replace").strip()
    try:
        document = str(UUID(text))
    except ValueError as error:
        # Not quoted: reasons are shown, and whatever came in its place may be a person's.
        raise PoisonError(f"an item of {len(text)} characters; expected the id of a document, a UUID, and nothing else") from error
    correlation = delivery.attributes.get(CORRELATION) or delivery.message_id
    return Job(key=f"{document}/{correlation}", system=SYSTEM, request={"documentId": document, CORRELATION: correlation})
