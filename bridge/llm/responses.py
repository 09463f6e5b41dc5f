"""A language model behind OpenAI's Responses API, or whatever speaks it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import openai
import structlog
from openai.types.responses import Response
from pydantic import BaseModel, ValidationError

from bridge.breaker import Breaker
from bridge.llm.limits import RateLimits
from bridge.llm.port import Answer, Meter, Question, Value
from bridge.llm.sanitised import sanitised
from bridge.llm.statuses import Failure, failure_of, useless

_log = structlog.get_logger()
_TOKENS_A_PRICE = 1e6


@dataclass(frozen=True, kw_only=True)
class CallPolicy:
    """How one question is asked."""

    # Tries in all.
    tries: int = 3
    # The bound of the first wait in seconds, what it grows by, and the longest.
    wait: float = 1.0
    wait_factor: float = 2.0
    longest_wait: float = 30.0
    # Of one try, in seconds.
    seconds: float = 120.0
    # US dollars for a million tokens of input and of output, by model.
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class _FailedError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


class ResponsesModel:
    """Asks with strict JSON schemas, and does its own retries: the client's are off."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = "",
        policy: CallPolicy | None = None,
        limits: RateLimits | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        """`base_url`: empty for OpenAI's own."""
        self._policy = policy or CallPolicy()
        self._limits = limits or RateLimits()
        self._breaker = breaker or Breaker(name="the language model", failures=10, seconds=15.0)
        self._client = openai.AsyncOpenAI(api_key=api_key, base_url=base_url or None, max_retries=0, timeout=self._policy.seconds)

    async def ask(self, question: Question[Value], meter: Meter) -> Answer[Value]:
        """Ask until there is an answer of the right shape, or no hope.

        Raises `TransientError`, `OverloadError`, `PermanentError`, `ConfigurationError`.
        """
        began = time.monotonic()
        tries = 0
        while True:
            tries += 1
            self._breaker.enter()
            await self._limits.admit(question)
            try:
                response = await self._once(question, meter)
                value = _read(response, question.answer)
            except _FailedError as error:
                failure = error.failure
                self._judge(failure)
                pause = self._pause(failure, tries)
                if pause is None:
                    raise failure.error from error
                _log.info("llm_retried", reason=str(failure.error), tries=tries, wait_ms=round(1000 * pause))
                await asyncio.sleep(pause)
                continue
            self._breaker.succeeded()
            return Answer(value=value, response_id=response.id, model=str(response.model), seconds=time.monotonic() - began)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def _once(self, question: Question[Value], meter: Meter) -> Response:
        _log.debug("llm_asked", model=question.model, instructions=sanitised(question.instructions), input=sanitised(question.input))
        try:
            response = await self._client.responses.create(
                model=question.model,
                instructions=question.instructions,
                input=question.input,
                temperature=question.temperature,
                text={
                    "format": {
                        "type": "json_schema",
                        "strict": True,
                        "name": question.answer.__name__,
                        "schema": strict_schema(question.answer),
                    }
                },
            )
        except openai.OpenAIError as error:
            raise _FailedError(failure_of(error)) from error
        except ValueError as error:  # a body that is no JSON
            raise _FailedError(useless(f"the service's answer cannot be read ({type(error).__name__})")) from error
        if not _is_response(response):
            raise _FailedError(useless("the service's answer is no response object"))
        meter.add(self._cost(question.model, response))
        _log.debug("llm_answered", model=response.model, status=response.status, output=sanitised(_text_of(response)))
        return response

    def _cost(self, model: str, response: Response) -> Meter:
        used = response.usage
        given, made = _count(getattr(used, "input_tokens", 0)), _count(getattr(used, "output_tokens", 0))
        price = self._policy.prices.get(model)
        cost = (given * price[0] + made * price[1]) / _TOKENS_A_PRICE if price else None
        return Meter(calls=1, input_tokens=given, output_tokens=made, cost=cost)

    def _judge(self, failure: Failure) -> None:
        if failure.counts:
            self._breaker.failed()
        else:
            self._breaker.succeeded()

    def _pause(self, failure: Failure, tries: int) -> float | None:
        """Seconds until the question is asked again; None when it is not. No sooner than we are told, and spread."""
        policy = self._policy
        asked = failure.retry_after or 0.0
        # For longer the job is put back, so that its slot is free meanwhile.
        if not failure.retried or tries >= policy.tries or asked > policy.longest_wait:
            return None
        return asked + random.uniform(0.0, min(policy.longest_wait, policy.wait * policy.wait_factor ** (tries - 1)))  # noqa: S311


@lru_cache
def strict_schema(answer: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a shape, as strict as the service wants it: every property required, no others."""
    schema = openai.pydantic_function_tool(answer)["function"]["parameters"]
    return cast(dict[str, Any], _closed(schema))


def _closed(part: Any) -> Any:
    """A part of a schema, its objects closed: the service refuses open ones, as pydantic leaves those of any form."""
    if isinstance(part, list):
        return [_closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    found = {name: _closed(each) for name, each in part.items()}
    if "anyOf" in part:
        found["anyOf"] = _closed(_told_apart(part["anyOf"]))
    if isinstance(found.get("additionalProperties"), dict):
        raise TypeError("the service takes no object whose names are free and whose values have a type; give it properties")
    return {"properties": {}, "required": [], **found, "additionalProperties": False} if found.get("type") == "object" else found


def _told_apart(choices: list[Any]) -> list[Any]:
    """Without the objects of any form where there is another choice than nothing: closed they are empty, and what is said there is lost."""
    formed = [each for each in choices if each.get("type") != "object" or each.get("properties")]
    return formed if any(each.get("type") != "null" for each in formed) else choices


def _is_response(answer: object) -> bool:
    """The client checks no answer: what it takes for granted may not be there."""
    return isinstance(answer, Response) and answer.model_fields_set >= {"id", "model", "output"}


def _text_of(response: Response) -> str:
    """What it says; nothing where it is not built as the client takes for granted, which checks no answer."""
    try:
        return response.output_text
    except (AttributeError, TypeError):
        return ""


def _count(told: object) -> int:
    return told if isinstance(told, int) else 0


def _read(response: Response, answer: type[Value]) -> Value:
    if response.status not in {None, "completed"}:
        raise _FailedError(useless(f"the answer is {response.status}"))
    text = _text_of(response)
    if not text:
        raise _FailedError(useless("the answer is empty, or a refusal"))
    try:
        return answer.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, found['loc'])) or 'the answer'}: {found['msg']}" for found in error.errors()[:5])
        raise _FailedError(useless(f"the answer is not a {answer.__name__}: {problems}")) from error
