"""Text as XML 1.0 takes it."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape as _escape
from xml.sax.saxutils import quoteattr

# What XML 1.0 has no way to write.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text(value: str) -> str:
    """As the content of an element."""
    return _escape(_FORBIDDEN.sub("\ufffd", value))


def attribute(value: str) -> str:
    """As an attribute, with its quotes."""
    return quoteattr(_FORBIDDEN.sub("\ufffd", value))


def comment(value: str) -> str:
    """As a comment."""
    return f"<!-- {text(value).replace('--', '- -')} -->"
