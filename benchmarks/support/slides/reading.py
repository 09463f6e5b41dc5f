"""How fast a slide's tiles are fetched and decoded, over limits of their own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import simplejpeg

from benchmarks.support.slides.measures import BUCKET, LIMITS, ROUNDS, Bench, Rate, mean_rate, timed
from inference_server.allocator import KEPT_FOR_SLIDES, Reuse
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.manifest import BUILT_IN
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.readers.tiff import TiffReader

LEAST_RAW, LEAST_DECODED = 10_000.0, 0.9
_BATCH = 32
# Of a turn: so many that its first and last batches, while which not all threads have one, do not count.
_TILES = 4096


async def raw_tiles(bench: Bench) -> None:
    """Compressed tiles of a block of the slide, from S3, and from a web server, whose answers are looked at one by one."""
    stored = await _fetched(bench.storage, bench.uri)
    place = f"{bench.server.url}/{BUCKET}/large.svs"
    from_web = await _fetched(Storage(read_roots=(place,), write_roots=()), place)
    bench.rows.add("raw tiles from a local S3", _told(stored), bar=f"{LEAST_RAW:,.0f}", met=stored.per_second >= LEAST_RAW)
    bench.rows.add("the same from a web server", f"{_told(from_web)}, {from_web.cpu_micros / stored.cpu_micros:.1f} times")


def _told(rate: Rate) -> str:
    return f"{rate.per_second:,.0f}/s, {rate.cpu_micros:.0f} µs of processor time a tile"


async def _fetched(storage: Storage, uri: str) -> Rate:
    """The median of some rounds."""
    async with open_slide(storage, uri, LIMITS, Staging(storage, most_bytes=0)) as reader:
        assert isinstance(reader, TiffReader)
        level = reader.facts.levels[0]
        half = (min(level.columns, 256), min(level.rows, 128))
        blocks = [
            [(column + x, row + y) for y in range(4) for x in range(16)]
            for row in range(0, half[1] - 3, 4)
            for column in range(0, half[0] - 15, 16)
        ]
        rates = [await timed(lambda block: reader.fetch(0, block), blocks, at_a_time=8) for _ in range(ROUNDS)]
    return sorted(rates, key=lambda rate: rate.per_second)[ROUNDS // 2]


def decode_alone(batch: Sequence[bytes]) -> None:
    """As many tiles at a time as the reader holds."""
    _ = [simplejpeg.decode_jpeg(each) for each in batch]


def decoded_alone(tiles: Sequence[bytes], threads: ThreadPoolExecutor) -> Rate:
    """As fast as simplejpeg is by itself."""
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in threads.map(decode_alone, (tiles[start : start + _BATCH] for start in range(0, len(tiles), _BATCH))):
        pass
    return Rate(tiles=len(tiles), seconds=time.perf_counter() - begun, cpu_seconds=time.process_time() - cpu)


async def decoded_tiles(bench: Bench) -> None:
    """Tiles read from disk, where no server wants the cores, and decoded; over simplejpeg alone, in turns.

    As many batches are under way as in an analysis; simplejpeg has a thread a core, which never waits for a batch. Both have the memory
    settings of an analysis: else whose pages are handed out and cleared anew is up to where others' blocks happen to lie.
    """
    disk = Storage(read_roots=(str(bench.path.parent),), write_roots=())
    ours, alone = [], []
    prepared = await bench.analyses.prepare(BUILT_IN, 256)
    async with (
        bench.slide(prepared.plan) as slide,
        open_slide(disk, str(bench.path), LIMITS, Staging(disk, most_bytes=0)) as reader,
        Reuse().reused(KEPT_FOR_SLIDES),
    ):
        assert isinstance(reader, TiffReader)
        level = slide.grid.level
        places = [(tile.x // 256, tile.y // 256) for tile in slide.tiles[:_TILES]]
        batches = [places[start : start + _BATCH] for start in range(0, len(places), _BATCH)]
        whole = [reader.stored(level).as_jpeg(tile) for tile in await reader.fetch(level, places)]
        with ThreadPoolExecutor(len(bench.cores)) as threads:
            decoded_alone(whole, threads)  # warm
            for _ in range(ROUNDS):
                ours.append(await timed(lambda batch: reader.read_tiles(level, batch), batches, at_a_time=LIMITS.calls_in_flight))
                alone.append(decoded_alone(whole, threads))
    share = median(mine.per_second / other.per_second for mine, other in zip(ours, alone, strict=True))
    of_cpu = median(other.cpu_micros / mine.cpu_micros for mine, other in zip(ours, alone, strict=True))
    measured = f"{share:.2f} ({mean_rate(ours).per_second:,.0f} of {mean_rate(alone).per_second:,.0f}/s)"
    bench.rows.add("read from disk and decoded, over simplejpeg alone", measured, bar=f"{LEAST_DECODED}", met=share >= LEAST_DECODED)
    bench.rows.add(
        "the same by processor time", f"{of_cpu:.2f} ({mean_rate(alone).cpu_micros:.0f} of {mean_rate(ours).cpu_micros:.0f} µs a tile)"
    )
