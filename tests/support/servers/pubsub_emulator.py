"""Google's own emulator of Pub/Sub, where the machine has it: with Google's command line, or by its name on the PATH."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from google.pubsub_v1 import types

from tests.support.ports import free_port

_NAME = "cloud-pubsub-emulator"
# Where it lies beside `gcloud`.
_COMPONENT = Path("platform/pubsub-emulator/bin") / _NAME
_START_SECONDS = 60
_CALL_SECONDS = 20


@dataclass(frozen=True, kw_only=True)
class PubsubEmulator:
    """The emulator while it runs, with the calls that tests make."""

    # Its host and port.
    address: str
    _channel: grpc.Channel

    def create(self, topic: str, *subscriptions: str, most_deliveries: int = 100) -> None:
        """Make a topic and its subscriptions, of the project `trial`, with a dead-letter policy: else deliveries are not counted."""
        path = f"projects/trial/topics/{topic}"
        for name in (path, f"{path}-dead"):
            self._call("Publisher/CreateTopic", types.Topic, types.Topic(name=name))
        counted = types.DeadLetterPolicy(dead_letter_topic=f"{path}-dead", max_delivery_attempts=most_deliveries)
        for name in subscriptions:
            made = types.Subscription(
                name=f"projects/trial/subscriptions/{name}", topic=path, enable_exactly_once_delivery=True, dead_letter_policy=counted
            )
            self._call("Subscriber/CreateSubscription", types.Subscription, made)

    def create_dead_letters(self, topic: str, *, attempts: int) -> tuple[str, str]:
        """Make a topic and its subscription, which moves a message to another topic after so many deliveries, and that one's."""
        path = f"projects/trial/topics/{topic}"
        policy = types.DeadLetterPolicy(dead_letter_topic=f"{path}-dead", max_delivery_attempts=attempts)
        for name, moved in ((f"{topic}-dead", None), (topic, policy)):
            self._call("Publisher/CreateTopic", types.Topic, types.Topic(name=f"projects/trial/topics/{name}"))
            made = types.Subscription(
                name=f"projects/trial/subscriptions/{name}-sub", topic=f"projects/trial/topics/{name}", dead_letter_policy=moved
            )
            self._call("Subscriber/CreateSubscription", types.Subscription, made)
        return f"{topic}-sub", f"{topic}-dead-sub"

    def publish(self, topic: str, body: bytes, **attributes: str) -> None:
        """Publish a message."""
        message = types.PubsubMessage(data=body, attributes=attributes)
        request = types.PublishRequest(topic=f"projects/trial/topics/{topic}", messages=[message])
        self._call("Publisher/Publish", types.PublishRequest, request)

    def _call(self, method: str, kind: type, request: object) -> None:
        call = self._channel.unary_unary(f"/google.pubsub.v1.{method}", kind.serialize, bytes)  # type: ignore[attr-defined]
        call(request, timeout=_CALL_SECONDS, wait_for_ready=True)


def emulator_program() -> str:
    """The program that starts it; empty where there is none."""
    gcloud = shutil.which("gcloud")
    beside = Path(gcloud).resolve().parents[1] / _COMPONENT if gcloud else Path()
    return shutil.which(_NAME) or (str(beside) if beside.is_file() else "")


@contextmanager
def pubsub_emulator() -> Iterator[PubsubEmulator]:
    """Start it; it is stopped at the end. To be called where there is one."""
    port = free_port()
    with TemporaryDirectory(prefix="lamina-pubsub-") as folder, (Path(folder) / "log").open("wb") as log:
        command = [emulator_program(), "--host=127.0.0.1", f"--port={port}"]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                _wait_until_ready(process, channel, Path(folder) / "log")
                yield PubsubEmulator(address=f"127.0.0.1:{port}", _channel=channel)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _wait_until_ready(process: subprocess.Popen[bytes], channel: grpc.Channel, log: Path) -> None:
    ready = grpc.channel_ready_future(channel)
    until = time.monotonic() + _START_SECONDS
    while True:
        told = log.read_text(errors="replace")[-2000:]
        assert process.poll() is None, told
        assert time.monotonic() < until, told
        try:
            ready.result(0.5)
        except grpc.FutureTimeoutError:
            continue
        return
