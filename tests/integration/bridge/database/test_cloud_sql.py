"""Cloud SQL, as far as it can be reached without Google: whose account is let in, and what becomes of calls until then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.auth.exceptions import RefreshError
from sqlalchemy import text

from bridge.database.cloud_sql import CloudSqlDriver
from bridge.database.location import CloudSqlLocation
from bridge.database.postgres import PostgresDatabase
from bridge.errors import TransientError
from tests.support.servers.local_http import local_http


@contextmanager
def _google_account(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, bytes]) -> Iterator[None]:
    """A service account whose tokens come from a service that answers so."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with local_http(lambda _: answer) as tokens:
        account = {"type": "service_account", "client_email": "bridge@example.com", "private_key": pem, "token_uri": tokens.url}
        (folder / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "account.json"))
        yield


@pytest.mark.parametrize(
    ("answer", "kind"), [((503, b"{}"), TransientError), ((400, b'{"error": "invalid_grant"}'), RefreshError)], ids=["down", "refused"]
)
async def test_google_may_be_down_for_a_while_but_a_wrong_account_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, bytes], kind: type[Exception]
) -> None:
    location = CloudSqlLocation(instance="project:region:instance", user="bridge", database="lamina")
    with _google_account(tmp_path, monkeypatch, answer):
        database = PostgresDatabase(CloudSqlDriver(location))
        try:
            with pytest.raises(kind):
                await database.look(text("SELECT 1"))
        finally:
            await database.close()
