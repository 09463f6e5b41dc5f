"""Slides made for tests: painted tissue with nuclei at known places, and files of each kind that readers must know."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
# Number, type and values of one tag of a TIFF.
Tag = tuple[int, int, "list[int] | bytes"]
_TEXT, _SHORT, _LONG, _RATIO, _BYTES, _LONG8 = 2, 3, 4, 5, 7, 16
_CODES = {_SHORT: "H", _LONG: "I", _RATIO: "I", _LONG8: "Q"}

_HAEMATOXYLIN = np.array((0.65111, 0.70119, 0.29049))
_EOSIN = np.array((0.2159, 0.8012, 0.5581))


def paint(
    width: int,
    height: int,
    *,
    tissue: tuple[int, int, int, int] | None,
    nuclei: Sequence[tuple[float, float]] = (),
    radius: float = 5.0,
    white: int = 245,
    noise: float = 0.0,
) -> Pixels:
    """RGB of glass with a rectangle of eosin (left, top, right, bottom) and round nuclei in it; noise in grey levels."""
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    density = np.zeros((height, width, 3))
    if tissue:
        left, top, right, bottom = tissue
        density[top:bottom, left:right] = 0.35 * _EOSIN
    reach = int(4 * radius)
    for x, y in nuclei:
        window = (slice(max(int(y) - reach, 0), int(y) + reach), slice(max(int(x) - reach, 0), int(x) + reach))
        distance = np.hypot(rows[window] - y, columns[window] - x)
        density[window] += (0.8 / (1 + np.exp(2 * (distance - radius))))[..., None] * _HAEMATOXYLIN
    colours = white * 10.0**-density
    if noise:
        colours += np.random.default_rng(7).normal(0, noise, colours.shape)
    return np.clip(np.round(colours), 0, 255).astype(np.uint8)


# Grey levels of marks on glass, by the colour of the pen.
INKS = {
    "blue": (40, 60, 190),
    "light blue": (110, 160, 225),
    "green": (30, 130, 90),
    "black": (35, 35, 38),
    "red": (215, 30, 45),
    "pink": (245, 90, 160),
    "orange": (240, 140, 40),
    "yellow": (250, 235, 80),
}


def with_ink(pixels: Pixels, ink: str, box: tuple[int, int, int, int]) -> Pixels:
    """A stroke over (left, top, right, bottom): what is under it shows through."""
    left, top, right, bottom = box
    marked = pixels.copy()
    marked[top:bottom, left:right] = np.round(pixels[top:bottom, left:right] * (np.array(INKS[ink]) / 255))
    return marked


def with_fold(pixels: Pixels, box: tuple[int, int, int, int], *, white: int = 245) -> Pixels:
    """Tissue in a second layer over (left, top, right, bottom), a little denser than the first."""
    left, top, right, bottom = box
    folded = pixels.copy()
    folded[top:bottom, left:right] = np.round(white * np.minimum(pixels[top:bottom, left:right] / white, 1) ** 2.3)
    return folded


def scattered(count: int, *, within: tuple[int, int, int, int], apart: float, seed: int = 1) -> list[tuple[float, float]]:
    """Random places in a rectangle, no two nearer than `apart`."""
    random = np.random.default_rng(seed)
    left, top, right, bottom = within
    places = np.empty((count, 2))
    found = 0
    while found < count:
        place = random.uniform(left, right), random.uniform(top, bottom)
        if (((places[:found] - place) ** 2).sum(1) >= apart**2).all():
            places[found] = place
            found += 1
    return [(float(x), float(y)) for x, y in places]


def write_jpeg_tiff(
    path: Path,
    levels: Sequence[Pixels],
    *,
    description: str = "",
    tile: int = 240,
    rgb_components: bool = False,
    shared_tables: bool = True,
    quality: int = 90,
    subsampling: str = "444",
    bigtiff: bool = False,
    resolution: tuple[float, float] | None = None,
    spoil: Sequence[int] = (),
    profile: bytes = b"",
) -> Path:
    """A tiled JPEG TIFF as scanners write it: tables shared in a tag, and R, G, B stored as components where `rgb_components`.

    `spoil`: numbers of the tiles of level 0 whose compressed bytes are overwritten. `profile`: an ICC profile.
    """
    directories = []
    for number, pixels in enumerate(levels):
        tiles = [
            jpeg_tile(each, rgb_components=rgb_components, quality=quality, subsampling=subsampling) for each in tiles_of(pixels, tile)
        ]
        tags = level_tags(pixels.shape[1], pixels.shape[0], number=number, tile=tile, compression=7, photometric=2 if rgb_components else 6)
        if shared_tables:
            tags.append(tables_tag(tiles[0]))
            tiles = [without_tables(each) for each in tiles]
        if number == 0:
            tiles = [b"\x00" * len(each) if index in spoil else each for index, each in enumerate(tiles)]
            tags += described(description, profile)
        if resolution:
            tags += [(282, _RATIO, [round(resolution[0]), 1]), (283, _RATIO, [round(resolution[1]), 1]), (296, _SHORT, [3])]
        directories.append((tags, tiles))
    return write_tiff(path, directories, big=bigtiff)


def write_jpeg2000_svs(
    path: Path, levels: Sequence[Pixels], *, compression: int, tile: int = 256, lossless: bool = True, aperio: bool = True
) -> Path:
    """An Aperio-like slide in JPEG 2000: of R, G, B (compression 33005), or of Y, Cb, Cr (33003); of others R, G, B in both."""
    directories = []
    for number, pixels in enumerate(levels):
        tags = level_tags(pixels.shape[1], pixels.shape[0], number=number, tile=tile, compression=compression, photometric=2)
        tags += described(f"Aperio Image Library v11\r\n({tile}x{tile}) J2K|AppMag = 20|MPP = 0.5") if number == 0 and aperio else []
        stored = (
            Image.fromarray(each).convert("YCbCr") if compression == 33003 and aperio else Image.fromarray(each)
            for each in tiles_of(pixels, tile)
        )
        directories.append((tags, [_jpeg2000(each, lossless=lossless) for each in stored]))
    return write_tiff(path, directories, big=False)


def _jpeg2000(picture: Image.Image, *, lossless: bool) -> bytes:
    file = io.BytesIO()
    # What is stored are three planes, whatever they mean; only R, G, B gain by being mixed.
    planes = Image.frombytes("RGB", picture.size, picture.tobytes())
    planes.save(
        file, "JPEG2000", no_jp2=True, irreversible=not lossless, mct=int(picture.mode == "RGB"), quality_layers=[0 if lossless else 20]
    )
    return file.getvalue()


def write_lzw_tiff(path: Path, pixels: Pixels, *, tile: int = 256, predictor: bool = False) -> Path:
    """A tiled LZW TIFF; with a `predictor` differences of neighbours are stored."""
    return _write_packed(path, pixels, tile, 5, predictor, _lzw)


def write_zstd_tiff(path: Path, pixels: Pixels, *, tile: int = 256, predictor: bool = False) -> Path:
    """A tiled Zstandard TIFF."""
    return _write_packed(path, pixels, tile, 50000, predictor, lambda each: pyarrow.compress(each.tobytes(), "zstd", asbytes=True))


def _write_packed(path: Path, pixels: Pixels, tile: int, compression: int, predictor: bool, pack: Callable[[Pixels], bytes]) -> Path:
    tags = level_tags(pixels.shape[1], pixels.shape[0], number=0, tile=tile, compression=compression, photometric=2)
    tags += [(317, _SHORT, [2])] if predictor else []
    stored = ((np.diff(each, axis=1, prepend=np.uint8(0)) if predictor else each) for each in tiles_of(pixels, tile))
    return write_tiff(path, [(tags, [pack(each) for each in stored])], big=False)


def level_tags(width: int, height: int, *, number: int, tile: int, compression: int, photometric: int) -> list[Tag]:
    """What a directory says of its level, the places of its tiles aside; `number`: of the level."""
    tags: list[Tag] = [(254, _LONG, [0 if number == 0 else 1]), (256, _LONG, [width]), (257, _LONG, [height]), (258, _SHORT, [8, 8, 8])]
    tags += [(259, _SHORT, [compression]), (262, _SHORT, [photometric]), (277, _SHORT, [3]), (322, _LONG, [tile]), (323, _LONG, [tile])]
    return tags + ([(530, _SHORT, [1, 1])] if photometric == 6 else [])


def described(description: str, profile: bytes = b"") -> list[Tag]:
    """Description and ICC profile, where there are such."""
    tags: list[Tag] = [(270, _TEXT, description.encode() + b"\x00")] if description else []
    return tags + ([(34675, _BYTES, profile)] if profile else [])


def tables_tag(tile: bytes) -> Tag:
    """The tables of a JPEG as its level's tiles share them."""
    return (347, _BYTES, b"\xff\xd8" + jpeg_tables(tile) + b"\xff\xd9")


def _lzw(pixels: Pixels) -> bytes:
    """As libtiff packs them, codes of up to 12 bits and all."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF", compression="tiff_lzw", strip_size=2 * pixels.nbytes)
    with Image.open(file) as picture:
        (start,), (length,) = picture.tag_v2[273], picture.tag_v2[279]  # type: ignore[attr-defined]
    return file.getvalue()[start : start + length]


def write_svs(path: Path, pixels: Pixels, *, mpp: float | None = 0.5, **options: object) -> Path:
    """An Aperio-like slide of one level."""
    known = f"|MPP = {mpp}" if mpp is not None else ""
    description = f"Aperio Image Library v11\r\n{pixels.shape[1]}x{pixels.shape[0]} ({240}x{240}) JPEG/RGB Q=90|AppMag = 20{known}"
    return write_jpeg_tiff(path, [pixels], description=description, rgb_components=True, **options)  # type: ignore[arg-type]


def write_huge_striped_tiff(path: Path, *, edge: int = 60_000) -> Path:
    """A few hundred bytes that say they are a TIFF of edge × edge px in one strip."""
    entries = [
        (256, 4, 1, edge),
        (257, 4, 1, edge),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, edge),
        (279, 4, 1, 100),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", 0)
    path.write_bytes(b"II*\x00" + struct.pack("<I", 108) + b"\x00" * 100 + directory)
    return path


def write_tiff(path: Path, directories: Iterable[tuple[list[Tag], Iterable[bytes]]], *, big: bool) -> Path:
    """A TIFF of these directories, each with its tiles before it; tiles are written as they come. Without tags of tiles they are strips."""
    word, offset_type = ("Q", _LONG8) if big else ("I", _LONG)
    with path.open("wb") as file:
        file.write(b"II" + (struct.pack("<HHHQ", 43, 8, 0, 0) if big else struct.pack("<HI", 42, 0)))
        link = 8 if big else 4
        for tags, tiles in directories:
            offsets, counts = [], []
            for tile in tiles:
                offsets.append(file.tell())
                counts.append(file.write(tile))
            places, lengths = (324, 325) if any(tag[0] == 322 for tag in tags) else (273, 279)
            values = sorted([*tags, (places, offset_type, offsets), (lengths, _LONG, counts)])
            entries = b""
            for number, kind, content in values:
                data = content if isinstance(content, bytes) else struct.pack(f"<{len(content)}{_CODES[kind]}", *content)
                count = len(content) // (2 if kind == _RATIO else 1)
                if len(data) > struct.calcsize(word):
                    where = file.tell()
                    file.write(data)
                    data = struct.pack(f"<{word}", where)
                entries += struct.pack(f"<HH{word}", number, kind, count) + data.ljust(struct.calcsize(word), b"\x00")
            begin = file.tell()
            file.seek(link)
            file.write(struct.pack(f"<{word}", begin))
            file.seek(begin)
            file.write(struct.pack("<Q" if big else "<H", len(values)) + entries)
            link = file.tell()
            file.write(struct.pack(f"<{word}", 0))
    return path


def tiles_of(pixels: Pixels, edge: int) -> Iterator[Pixels]:
    """Square tiles, those at the right and bottom edges filled up."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, -height % edge), (0, -width % edge), (0, 0)), mode="edge")
    for y in range(0, height, edge):
        for x in range(0, width, edge):
            yield np.ascontiguousarray(padded[y : y + edge, x : x + edge])


def jpeg_tile(pixels: Pixels, *, rgb_components: bool, quality: int, subsampling: str = "444") -> bytes:
    """A JPEG of Y, Cb, Cr, or without subsampling of R, G, B as they are."""
    if rgb_components:
        planes = [np.ascontiguousarray(pixels[..., channel]) for channel in range(3)]
        return bytes(simplejpeg.encode_jpeg_yuv_planes(*planes, quality=quality))
    return bytes(simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling=subsampling))


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers and their bytes up to the scan, which comes last with all that follows."""
    position = 2
    while True:
        marker = data[position + 1]
        if marker == 0xDA:
            yield marker, data[position:]
            return
        length = 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, data[position : position + length]
        position += length


def jpeg_tables(data: bytes) -> bytes:
    """Its segments of tables."""
    return b"".join(segment for marker, segment in _segments(data) if marker in (0xDB, 0xC4))


def without_tables(data: bytes) -> bytes:
    """All but its segments of tables."""
    return data[:2] + b"".join(segment for marker, segment in _segments(data) if marker not in (0xDB, 0xC4))
