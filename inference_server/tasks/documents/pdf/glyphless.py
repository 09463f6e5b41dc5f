"""A font without ink: every character is a box that nothing fills, as wide as half its height. Invisible text is set in it.

Tesseract's searchable PDFs do the same. Characters are written as their UTF-16 code units, which are both the codes and, by the map to
Unicode, what they mean; whatever the script, no other font is needed.
"""

from __future__ import annotations

import struct

# Of a character, in units of the font, whose em is 1,000.
ADVANCE = 500
_EM = 1000
# How far a character reaches below the line: not at all, but 0 is taken for "not told" by readers, which then mark a third more;
# and pdfium rounds 1 to 0.
DESCENT = 2

TO_UNICODE = b"""/CIDInit /ProcSet findresource begin
12 dict begin
begincmap
/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def
/CMapName /Adobe-Identity-UCS def
/CMapType 2 def
1 begincodespacerange
<0000> <FFFF>
endcodespacerange
1 beginbfrange
<0000> <FFFF> <0000>
endbfrange
endcmap
CMapName currentdict /CMap defineresource pop
end
end
"""

# Every code is drawn by the one glyph.
CODES_TO_GLYPHS = bytes(2 * 65536)


def codes_of(text: str) -> tuple[int, ...]:
    """The codes of a text."""
    encoded = text.encode("utf-16-be", "replace")
    return struct.unpack(f">{len(encoded) // 2}H", encoded)


def font_file() -> bytes:
    """The font as TrueType (https://learn.microsoft.com/typography/opentype/spec/otff)."""
    # There and back again between two corners: an outline with bounds and no area.
    glyph = struct.pack(">hhhhhHH", 1, 0, 0, ADVANCE, _EM, 2, 0) + bytes([1, 1, 1])
    glyph += struct.pack(">hhh", 0, ADVANCE, -ADVANCE) + struct.pack(">hhh", 0, _EM, -_EM)
    glyph += bytes(-len(glyph) % 4)
    return _joined(
        {
            b"glyf": glyph,
            b"head": struct.pack(">IIIIHHqqhhhhHHhhh", 0x10000, 0x10000, 0, 0x5F0F3CF5, 0, _EM, 0, 0, 0, 0, ADVANCE, _EM, 0, 8, 2, 0, 0),
            b"hhea": struct.pack(">IhhhHhhhhhhhhhhhH", 0x10000, _EM, -DESCENT, 0, ADVANCE, 0, 0, ADVANCE, 1, 0, 0, 0, 0, 0, 0, 0, 1),
            b"hmtx": struct.pack(">Hh", ADVANCE, 0),
            b"loca": struct.pack(">HH", 0, len(glyph) // 2),
            b"maxp": struct.pack(">IHHHHHHHHHHHHHH", 0x10000, 1, 3, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0),
        }
    )


def _joined(tables: dict[bytes, bytes]) -> bytes:
    directory, body = b"", b""
    start = 12 + 16 * len(tables)
    for tag, content in sorted(tables.items()):
        padded = content + bytes(-len(content) % 4)
        checksum = sum(struct.unpack(f">{len(padded) // 4}I", padded)) & 0xFFFFFFFF
        directory += tag + struct.pack(">III", checksum, start + len(body), len(content))
        body += padded
    largest = 1 << (len(tables).bit_length() - 1)
    header = struct.pack(">IHHHH", 0x10000, len(tables), 16 * largest, largest.bit_length() - 1, 16 * (len(tables) - largest))
    return header + directory + body
