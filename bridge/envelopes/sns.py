"""What SNS wraps around a message on its way to a queue, unless the subscription has raw delivery: `{"TopicArn": "…", "Message": "…"}`."""

from __future__ import annotations

import json


def unwrapped(body: bytes) -> bytes:
    """The message in SNS' notification, or the body itself where it is none. Never raises."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return body
    named = {name.lower(): value for name, value in content.items()} if isinstance(content, dict) else {}
    message = named.get("message")
    return message.encode(errors="replace") if "topicarn" in named and isinstance(message, str) else body
