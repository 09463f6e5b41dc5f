"""The port of a language model, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

Value = TypeVar("Value", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Question(Generic[Value]):
    """One call."""

    model: str
    temperature: float
    instructions: str
    input: str
    # The shape that the answer must have.
    answer: type[Value]


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[Value]):
    """What came of a call."""

    value: Value
    # As the service named it, and the model that it says answered.
    response_id: str
    model: str
    # From the first try to the answer.
    seconds: float


@dataclass(kw_only=True)
class Meter:
    """Counts what calls cost, those included whose answers were of no use."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    # US dollars; None once a call was made whose model has no price.
    cost: float | None = field(default=0.0)

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.input_tokens + self.output_tokens

    def add(self, other: Meter) -> None:
        """Count another's too."""
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cost = None if self.cost is None or other.cost is None else self.cost + other.cost

    def facts(self) -> dict[str, Any]:
        """As it is stored."""
        cost = None if self.cost is None else round(self.cost, 6)
        return {"calls": self.calls, "input_tokens": self.input_tokens, "output_tokens": self.output_tokens, "cost_usd": cost}

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Meter:
        """What `facts` gave."""
        return cls(calls=facts["calls"], input_tokens=facts["input_tokens"], output_tokens=facts["output_tokens"], cost=facts["cost_usd"])


class LanguageModel(Protocol):
    """Answers questions in a given shape."""

    async def ask(self, question: Question[Value], meter: Meter) -> Answer[Value]:
        """Ask until there is an answer of the right shape, or no hope. Raises `TransientError`, `OverloadError`, `PermanentError`.

        `ConfigurationError` where the service does not know us. `meter`: counts each call as soon as it is paid for.
        """
