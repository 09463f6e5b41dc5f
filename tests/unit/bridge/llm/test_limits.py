"""How much a language model may be asked."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import BaseModel

from bridge.llm.limits import RateLimits, tokens_of
from bridge.llm.port import Question


class Shape(BaseModel):
    word: str


def question(characters: int) -> Question[Shape]:
    return Question(model="m", temperature=0, instructions="", input="x" * characters, answer=Shape)


async def test_questions_wait_once_a_minutes_tokens_are_used() -> None:
    limits = RateLimits(tokens=2 * tokens_of(question(4000)))
    async with asyncio.timeout(25):
        await limits.admit(question(4000))
        await limits.admit(question(4000))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await limits.admit(question(4000))


async def test_a_question_larger_than_a_minutes_tokens_is_asked_all_the_same() -> None:
    async with asyncio.timeout(25):
        await RateLimits(tokens=100).admit(question(4000))


async def test_without_limits_nothing_waits() -> None:
    async with asyncio.timeout(25):
        for _ in range(1000):
            await RateLimits().admit(question(10))
