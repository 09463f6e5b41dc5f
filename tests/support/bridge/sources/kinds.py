"""The bridge's sources, all of them: the conformance suite and the crash matrix walk this list. A new source joins both here."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.bridge.sources.local import POSTGRES, SQLITE
from tests.support.bridge.sources.port import SourceKind
from tests.support.bridge.sources.pubsub_pull import PUBSUB_PULL
from tests.support.bridge.sources.pubsub_push import PUBSUB_PUSH
from tests.support.bridge.sources.redis_list import REDIS
from tests.support.bridge.sources.sqs import SQS

SOURCES: Mapping[str, SourceKind] = {
    "sqlite": SQLITE,
    "postgres": POSTGRES,
    "sqs": SQS,
    "pubsub pull": PUBSUB_PULL,
    "pubsub push": PUBSUB_PUSH,
    "redis": REDIS,
}
