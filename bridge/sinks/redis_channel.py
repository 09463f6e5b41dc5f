"""Results to channels of Redis."""

from __future__ import annotations

from bridge.errors import ConfigurationError
from bridge.job import Message
from bridge.redis.access import RedisAccess


class RedisSink:
    """Stores each message under a key of its own and publishes it, in one step: who was not listening finds it there.

    A message that is sent again, as its relay was killed before it could note that it had sent it, is published once.
    """

    def __init__(
        self,
        access: RedisAccess,
        *,
        channel: str = "results",
        key: str = "{channel}:{job_key}:{type}",
        keep_seconds: float = 7 * 24 * 3600.0,
    ) -> None:
        """`channel`: takes the messages that name no destination.

        `key`: where a message is stored, made of `channel`, `job_key`, `type` and `message_id`. Raises `ConfigurationError`.
        """
        try:
            key.format(channel="", job_key="", type="", message_id="")
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigurationError(
                f"BRIDGE_REDIS_RESULT_KEY: {key!r} is not right ({error}); it may use {{channel}}, {{job_key}}, {{type}} and {{message_id}}"
            ) from error
        self._access = access
        self._channel = channel
        self._key = key
        self._keep_seconds = keep_seconds

    async def send(self, message: Message) -> None:
        """Store and publish, and return once Redis has it. Raises `TransientError`, `PermanentError`, `ConfigurationError`."""
        channel = message.destination or self._channel
        key = self._key.format(channel=channel, job_key=message.job_key, type=message.type, message_id=message.message_id)
        await self._access.store_and_publish(
            key, channel, message.body, keep_seconds=self._keep_seconds, message_id=message.message_id, mark=repr(message.asked_at)
        )
