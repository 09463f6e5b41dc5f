"""What every message carries through a broker."""

from __future__ import annotations

from bridge.job import Message


def identified(message: Message) -> dict[str, str]:
    """The attributes of a message with its id, so that who has had it already can tell."""
    return {**message.attributes, "MessageId": message.message_id, "job_key": message.job_key, "type": message.type}
