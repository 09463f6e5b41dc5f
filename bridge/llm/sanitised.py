"""What may be told of prompts and answers."""

from __future__ import annotations

import re

_SECRETS = (
    re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_\-]{8,}"),
    re.compile(r"\bBearer\s+\S+", re.IGNORECASE),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\beyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*"),
    re.compile(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL),
    re.compile(r"(?i)\b(?:password|passwd|secret|token|api[_-]?key)\b\s*[:=]\s*\S+"),
)
_PERSONAL = (re.compile(r"[\w.+\-]+@[\w\-]+\.[\w.\-]+"), re.compile(r"\+?\d[\d\s().\-]{7,}\d"))
_MASK = "[…]"
_LONGEST = 200


def sanitised(text: str) -> str:
    """A text without keys, tokens, passwords, addresses and numbers of people, and cut: for logs at level debug, and for errors."""
    for pattern in (*_SECRETS, *_PERSONAL):
        text = pattern.sub(_MASK, text)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
