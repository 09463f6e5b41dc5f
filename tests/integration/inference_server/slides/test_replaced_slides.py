"""Slides that are replaced while they are read: never a result of two states, wherever they lie and whichever reader reads them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_server.errors import ContentChanged, InvalidSlide
from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse
from inference_server.storage.storage import Storage
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.readers.files import files_of
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, Checkpoint, SlideLimits
from tests.support.models.direct_inference import DirectInference
from tests.support.slides.dicom import write_dicom
from tests.support.slides.mirax import write_mrxs
from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.range_server import RangeServer, range_server

WIDTH, HEIGHT = 448, 384
INSIDE = (30, 30, WIDTH - 30, HEIGHT - 30)
OLD, NEW = (
    paint(WIDTH, HEIGHT, tissue=INSIDE, nuclei=scattered(count, within=(50, 50, 400, 340), apart=30, seed=count), noise=2)
    for count in (40, 25)
)
BUCKET = "slides"


class Meddling(DirectInference):
    """Runs models, and does something else once before one of the calls is answered."""

    def __init__(self, models: Path) -> None:
        super().__init__(models)
        self.meddle: Callable[[], object] | None = None
        self.calls = 0

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        self.calls += 1
        if self.meddle and self.calls == 2:
            self.meddle()
        return await super().infer(request)


class Place:
    """A folder that a server of objects shows too, and analyses of what lies in it."""

    def __init__(self, folder: Path, models: Path, server: RangeServer) -> None:
        self.folder = folder / BUCKET
        self.server = server
        self.inference = Meddling(models)
        roots = (str(folder), server.url, f"s3://{BUCKET}")
        self.storage = Storage(read_roots=roots, write_roots=(str(folder / "out"),), allow_http=True)
        self.staging = Staging(self.storage, most_bytes=1 << 30, folder=folder / "staging")
        # Nothing of the slide is kept, so that whatever is asked for is read again.
        limits = SlideLimits(cache_bytes=0)
        self.analyzer = SlideAnalyzer(inference=self.inference, storage=self.storage, models=models, limits=limits, staging=self.staging)

    def uri(self, where: str, path: Path) -> str:
        name = f"{BUCKET}/{path.relative_to(self.folder)}"
        return {"disk": str(path), "s3": f"s3://{name}", "http": f"{self.server.url}/{name}"}[where]

    def replace(self, path: Path, content: bytes) -> None:
        """As an upload does: the new one is there at once, and whole."""
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        # Some stores tell times in seconds.
        os.utime(fresh, (path.stat().st_mtime + 10,) * 2)
        fresh.replace(path)
        self.server.forget()

    async def run(self, uri: str, **request: Any) -> list[Any]:
        self.inference.calls = 0
        # Checkpoints make calls small, so that much is left to be read after the first.
        asked = AnalysisRequest(slide_uri=uri, tile_size=64, checkpoints=True, **request)
        return [event async for event in self.analyzer.analyze(asked, Caller())]


@contextlib.contextmanager
def placed(folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch, *, tags: str = "strong") -> Iterator[Place]:
    (folder / BUCKET).mkdir()
    with range_server(folder, tags=tags) as server:
        for name, value in server.s3_environment.items():
            monkeypatch.setenv(name, value)
        yield Place(folder, models, server)


@pytest.fixture
def place(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with placed(tmp_path, models, monkeypatch) as place:
        yield place


def candidates(events: list[Any]) -> str:
    result = events[-1]
    assert isinstance(result, AnalysisResult)
    return result.report_json.partition('"nuclear_candidates"')[2].partition(",")[0]


@pytest.mark.parametrize(
    ("where", "tags"), [("disk", "strong"), ("s3", "strong"), ("http", "strong"), ("http", "weak"), ("http", "none"), ("http", "head")]
)
async def test_a_slide_that_is_replaced_while_it_is_read_has_no_result_and_the_next_try_reads_the_new_one(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, where: str, tags: str
) -> None:
    with placed(tmp_path, models, monkeypatch, tags=tags) as place:
        path, fresh = (write_svs(place.folder / name, picture) for name, picture in (("slide.svs", OLD), ("fresh.svs", NEW)))
        uri, new = place.uri(where, path), fresh.read_bytes()
        before = candidates(await place.run(uri))
        place.inference.meddle = lambda: place.replace(path, new)
        with pytest.raises(ContentChanged, match=r"slide\.svs was replaced or removed while it was read.* Ask again once"):
            await place.run(uri)
        place.inference.meddle = None
        assert before != candidates(await place.run(uri)) == candidates(await place.run(place.uri(where, fresh)))


def overwrite(path: Path) -> None:
    """In place, as a copy over a network does: of the same size, and nothing that can be decoded."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))


async def test_what_seems_damaged_and_was_replaced_is_no_damaged_slide(place: Place) -> None:
    path = write_mrxs(place.folder / "slide.mrxs", OLD)
    place.inference.meddle = lambda: overwrite(place.folder / "slide" / "Data0000.dat")
    with pytest.raises(ContentChanged, match=r"slide/Data0000\.dat was replaced"):
        await place.run(str(path))


async def test_a_slide_that_is_still_being_written_is_no_damaged_slide(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_svs(place.folder / "slide.svs", OLD)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    original = place.storage.read_range

    async def read_range(found: StoredObject, start: int, length: int) -> bytes:
        head = await original(found, start, length)
        path.write_bytes(whole)
        return head

    with pytest.raises(InvalidSlide, match="truncated"):
        await place.analyzer.info(str(path))
    monkeypatch.setattr(place.storage, "read_range", read_range)
    with pytest.raises(ContentChanged):
        await place.analyzer.info(str(path))


async def test_a_slide_that_is_replaced_when_all_of_it_is_read_is_not_delivered(place: Place) -> None:
    path = write_dicom(place.folder / "series", [OLD])
    new = write_dicom(place.folder / "fresh", [NEW]).read_bytes()
    uri = place.uri("s3", path)
    await place.run(uri)
    # The copy on this machine stays as it is.
    place.inference.meddle = lambda: place.replace(path, new)
    with pytest.raises(ContentChanged, match=r"level0\.dcm"):
        await place.run(uri, output_uri=str(place.folder.parent / "out" / "late"))
    # Parts alone, which are of the old one and are not gone on with.
    assert {"checkpoint"} == {each.name for each in (place.folder.parent / "out" / "late").iterdir()}


async def test_a_slide_that_is_replaced_while_it_is_copied_is_not_read(place: Place) -> None:
    path = write_mrxs(place.folder / "slide.mrxs", OLD)
    found = await place.storage.open(place.uri("s3", path))
    files = await files_of(place.storage, found, dicom=False)
    data = place.folder / "slide" / "Data0000.dat"
    place.replace(data, data.read_bytes())
    with pytest.raises(ContentChanged, match=r"Data0000\.dat"):
        async with place.staging.copied(files):
            pass
    assert not list((place.folder.parent / "staging").rglob("*.dat"))


@pytest.mark.parametrize("tags", ["strong", "azure"])
async def test_a_slide_of_many_files_that_stays_as_it_is_is_copied_and_analysed(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, tags: str
) -> None:
    with placed(tmp_path, models, monkeypatch, tags=tags) as place:
        uri = place.uri("s3", write_mrxs(place.folder / "slide.mrxs", OLD))
        assert isinstance((await place.run(uri))[-1], AnalysisResult)


async def test_only_the_files_of_its_own_series_make_a_slide_of_dicom_another(place: Place) -> None:
    path = write_dicom(place.folder / "series", [OLD, OLD[::2, ::2].copy()])
    other = write_dicom(place.folder / "other", [NEW])
    beside = path.parent / "another.dcm"
    beside.write_bytes(other.read_bytes())
    place.inference.meddle = lambda: overwrite(beside)
    assert isinstance((await place.run(str(path)))[-1], AnalysisResult)
    place.inference.meddle = lambda: overwrite(path.parent / "level1.dcm")
    with pytest.raises(ContentChanged, match=r"level1\.dcm"):
        await place.run(str(path))


async def names_of(place: Place, path: Path) -> set[str]:
    found = await place.storage.open(str(path))
    return {Path(each.uri).name for each in await files_of(place.storage, found, dicom=True)}


@pytest.mark.parametrize("meddle", [lambda path: path.write_bytes(path.read_bytes() + b"more"), Path.unlink], ids=["grows", "goes"])
async def test_a_file_beside_a_slide_that_is_no_part_of_it_may_grow_or_go(
    place: Place, monkeypatch: pytest.MonkeyPatch, meddle: Callable[[Path], object]
) -> None:
    path = write_dicom(place.folder / "series", [OLD, OLD[::2, ::2].copy()])
    beside = path.parent / "another.dcm"
    beside.write_bytes(write_dicom(place.folder / "other", [NEW]).read_bytes())
    original = place.storage.list_beside

    async def list_beside(found: StoredObject) -> list[StoredObject]:
        listed = await original(found)
        assert "another.dcm" in {Path(each.key).name for each in listed}
        meddle(beside)
        return listed

    monkeypatch.setattr(place.storage, "list_beside", list_beside)
    assert {"level0.dcm", "level1.dcm"} == await names_of(place, path)


async def test_a_file_of_a_slide_that_grows_is_one_of_it_and_has_changed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(place.folder / "series", [OLD, OLD[::2, ::2].copy()])
    level = path.parent / "level1.dcm"
    original = place.storage.list_beside

    async def list_beside(found: StoredObject) -> list[StoredObject]:
        listed = await original(found)
        level.write_bytes(level.read_bytes() + b"more")
        return listed

    monkeypatch.setattr(place.storage, "list_beside", list_beside)
    with pytest.raises(ContentChanged, match=r"level1\.dcm"):
        await place.run(str(path))


async def test_what_nobody_can_read_beside_a_slide_is_left_out(place: Place) -> None:
    path = write_dicom(place.folder / "series", [OLD])
    (path.parent / "circle.dcm").symlink_to("circle.dcm")
    (path.parent / "nowhere.dcm").symlink_to("gone.dcm")
    os.mkfifo(path.parent / "pipe.dcm")
    # Reading it fails, of whoever reads: its first pages belong to no process.
    (path.parent / "memory.dcm").symlink_to("/proc/self/mem")
    (path.parent / os.fsdecode(b"\xff.dcm")).write_bytes(path.read_bytes())
    assert {"level0.dcm"} == await asyncio.wait_for(names_of(place, path), 60)


async def test_the_files_of_a_slide_are_those_that_it_names(place: Place) -> None:
    (place.folder / "slide.vms").write_text("[Virtual Microscope Specimen]\nImageFile=part.jpg\nMapFile=map.jpg\n")
    for name in ("part.jpg", "map.jpg", "another.jpg"):
        (place.folder / name).write_bytes(b"a picture")
    found = await place.storage.open(str(place.folder / "slide.vms"))
    files = await files_of(place.storage, found, dicom=False)
    assert ["slide.vms", "map.jpg", "part.jpg"] == [
        Path(each.uri).name for each in (files[0], *sorted(files[1:], key=lambda each: each.uri))
    ]


async def test_what_was_saved_of_a_slide_is_not_gone_on_with_when_any_of_its_files_is_another(place: Place) -> None:
    path = write_mrxs(place.folder / "slide a%41.mrxs", OLD)
    out = str(place.folder.parent / "out" / "saved")
    saved = tuple(event.uri for event in await place.run(str(path), output_uri=out) if isinstance(event, Checkpoint))
    resumed = await place.run(str(path), resume_uris=saved)
    assert ("", True) == (resumed[-1].resume_refused, resumed[-1].tiles_resumed > 0)
    data = path.with_suffix("") / "Data0000.dat"
    place.replace(data, data.read_bytes())
    assert "another state of the slide" in (await place.run(str(path), resume_uris=saved))[-1].resume_refused


async def test_what_was_saved_of_a_slide_is_gone_on_with_when_a_file_of_another_comes_beside_it(place: Place) -> None:
    path = write_dicom(place.folder / "series", [OLD, OLD[::2, ::2].copy()])
    uri, out = place.uri("s3", path), str(place.folder.parent / "out" / "saved")
    saved = tuple(event.uri for event in await place.run(uri, output_uri=out) if isinstance(event, Checkpoint))
    (path.parent / "another.dcm").write_bytes(write_dicom(place.folder / "other", [NEW]).read_bytes())
    (path.parent / "notes.txt").write_text("")
    place.server.forget()
    resumed = await place.run(uri, resume_uris=saved)
    assert ("", True) == (resumed[-1].resume_refused, resumed[-1].tiles_resumed > 0)


async def test_many_ranges_of_an_object_come_in_their_order(place: Place) -> None:
    path = place.folder / "numbers"
    path.write_bytes(bytes(range(256)) * 4096)
    content = path.read_bytes()
    starts = [700_000, 5, 1000, 20, 1_000_000, 8, *range(2_000, 600_000, 20_000)]
    ends = [start + 37 for start in starts]
    for where in ("disk", "s3", "http"):
        found = await place.storage.open(place.uri(where, path))
        read = await asyncio.wait_for(place.storage.read_ranges(found, starts, ends), 60)
        assert [content[start:end] for start, end in zip(starts, ends, strict=True)] == [bytes(each) for each in read]
