"""How often a language model may be asked, and how much: shared by all jobs of a bridge. Alone in importing `aiolimiter`."""

from __future__ import annotations

from aiolimiter import AsyncLimiter

from bridge.llm.port import Question, Value

_MINUTE = 60.0
_CHARACTERS_A_TOKEN = 4
# What an answer is taken to have while it is not known.
_ANSWER_TOKENS = 1000


class RateLimits:
    """Requests and tokens a minute."""

    def __init__(self, *, requests: float = 0, tokens: float = 0) -> None:
        """0 for no limit."""
        self._requests = AsyncLimiter(requests, _MINUTE) if requests else None
        self._tokens = AsyncLimiter(tokens, _MINUTE) if tokens else None

    async def admit(self, question: Question[Value]) -> None:
        """Wait until the question may be asked."""
        if self._requests:
            await self._requests.acquire()
        if self._tokens:
            # One question that is larger than a minute's tokens waits for a whole minute's.
            await self._tokens.acquire(min(tokens_of(question), self._tokens.max_rate))


def tokens_of(question: Question[Value]) -> int:
    """About how many tokens a question and its answer take."""
    return (len(question.instructions) + len(question.input)) // _CHARACTERS_A_TOKEN + _ANSWER_TOKENS
