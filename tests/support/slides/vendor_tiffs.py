"""Vendors' TIFFs made for tests, as OpenSlide knows them: Leica SCN, Philips, Ventana BIF, Trestle and Argos.

What each must hold is told by https://openslide.org/formats/.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from tests.support.slides.painted import Pixels, Tag, described, jpeg_tile, level_tags, tiles_of, write_tiff

_BYTE, _TEXT, _SHORT, _LONG, _RATIO = 1, 2, 3, 4, 5
_JPEG, _YCBCR = 7, 6
# Left, top, right, bottom.
Box = tuple[int, int, int, int]


def halves(pixels: Pixels, count: int) -> list[Pixels]:
    """A pyramid of so many levels, each of every second pixel of the one before."""
    return [np.ascontiguousarray(pixels[:: 2**number, :: 2**number]) for number in range(count)]


def write_scn(path: Path, pixels: Pixels, regions: Sequence[Box], *, levels: int = 3, mpp: float = 0.5, tile: int = 128) -> Path:
    """Leica's: regions of a glass slide that is as large as `pixels`, each with levels of its own, and a macro image of all of it.

    Edges of regions are multiples of what the smallest level leaves out.
    """
    height, width = pixels.shape[:2]
    nanometres = round(mpp * 1000)
    macro = np.ascontiguousarray(pixels[::8, ::8])
    images = [_scn_image((0, 0, width, height), nanometres, [(0, macro)])]
    directories = [_level(macro, tile=tile, more=[])]
    for left, top, right, bottom in regions:
        pyramid = halves(pixels[top:bottom, left:right], levels)
        images.append(_scn_image((left, top, right, bottom), nanometres, list(enumerate(pyramid, len(directories)))))
        directories += [_level(each, tile=tile, more=_density(10_000 / (mpp * 2**number))) for number, each in enumerate(pyramid)]
    told = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection name="slide" '
        f'sizeX="{width * nanometres}" sizeY="{height * nanometres}"><barcode>bm9uZQ==</barcode>{"".join(images)}</collection></scn>'
    )
    directories[0][0].append(_described(told))
    return write_tiff(path, directories, big=True)


def _scn_image(box: Box, nanometres: int, pyramid: Sequence[tuple[int, Pixels]]) -> str:
    left, top, right, bottom = (side * nanometres for side in box)
    levels = "".join(
        f'<dimension ifd="{directory}" sizeX="{each.shape[1]}" sizeY="{each.shape[0]}" r="{number}"/>'
        for number, (directory, each) in enumerate(pyramid)
    )
    return (
        "<image><creationDate>2026-01-01T00:00:00Z</creationDate>"
        f'<device model="Leica SCN400"/><pixels sizeX="{pyramid[0][1].shape[1]}" sizeY="{pyramid[0][1].shape[0]}">{levels}</pixels>'
        f'<view sizeX="{right - left}" sizeY="{bottom - top}" offsetX="{left}" offsetY="{top}"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings></image>"
    )


def write_philips(
    path: Path, pixels: Pixels, *, levels: int = 3, mpp: float = 0.5, tile: int = 128, unscanned: Collection[tuple[int, int]] = ()
) -> Path:
    """Philips': levels below the first are filled up to whole tiles; a label and a macro image lie in the description.

    `unscanned`: (column, row) of tiles of level 0 that have no bytes; of a smaller level, those that lie below such tiles alone.
    """
    directories = []
    for number, each in enumerate(halves(pixels, levels)):
        filled = np.pad(each, ((0, -each.shape[0] % tile), (0, -each.shape[1] % tile), (0, 0))) if number else each
        across, down = -(-filled.shape[1] // tile), -(-filled.shape[0] // tile)
        empty = {(column, row) for row in range(down) for column in range(across) if _all_below(column, row, 2**number, unscanned)}
        directories.append(_level(filled, tile=tile, more=[], number=number, empty=empty))
    directories[0][0].append(_described(_philips_description(halves(pixels, levels), mpp)))
    directories[0][0].append((305, _TEXT, b"Philips DP v1.0\x00"))
    return write_tiff(path, directories, big=True)


def _all_below(column: int, row: int, side: int, places: Collection[tuple[int, int]]) -> bool:
    return all((column * side + x, row * side + y) in places for y in range(side) for x in range(side))


def _philips_description(pyramid: Sequence[Pixels], mpp: float) -> str:
    def spacing(number: int) -> str:
        return " ".join([f"&quot;{mpp * 2**number / 1000:.6f}&quot;"] * 2)

    representations = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING">{spacing(number)}</Attribute>'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER">{number}</Attribute></DataObject>'
        for number in range(len(pyramid))
    )
    pictures = "".join(
        f'<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE">{kind}</Attribute>'
        f'<Attribute Name="PIM_DP_IMAGE_DATA">{base64.b64encode(_jpeg(pyramid[-1])).decode()}</Attribute></DataObject>'
        for kind in ("MACROIMAGE", "LABELIMAGE")
    )
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport"><Attribute Name="PIM_DP_SCANNED_IMAGES"><Array>'
        '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>'
        f'<Attribute Name="DICOM_PIXEL_SPACING">{spacing(0)}</Attribute>'
        '<Attribute Name="DICOM_DERIVATION_DESCRIPTION">tiff-useBigTIFF=1-levels=20,10000,10000-quality=80</Attribute>'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array>{representations}</Array></Attribute></DataObject>'
        f"{pictures}</Array></Attribute></DataObject>"
    )


def write_bif(
    path: Path,
    pixels: Pixels,
    areas: Sequence[Box],
    *,
    overlap: int = 4,
    levels: int = 2,
    tile: int = 128,
    mpp: float = 0.5,
    profile: bytes = b"",
) -> Path:
    """Ventana's: areas of whole tiles (left, top, right, bottom, counted in tiles), which overlap; the label comes first.

    Returns a slide as large as the areas reach, less the overlaps. `areas` are in reading order and share neither rows nor columns.
    """
    advance = tile - overlap
    across, down = max(area[2] for area in areas), max(area[3] for area in areas)
    scanned = {(column, row) for area in areas for row in range(area[1], area[3]) for column in range(area[0], area[2])}
    stored = np.zeros((down * tile, across * tile, 3), np.uint8)
    for column, row in scanned:
        part = pixels[row * advance : row * advance + tile, column * advance : column * advance + tile]
        stored[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = part
    label = np.ascontiguousarray(pixels[::16, ::16])
    told = f'<?xml version="1.0"?><Metadata><iScan Magnification="20" ScanRes="{mpp}" UnitNumber="1"/></Metadata>'
    directories = [
        (_strip_tags(label, [_described("Label_Image"), _packet(told)]), [_jpeg(label)]),
    ]
    for number, each in enumerate(halves(stored, levels)):
        more = [_described(f"level={number} mag={20 / 2**number:g} quality=90")]
        more += [_packet(_bif_areas(areas, advance, overlap, tile, down)), *described("", profile)] if number == 0 else []
        directories.append(_level(each, tile=tile, more=more, number=number))
    return write_tiff(path, directories, big=True)


def _bif_areas(areas: Sequence[Box], advance: int, overlap: int, tile: int, down: int) -> str:
    """Places count from the bottom; tiles go from there upwards, in rows to the right and back."""
    images, origins = "", ""
    for number, (left, top, right, bottom) in enumerate(areas):
        columns, rows = right - left, bottom - top

        def numbered(column: int, row: int, columns: int = columns, rows: int = rows) -> int:
            upwards = rows - 1 - row
            return upwards * columns + (columns - 1 - column if upwards % 2 else column) + 1

        joints = [("RIGHT", numbered(column, row), numbered(column + 1, row)) for row in range(rows) for column in range(columns - 1)] + [
            ("UP", numbered(column, row), numbered(column, row - 1)) for row in range(1, rows) for column in range(columns)
        ]
        joined = "".join(
            f'<TileJointInfo FlagJoined="1" Confidence="98" Direction="{direction}" Tile1="{one}" Tile2="{other}" '
            f'OverlapX="{overlap if direction == "RIGHT" else 0}" OverlapY="{overlap if direction == "UP" else 0}"/>'
            for direction, one, other in joints
        )
        below = (down - 1) * advance + tile - (top * advance + (rows - 1) * advance + tile)
        images += (
            f'<ImageInfo AOIScanned="1" Width="{tile}" Height="{tile}" NumRows="{rows}" NumCols="{columns}" '
            f'Pos-X="{left * advance}" Pos-Y="{below}">{joined}</ImageInfo>'
        )
        origins += f'<AOI{number} OriginX="{left * tile}" OriginY="{top * tile}"/>'
    return f"<EncodeInfo><SlideStitchInfo>{images}</SlideStitchInfo><AoiOrigin>{origins}</AoiOrigin></EncodeInfo>"


def write_trestle(path: Path, pixels: Pixels, *, overlap: int = 4, levels: int = 2, tile: int = 128, mpp: float = 0.5) -> Path:
    """Trestle's: tiles of each level overlap, and the tags of density hold micrometres. A macro image lies beside it."""
    directories, overlaps = [], []
    for number, each in enumerate(halves(pixels, levels)):
        apart = overlap if number == 0 else 0
        directories.append(_level(_spread(each, tile, apart), tile=tile, more=_density(mpp), number=number))
        overlaps += [apart, apart]
    told = f"Background Color=FFFFFF;Objective Power=20;OverlapsXY={' '.join(map(str, overlaps))}"
    directories[0][0].extend([_described(told), (305, _TEXT, b"MedScan\x00")])
    path.with_suffix(".Full").write_bytes(_jpeg(np.ascontiguousarray(pixels[::8, ::8])))
    return write_tiff(path, directories, big=False)


def _spread(pixels: Pixels, tile: int, overlap: int) -> Pixels:
    """Tiles beside each other that hold what they share twice."""
    advance = tile - overlap
    across, down = (-(-(side - overlap) // advance) for side in (pixels.shape[1], pixels.shape[0]))
    filled = np.pad(
        pixels, ((0, down * advance + overlap - pixels.shape[0]), (0, across * advance + overlap - pixels.shape[1]), (0, 0)), mode="edge"
    )
    rows = [
        np.concatenate([filled[y * advance : y * advance + tile, x * advance : x * advance + tile] for x in range(across)], axis=1)
        for y in range(down)
    ]
    spread = np.concatenate(rows)
    return np.ascontiguousarray(spread[: pixels.shape[0] + (down - 1) * overlap, : pixels.shape[1] + (across - 1) * overlap])


def write_argos(path: Path, planes: Sequence[Pixels], *, levels: int = 2, tile: int = 128, mpp: float = 0.5) -> Path:
    """Argos': a pyramid for each plane of focus, of which the middle one is shown."""
    directories = [
        _level(each, tile=tile, more=_density(10_000 / (mpp * 2**number)), number=number)
        for plane in planes
        for number, each in enumerate(halves(plane, levels))
    ]
    told = (
        "<Argos.Scan.Metadata><ObjectiveMagnification>20</ObjectiveMagnification>"
        f"<MinZ>0</MinZ><MaxZ>{len(planes) - 1}</MaxZ></Argos.Scan.Metadata>"
    )
    directories[0][0].append((65000, _TEXT, told.encode() + b"\x00"))
    return write_tiff(path, directories, big=True)


def _level(
    pixels: Pixels, *, tile: int, more: list[Tag], number: int = 0, empty: Collection[tuple[int, int]] = ()
) -> tuple[list[Tag], list[bytes]]:
    """Tags and tiles of a level in JPEG. `empty`: (column, row) of tiles without bytes."""
    across = -(-pixels.shape[1] // tile)
    tiles = [
        b"" if (index % across, index // across) in empty else jpeg_tile(each, rgb_components=False, quality=90)
        for index, each in enumerate(tiles_of(pixels, tile))
    ]
    tags = level_tags(pixels.shape[1], pixels.shape[0], number=number, tile=tile, compression=_JPEG, photometric=_YCBCR)
    return [*tags, *more], tiles


def _strip_tags(pixels: Pixels, more: list[Tag]) -> list[Tag]:
    tags = level_tags(pixels.shape[1], pixels.shape[0], number=0, tile=0, compression=_JPEG, photometric=_YCBCR)
    return [tag for tag in tags if tag[0] not in (322, 323)] + [(278, _LONG, [pixels.shape[0]]), *more]


def _density(per_centimetre: float) -> list[Tag]:
    ratio = [round(per_centimetre * 1000), 1000]
    return [(282, _RATIO, ratio), (283, _RATIO, ratio), (296, _SHORT, [3])]


def _described(text: str) -> Tag:
    return (270, _TEXT, text.encode() + b"\x00")


def _packet(text: str) -> Tag:
    return (700, _BYTE, text.encode() + b"\x00")


def _jpeg(pixels: Pixels) -> bytes:
    return bytes(simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling="444"))
