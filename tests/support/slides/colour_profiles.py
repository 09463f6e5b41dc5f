"""ICC profiles made for tests (ICC.1:2001-04)."""

from __future__ import annotations

import struct

# sRGB's primaries adapted to D50, and D50 itself, as X, Y, Z.
_PRIMARIES = {b"rXYZ": (0.4361, 0.2225, 0.0139), b"gXYZ": (0.3851, 0.7169, 0.0971), b"bXYZ": (0.1431, 0.0606, 0.7141)}
_D50 = (0.9642, 1.0, 0.8249)


def linear_profile() -> bytes:
    """sRGB's primaries with values that are proportional to light."""
    text = b"linear\x00"
    tags = {
        b"desc": b"desc" + struct.pack(">4xI", len(text)) + text + bytes(78),
        b"cprt": b"text" + bytes(4) + b"public domain\x00",
        b"wtpt": _xyz(_D50),
        **{name: _xyz(values) for name, values in _PRIMARIES.items()},
        # A curve without entries is the identity.
        **{name: b"curv" + struct.pack(">4xI", 0) for name in (b"rTRC", b"gTRC", b"bTRC")},
    }
    place, entries, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        entries += struct.pack(">4sII", name, place + len(body), len(content))
        body += content.ljust(-(-len(content) // 4) * 4, b"\x00")
    whole = struct.pack(">I", len(tags)) + entries + body
    fixed = struct.pack(">3i", *(round(each * 65536) for each in _D50))
    head = struct.pack(">I4sI4s4s4s12s4s", 128 + len(whole), bytes(4), 0x02400000, b"scnr", b"RGB ", b"XYZ ", bytes(12), b"acsp")
    return head.ljust(68, b"\x00") + fixed + bytes(128 - 68 - 12) + whole


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(each * 65536) for each in values))
