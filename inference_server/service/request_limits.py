"""Bounds on what one message may hold beside its bytes: tensors, and the lengths of names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from inference_server.errors import InvalidInput, MessageTooLarge

# Fields that name something, in any message of any service.
_NAMES = ("id", "request_id", "name", "version", "model_name", "model_version", "model", "analysis", "repository_name", "key", "service")
_PLACES = ("slide_uri", "document_uri", "output_uri")
_TENSORS = ("inputs", "outputs", "raw_input_contents")
_PARAMETERS = "parameters"


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """What one message may hold."""

    # Bytes as it came.
    message_bytes: int = 256 * 2**20
    # Inputs, and as many outputs.
    tensors: int = 256
    # Characters of a name or identifier.
    name_characters: int = 1024
    # Characters of a path or URL.
    uri_characters: int = 4096

    def check_size(self, size: int) -> None:
        """Raise `MessageTooLarge` before a message is read."""
        if size > self.message_bytes:
            raise MessageTooLarge(
                f"the message is larger than max ({size} vs. {self.message_bytes} bytes, INFERENCE_MAX_MESSAGE_BYTES); "
                "send less in one message.",
                limit="message_bytes",
            )

    def check(self, message: Any, size: int | None = None) -> None:
        """Raise `InvalidInput` for a message of any service, of `size` bytes, that holds too much of something."""
        # A tensor takes two bytes or more, and a character one.
        if size is not None and size <= min(2 * self.tensors, self.name_characters, self.uri_characters):
            return
        fields = _fields_of(message.__class__)
        for field in fields.tensors:
            count = len(getattr(message, field))
            if count > self.tensors:
                raise InvalidInput(f"{count} {field} were sent; at most {self.tensors} are taken.", limit="tensors")
        if size is not None and size <= min(self.name_characters, self.uri_characters):
            return
        longest = max(_names(message, fields), key=len, default="")
        if len(longest) > self.name_characters:
            raise InvalidInput(
                f"a name of {len(longest)} characters was sent ({longest[:20]!r} …); at most {self.name_characters} are taken.",
                limit="name_characters",
            )
        for field in fields.places:
            place = getattr(message, field)
            if len(place) > self.uri_characters:
                raise InvalidInput(f"{field} has {len(place)} characters; at most {self.uri_characters} are taken.", limit="uri_characters")


@dataclass(frozen=True, kw_only=True)
class _Fields:
    """Which of the fields above a message has."""

    names: tuple[str, ...]
    places: tuple[str, ...]
    tensors: tuple[str, ...]
    parameters: bool


@cache
def _fields_of(kind: type[Any]) -> _Fields:
    own = {field.name: field for field in kind.DESCRIPTOR.fields}
    return _Fields(
        names=tuple(name for name in _NAMES if name in own and own[name].type == own[name].TYPE_STRING and not own[name].is_repeated),
        places=tuple(name for name in _PLACES if name in own),
        tensors=tuple(name for name in _TENSORS if name in own),
        parameters=_PARAMETERS in own,
    )


def _names(message: Any, fields: _Fields) -> Iterator[str]:
    """The names in a message: its own, its tensors' and their parameters'."""
    for field in fields.names:
        yield getattr(message, field)
    if fields.parameters:
        yield from message.parameters
    for field in fields.tensors[:2]:
        for tensor in getattr(message, field):
            yield tensor.name
            yield from tensor.parameters
