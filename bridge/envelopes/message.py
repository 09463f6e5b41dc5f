"""What every model of a message has in common."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, model_validator


class Message(BaseModel):
    """A message, or a part of one. What is not known is ignored; what may be left out may be null as well, as many senders write it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, content: object) -> object:
        if not isinstance(content, Mapping):
            return content
        needed = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {name: value for name, value in content.items() if value is not None or name in needed}
