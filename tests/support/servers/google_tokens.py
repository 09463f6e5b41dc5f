"""Tokens such as Google's, signed by a key of the tests' own."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt

AUDIENCE, ACCOUNT = "https://bridge.example/push", "pusher@trial.iam.gserviceaccount.com"
_KEY = "key-1"


class Signer:
    """Signs tokens as Google does."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "federated-signon")])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        day = datetime.timedelta(days=1)
        certificate = builder.not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())
        self._certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        self._signer = crypt.RSASigner.from_string(pem, key_id=_KEY)

    def certificates(self) -> Mapping[str, str]:
        """What Google's address for certificates would answer."""
        return {_KEY: self._certificate}

    def token(self, **changes: Any) -> str:
        """A token of the right account, made for the right audience; `changes` are claims that are not so."""
        now = int(time.time())
        claims = {
            "aud": AUDIENCE,
            "email": ACCOUNT,
            "email_verified": True,
            "iss": "https://accounts.google.com",
            "iat": now,
            "exp": now + 600,
        }
        return jwt.encode(self._signer, {**claims, **changes}).decode()
