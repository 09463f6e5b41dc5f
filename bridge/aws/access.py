"""Calls to AWS: boto3 in threads of its own, with its errors translated into ours."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from bridge.aws.faults import translated
from bridge.errors import ConfigurationError, PermanentError

if TYPE_CHECKING:
    from boto3.session import Session

_CONNECT_SECONDS = 5.0
# Longer than the longest poll.
_READ_SECONDS = 30.0
# Credentials are renewed 10 minutes before they run out at the latest, so that they are good for so long.
_LENT = timedelta(minutes=5)
_SESSION_NAME = "lamina-bridge"


@dataclass(frozen=True, kw_only=True)
class AwsAccess:
    """How AWS is reached. What is empty is found as every AWS program finds it: variables, profile, container, instance."""

    region: str = "us-east-1"
    # Of an emulator such as LocalStack or ministack; empty for AWS itself.
    endpoint: str = ""
    access_key: str = ""
    secret_key: str = ""
    # Of keys that are lent for a while.
    session_token: str = ""
    # A role to take on, with whatever credentials were found; and what its owner wants to be told, where it is another account's.
    role_arn: str = ""
    role_external_id: str = ""
    # For how long in seconds it is taken on at a time; renewed before.
    role_seconds: int = 3600

    @property
    def keys(self) -> tuple[str, str]:
        """Access key and secret key; made up for an emulator, empty when they are to be found."""
        if self.access_key or not self.endpoint:
            return self.access_key, self.secret_key
        return "test", "test"


class Aws:
    """Calls the operations of SQS, SNS, S3 and STS. boto3 is loaded by the first call."""

    def __init__(self, access: AwsAccess | None = None, *, threads: int = 16) -> None:
        self.access = access or AwsAccess()
        self._threads = threads
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="aws")
        self._session: Session | None = None
        self._clients: dict[str, Any] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Let running calls end, and close the connections."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
        for client in self._clients.values():
            client.close()

    async def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Call one operation, such as sqs, send_message. Raises `TransientError`, `PermanentError`, `LeaseLostError`, `ConfigurationError`.

        A call that is cancelled goes on in its thread.
        """
        client = await self._client(service)
        answer: dict[str, Any] = await self._threaded(_invoke, client, operation, arguments)
        return answer

    async def fetch(self, bucket: str, key: str, *, most_bytes: int) -> bytes:
        """The bytes of an object. Raises as `call` does, and `PermanentError` when it is larger, or is not there."""
        client = await self._client("s3")
        content: bytes = await self._threaded(_fetched, client, bucket, key, most_bytes)
        return content

    async def credentials(self) -> dict[str, Any]:
        """Whom we are just now, in the form that object storage takes. Raises as `call` does."""
        async with self._opening:
            lent: dict[str, Any] = await self._threaded(self._lent)
        return lent

    def blocking(self, service: str) -> Any:
        """A client of boto3 for programs without an event loop; theirs to close. Raises `ConfigurationError`."""
        return self._opened(service)

    def call_blocking(self, client: Any, operation: str, **arguments: Any) -> dict[str, Any]:
        """Call one operation of such a client in the caller's own thread. Raises as `call` does."""
        answer: dict[str, Any] = _invoke(client, operation, arguments)
        return answer

    async def _client(self, service: str) -> Any:
        async with self._opening:
            if service not in self._clients:
                self._clients[service] = await self._threaded(self._opened, service)
            return self._clients[service]

    async def _threaded(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def _lent(self) -> dict[str, Any]:
        try:
            found = self._opened_session().get_credentials()
            keys = found.get_frozen_credentials() if found is not None else None
        except Exception as error:
            raise translated(error, "credentials") from error
        if keys is None:
            raise ConfigurationError("no credentials of AWS were found; set BRIDGE_AWS_* or AWS_* variables, or give the machine a role")
        until = datetime.now(tz=UTC) + _LENT
        return {"access_key_id": keys.access_key, "secret_access_key": keys.secret_key, "token": keys.token, "expires_at": until}

    def _opened_session(self) -> Session:
        try:
            import boto3
        except ImportError as error:
            raise ConfigurationError("SQS and SNS need boto3; install it: pip install 'lamina[aws]'") from error
        if self._session is None:
            self._session = self._assumed(boto3.Session) if self.access.role_arn else self._plain(boto3.Session)
        return self._session

    def _opened(self, service: str) -> Any:
        session = self._opened_session()
        from botocore.config import Config

        options = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "max_attempts": 3},
            max_pool_connections=self._threads,
            s3={"addressing_style": "path"} if self.access.endpoint else None,
        )
        try:
            return session.client(service, endpoint_url=self.access.endpoint or None, config=options)
        except Exception as error:
            raise translated(error, f"{service} could not be set up") from error

    def _plain(self, session: Any) -> Session:
        access_key, secret_key = self.access.keys
        from bridge.aws.catalogue import lean_session

        return session(
            botocore_session=lean_session(),
            region_name=self.access.region,
            aws_access_key_id=access_key or None,
            aws_secret_access_key=secret_key or None,
            aws_session_token=self.access.session_token or None,
        )

    def _assumed(self, session: Any) -> Session:
        """A session under the role; its credentials are renewed before they run out."""
        from botocore.config import Config
        from botocore.credentials import RefreshableCredentials

        from bridge.aws.catalogue import lean_session

        options = Config(connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, retries={"mode": "standard", "max_attempts": 3})
        sts = self._plain(session).client("sts", endpoint_url=self.access.endpoint or None, config=options)
        role = {"RoleArn": self.access.role_arn, "RoleSessionName": _SESSION_NAME, "DurationSeconds": self.access.role_seconds}
        if self.access.role_external_id:
            role["ExternalId"] = self.access.role_external_id

        def renew() -> dict[str, str]:
            answer = _invoke(sts, "assume_role", role)["Credentials"]
            return {
                "access_key": answer["AccessKeyId"],
                "secret_key": answer["SecretAccessKey"],
                "token": answer["SessionToken"],
                "expiry_time": answer["Expiration"].isoformat(),
            }

        core = lean_session()
        core._credentials = RefreshableCredentials.create_from_metadata(metadata=renew(), refresh_using=renew, method="assume-role")
        return session(botocore_session=core, region_name=self.access.region)


def _invoke(client: Any, operation: str, arguments: dict[str, Any]) -> Any:
    try:
        return getattr(client, operation)(**arguments)
    except Exception as error:
        raise translated(error, _called(client, operation, arguments)) from error


def _fetched(client: Any, bucket: str, key: str, most_bytes: int) -> bytes:
    answer = _invoke(client, "get_object", {"Bucket": bucket, "Key": key})
    try:
        with answer["Body"] as stream:
            if answer["ContentLength"] > most_bytes:
                raise PermanentError(f"s3://{bucket}/{key} has {answer['ContentLength']} bytes; at most {most_bytes} are fetched")
            return bytes(stream.read())
    except Exception as error:
        raise translated(error, f"s3 get_object {bucket} {key}") from error


def _called(client: Any, operation: str, arguments: dict[str, Any]) -> str:
    """What was called, for people; only names of things, never their contents."""
    named = [
        str(arguments[name]) for name in ("QueueUrl", "QueueName", "TopicArn", "Name", "Bucket", "Key", "RoleArn") if name in arguments
    ]
    return " ".join([client.meta.service_model.service_name, operation, *named])
