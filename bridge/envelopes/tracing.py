"""The trace that a message belongs to, wherever its sender has put it; and where ours put it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bridge.job import Delivery
from bridge.tracing.context import TRACEPARENT, TRACESTATE, carrier
from bridge.tracing.port import Carrier

# MassTransit's header: an activity's id, which .NET writes as a traceparent.
ACTIVITY_ID = "MT-Activity-Id"
# In lower case, the first that is right counts. Google's clients prefix W3C's names; older ones write JSON.
_PARENTS = (TRACEPARENT, "googclient_traceparent", "mt-activity-id")
_STATES = (TRACESTATE, "googclient_tracestate")
_GOOGLE_JSON = ("googclient_opentelemetrytracecontext", "googclient_opentelemetryspancontext")
# What a body must hold for it to be looked through.
_MARKS = (b"traceparent", b"mt-activity-id")
# How deep envelopes lie in each other: SNS around MassTransit.
_DEEPEST = 2


def read(delivery: Delivery) -> Carrier:
    """The trace of a message: from its attributes, else from MassTransit's or SNS' envelope, else from plain JSON. Never raises."""
    if found := _of(delivery.attributes):
        return found
    lowered = delivery.body.lower()
    return _in_body(delivery.body, _DEEPEST) if any(mark in lowered for mark in _MARKS) else {}


def headers(trace: Carrier) -> dict[str, str]:
    """As MassTransit's envelope carries a trace."""
    return {ACTIVITY_ID: trace[TRACEPARENT], **trace} if trace else {}


def _of(attributes: Mapping[str, Any]) -> Carrier:
    named = {name.lower(): value for name, value in attributes.items()}
    state = next((named[name] for name in _STATES if name in named), "")
    for name in _PARENTS:
        if found := carrier(named.get(name), state):
            return found
    for name in _GOOGLE_JSON:
        if found := carrier(named.get(name), state) or carrier(_from_json(named.get(name)), state):
            return found
    return {}


def _from_json(value: object) -> str:
    """Google's older form: {"traceId": …, "spanId": …, "traceFlags": 1}."""
    try:
        told = json.loads(value) if isinstance(value, str) else {}
        return f"00-{told['traceId']}-{told['spanId']}-{int(told.get('traceFlags', 1)):02x}"
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""


def _in_body(body: bytes | str, deep: int) -> Carrier:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    parts = {name.lower(): value for name, value in content.items()}
    if isinstance(wrapped := parts.get("messageattributes"), dict):
        told = {name: value.get("Value") for name, value in wrapped.items() if isinstance(value, dict)}
        if found := _of(told):
            return found
    if isinstance(parts.get("headers"), dict) and (found := _of(parts["headers"])):
        return found
    if found := _of(content):
        return found
    return _in_body(parts["message"], deep - 1) if deep > 1 and isinstance(parts.get("message"), str) else {}
