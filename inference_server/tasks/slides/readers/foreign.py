"""Files that are no slide for any reader here, told by what they are."""

from __future__ import annotations

from inference_server.errors import InvalidSlide

_ARCHIVE = "Unpack it, and name the slide's own file: of MRXS the .mrxs beside its folder, of DICOM any file of its series."
_EXPORT = "Export it as OME-TIFF or as a tiled TIFF, with its vendor's program or one that reads it."
_SAVE = "Save it as PNG or JPEG, or better as a tiled TIFF."
# How they begin.
_KINDS = (
    (b"PK\x03\x04", "a ZIP archive", _ARCHIVE),
    (b"\x1f\x8b", "compressed by gzip", _ARCHIVE),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _ARCHIVE),
    (b"Rar!", "a RAR archive", _ARCHIVE),
    (b"SIS\x00", "the pixels of an Olympus VSI (ETS)", _EXPORT),
    (b"<DataObject", "a Philips iSyntax", _EXPORT),
    (b"\xda\xce\xbe\x0a", "a Nikon ND2", _EXPORT),
    (b"\x70\x00\x00\x00", "a Leica LIF", _EXPORT),
    (b"BM", "a BMP", _SAVE),
    (b"RIFF", "a WebP or another RIFF file", _SAVE),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file", _SAVE),
    (b"%PDF-", "a PDF", "Submit it as a document, or save its picture as PNG."),
)
# A TIFF with a small picture of the slide, whose pixels lie in a folder beside it.
_VSI = ".vsi"


def refuse_foreign(uri: str, head: bytes, suffix: str) -> None:
    """Raise `InvalidSlide` for a file of a kind that is known and not read. `head`: its first bytes; `suffix`: in lower case."""
    if suffix == _VSI:
        raise InvalidSlide(f"{uri} is an Olympus VSI, whose pixels lie in .ets files beside it that no reader here knows. {_EXPORT}")
    for beginning, what, remedy in _KINDS:
        if head.startswith(beginning):
            raise InvalidSlide(f"{uri} is {what}, and no slide that can be read. {remedy}")
