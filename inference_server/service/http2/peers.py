"""Who is at the other end of a connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ALPN = "h2"


def address_of(name: Any) -> str:
    """A peer's address in gRPC's words, such as ipv4:127.0.0.1:5000."""
    if not isinstance(name, tuple):
        return "unix:"
    return f"ipv4:{name[0]}:{name[1]}" if len(name) == 2 else f"ipv6:[{name[0]}]:{name[1]}"


def identity_of(certificate: Any) -> Mapping[str, Iterable[bytes]]:
    """What a certificate says, as the names that gRPC has for it; empty without one."""
    given = certificate or {}
    subject = dict(pair for part in given.get("subject", ()) for pair in part)
    found = {
        "x509_common_name": [subject["commonName"]] if "commonName" in subject else [],
        "x509_subject_alternative_name": [value for _, value in given.get("subjectAltName", ())],
    }
    return {key: [str(value).encode() for value in values] for key, values in found.items() if values}


def refusal_of_tls(transport: Any) -> str:
    """Why a connection's TLS will not do; empty when it will, or there is none. Source: RFC 9113, sections 3.2 and 9.2."""
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return ""
    return "" if tls.selected_alpn_protocol() == ALPN else "TLS without the protocol h2 in ALPN; this port speaks gRPC."
