"""The slide platform's messages, as MassTransit publishes and reads them."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, uuid5

BUCKET = "platform-uploads"
TOPIC = "HiveOrders_Api_Shared_Events-WsiAnalysis{}Event"
URN = "urn:message:HiveOrders.Api.Shared.Events:WsiAnalysis{}Event"
SLIDE = "wsi/user-1/5f3759df5f3759df5f3759df5f3759df/island of tissue.tiff"


def guid(name: str) -> str:
    return str(uuid5(NAMESPACE_URL, name))


def requested(name: str, s3_key: str = SLIDE, **changes: Any) -> dict[str, Any]:
    """What MassTransit would publish."""
    event = {"jobId": guid(name), "uploadId": guid("upload"), "tenantId": 7, "requestedByUserId": "user-1", "s3Key": s3_key}
    return {
        "messageId": guid(f"message of {name}"),
        "conversationId": guid(f"conversation of {name}"),
        "messageType": [URN.format("Requested")],
        "message": event,
        "headers": {},
        **changes,
    }


def kind_of(envelope: dict[str, Any]) -> str:
    """Completed or Failed."""
    (urn,) = envelope["messageType"]
    return str(urn).removesuffix("Event").rpartition("WsiAnalysis")[2]
