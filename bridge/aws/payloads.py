"""Bodies as SQS and SNS carry them: text only, and large ones in S3.

Bytes that are no text travel in base64 under the attribute `lamina-encoding`. A body over the limit lies in S3, and the message
holds a pointer in the form of Amazon's extended clients, so that these understand each other.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.aws.access import Aws
from bridge.aws.names import MOST_BYTES_EVERYWHERE
from bridge.errors import PermanentError, PoisonError

_ENCODING = "lamina-encoding"
_LENGTH = "ExtendedPayloadSize"
_POINTERS = frozenset({"software.amazon.payloadoffloading.PayloadS3Pointer", "com.amazon.sqs.javamessaging.MessageS3Pointer"})
_POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"
# What XML 1.0 allows, and with it SQS.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST_ATTRIBUTES = 10


@dataclass(frozen=True, kw_only=True)
class PayloadPlace:
    """Where large bodies lie."""

    # Empty for nowhere: a large body is then refused.
    bucket: str = ""
    prefix: str = "payloads/"
    # The largest body that is sent or fetched.
    most_bytes: int = 32 * 1024 * 1024


class Payloads:
    """Packs bodies for the wire, and unpacks them."""

    def __init__(self, aws: Aws, place: PayloadPlace | None = None) -> None:
        self._aws = aws
        self._place = place or PayloadPlace()

    async def pack(
        self, message_id: str, body: bytes, attributes: Mapping[str, str], *, room: Callable[[], Awaitable[int]] | None = None
    ) -> tuple[str, dict[str, str]]:
        """The text and the attributes to send. Raises `PermanentError`, `TransientError`.

        `room`: the largest message that its queue takes, asked where no bucket carries one that not every queue takes.
        """
        text, packed = _as_text(body, attributes)
        size = wire_size(text, packed)
        if size > MOST_BYTES_EVERYWHERE:
            most = await room() if room and not self._place.bucket else MOST_BYTES_EVERYWHERE
            if size > most:
                text, packed = await self._put(message_id, body, attributes, size=size, most=most)
        if len(packed) > _MOST_ATTRIBUTES:
            raise PermanentError(f"the message has {len(packed)} attributes; SQS and SNS carry at most {_MOST_ATTRIBUTES}.")
        return text, packed

    async def unpack(self, text: str, attributes: Mapping[str, str]) -> tuple[bytes, dict[str, str]]:
        """The body and the attributes as they were sent. Raises `PoisonError` for a body that cannot be had, `TransientError`."""
        kept = {name: value for name, value in attributes.items() if name not in {_ENCODING, _LENGTH, "SQSLargePayloadSize"}}
        if attributes.get(_ENCODING) == "base64":
            try:
                return base64.b64decode(text, validate=True), kept
            except binascii.Error as error:
                raise PoisonError(f"the body is announced as base64 and is none ({error})") from error
        pointer = _pointer(text)
        return (text.encode(), kept) if pointer is None else (await self._get(*pointer), kept)

    async def _put(
        self, message_id: str, body: bytes, attributes: Mapping[str, str], *, size: int, most: int
    ) -> tuple[str, dict[str, str]]:
        place = self._place
        if not place.bucket:
            raise PermanentError(
                f"the message has {size} bytes with its attributes, and its queue takes {most}; set BRIDGE_SQS_PAYLOAD_BUCKET, for S3 "
                "to carry it, or raise the queue's MaximumMessageSize, up to 1048576."
            )
        if len(body) > place.most_bytes:
            raise PermanentError(f"the message has {len(body)} bytes; at most {place.most_bytes} are carried.")
        key = f"{place.prefix}{message_id}"
        await self._aws.call("s3", "put_object", Bucket=place.bucket, Key=key, Body=body)
        return json.dumps([_POINTER, {"s3BucketName": place.bucket, "s3Key": key}]), {**attributes, _LENGTH: str(len(body))}

    async def _get(self, bucket: str, key: str) -> bytes:
        # A message must not make us read other buckets.
        if bucket != self._place.bucket:
            raise PoisonError(f"the body lies in the bucket {bucket}, which is not the one that is set (BRIDGE_SQS_PAYLOAD_BUCKET)")
        try:
            return await self._aws.fetch(bucket, key, most_bytes=self._place.most_bytes)
        except PermanentError as error:
            raise PoisonError(f"the body cannot be had from S3: {error}") from error


def wire_size(text: str, attributes: Mapping[str, str]) -> int:
    """The bytes of a message as SQS and SNS count them."""
    return len(text.encode()) + sum(len(name.encode()) + len("String") + len(value.encode()) for name, value in attributes.items() if value)


def wire_attributes(attributes: Mapping[str, str]) -> dict[str, Any]:
    """Attributes as SQS and SNS take them; empty ones are left out, which they refuse."""
    return {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items() if value}


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, str]:
    """The attributes of a received message that are text or numbers."""
    return {name: value["StringValue"] for name, value in attributes.items() if "StringValue" in value}


def _as_text(body: bytes, attributes: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = ""
    if text and not _FORBIDDEN.search(text):
        return text, dict(attributes)
    return base64.b64encode(body).decode(), {**attributes, _ENCODING: "base64"}


def _pointer(text: str) -> tuple[str, str] | None:
    """Bucket and key, when the text is a pointer."""
    if not text.startswith("[") or not any(name in text[:80] for name in _POINTERS):
        return None
    try:
        _, place = json.loads(text)
        return str(place["s3BucketName"]), str(place["s3Key"])
    except (ValueError, TypeError, KeyError):
        return None
