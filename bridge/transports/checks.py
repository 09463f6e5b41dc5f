"""Settings that do not go together, and what they need that is not installed."""

from __future__ import annotations

import importlib.util

from bridge.aws.names import short_name
from bridge.errors import ConfigurationError
from bridge.settings import Settings
from bridge.systems.wsi.platform_messages import PLAIN_QUEUE

# What the slide platform calls the queues of its requests.
_SLIDE_QUEUES = {"WsiAnalysisWorker", PLAIN_QUEUE}


def check_one_source(settings: Settings) -> None:
    """Jobs come from one place. Raises `ConfigurationError`."""
    named = [name for name in ("sqs_queues", "redis_queues", "pubsub_subscriptions", "pubsub_push_audience") if getattr(settings, name)]
    if len(named) > 1:
        variables = " and ".join(f"BRIDGE_{name.upper()}" for name in named)
        raise ConfigurationError(f"{variables} are both set, but a bridge takes jobs from one place; unset one, or start a bridge for each")


def check_slide_bucket(settings: Settings) -> None:
    """Without the bucket nobody would know the slide platform's requests, and all of them would end in its error queue.

    Raises `ConfigurationError`.
    """
    if not settings.wsi_bucket and (named := _SLIDE_QUEUES & {short_name(queue) for queue in settings.sqs_queues}):
        raise ConfigurationError(
            f"BRIDGE_WSI_BUCKET (AWS__S3__BucketName) is not set; set it to the slides' bucket, as BRIDGE_SQS_QUEUES names {min(named)}"
        )


def check_pushes(settings: Settings) -> None:
    """Pushes need an account and an address. Raises `ConfigurationError`."""
    if settings.pubsub_push_audience and not settings.pubsub_push_account:
        raise ConfigurationError(
            "BRIDGE_PUBSUB_PUSH_ACCOUNT is not set; set it to the service account of the push subscription (its OIDC token's), "
            "or unset BRIDGE_PUBSUB_PUSH_AUDIENCE"
        )
    if settings.pubsub_push_audience and not settings.http:
        raise ConfigurationError(
            "BRIDGE_HTTP is off, but Pub/Sub is to push there; set it to an address, or unset BRIDGE_PUBSUB_PUSH_AUDIENCE"
        )


def check_installed(module: str, extra: str, variable: str) -> None:
    """What is optional must be there where it is used. Raises `ConfigurationError`."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigurationError(f"{variable} is set, but what it needs is not installed; install lamina[{extra}], or unset it")
