"""Several servers that share one slide: each analyses a part of the tiles, and one merges what they saved."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inference_server import allocator
from inference_server.errors import InvalidInput
from inference_server.tasks.slides import checkpoints
from inference_server.tasks.slides.readers.tiff import TiffReader
from inference_server.tasks.slides.values import AnalysisResult, Pixels, Position, Share
from tests.support.slides.cut_off_analyses import REQUESTS, Place, parts, result_of, streamed, write_inputs
from tests.support.slides.painted import paint, scattered, write_jpeg_tiff
from tests.support.slides.written_files import contents, sent


class Wholes:
    """A slide and models, and what analyses of the whole slide give, each run once."""

    def __init__(self, folder: Path) -> None:
        self.inputs = folder / "inputs"
        self.inputs.mkdir()
        write_inputs(self.inputs, 1024, 768)
        self._place = Place(folder, self.inputs)
        self._found: dict[str, tuple[AnalysisResult, dict[str, bytes]]] = {}

    async def of(self, analysis: str) -> tuple[AnalysisResult, dict[str, bytes]]:
        """The result and the files."""
        if analysis not in self._found:
            events, out = await self._place.run(analysis, **REQUESTS[analysis])
            self._found[analysis] = result_of(events), contents(out)
        return self._found[analysis]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Wholes:
    return Wholes(tmp_path_factory.mktemp("wholes"))


@pytest.fixture
def place(tmp_path: Path, wholes: Wholes, monkeypatch: pytest.MonkeyPatch) -> Place:
    # Parts are due by the share of the tiles alone, however fast the machine is.
    monkeypatch.setattr(checkpoints, "_LEAST_SECONDS", 0.0)
    return Place(tmp_path, wholes.inputs)


@pytest.mark.parametrize("analysis", sorted(REQUESTS))
async def test_what_shares_found_is_merged_into_the_bytes_of_the_whole(place: Place, wholes: Wholes, analysis: str) -> None:
    asked = REQUESTS[analysis]
    whole, expected = await wholes.of(analysis)
    shares = [await place.run(f"share-{index}", share=Share(index=index, count=3), **asked) for index in range(3)]
    # In any order.
    saved = [parts(events) for events, _ in (shares[2], shares[0], shares[1])]
    merged, out = await place.run("merged", resume_uris=sum(saved, ()), checkpoints=False, **asked)

    total = whole.tiles_analyzed
    assert expected == contents(out)
    assert (total, total, "") == (result_of(merged).tiles_analyzed, result_of(merged).tiles_resumed, result_of(merged).resume_refused)
    # Each tile once, by one of them, and none by the one that merged.
    assert total == sum(result_of(events).tiles_analyzed for events, _ in shares)
    assert [total, 0] == [sum(place.calls[:3]), place.calls[3]]
    for events, folder in shares:
        assert ((), "") == (result_of(events).artifacts, result_of(events).report_json)
        assert [] == [path for path in folder.iterdir() if path.is_file()]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("analysis", sorted(REQUESTS))
async def test_parts_may_come_in_any_order_also_those_of_one_share(place: Place, wholes: Wholes, analysis: str, streaming: bool) -> None:
    asked = {**REQUESTS[analysis], **({"output_uri": ""} if streaming else {})}
    whole, expected = await wholes.of(analysis)
    cut, _ = await place.run("cut", until=0.5, share=Share(index=0, count=2), **asked)
    taken: Any = streamed if streaming else parts
    named = "resume_parts" if streaming else "resume_uris"
    rest, _ = await place.run("rest", share=Share(index=0, count=2), **asked, **{named: taken(cut)[::-1]})
    other, _ = await place.run("other", share=Share(index=1, count=2), **asked)
    saved = [*taken(cut), *taken(rest), *taken(other)]
    # No survey first.
    shuffled = saved[::-1] if streaming else [*saved[1:], saved[0]]
    merged, out = await place.run("merged", **asked, **{named: shuffled})

    assert len(saved) > 5
    assert ("", "") == (result_of(rest).resume_refused, result_of(merged).resume_refused)
    assert whole.tiles_analyzed == result_of(merged).tiles_resumed
    assert expected == (sent(merged) if streaming else contents(out))


@pytest.mark.parametrize("analysis", ["he_baseline", "colours"])
async def test_a_share_that_comes_when_some_of_it_was_computed_in_its_place_is_taken_up_once(
    place: Place, wholes: Wholes, analysis: str
) -> None:
    asked = REQUESTS[analysis]
    whole, expected = await wholes.of(analysis)
    first, _ = await place.run("first", share=Share(index=0, count=2), **asked)
    begun, _ = await place.run("begun", until=0.8, resume_uris=parts(first), **asked)
    late, _ = await place.run("late", share=Share(index=1, count=2), **asked)
    total = whole.tiles_analyzed
    for name, saved, least in (
        ("late first", parts(first) + parts(late) + parts(begun) + parts(first)[:2], 1.0),
        # What is left of a part that holds some twice is computed again.
        ("begun first", parts(first) + parts(begun) + parts(late), 0.8),
    ):
        merged, out = await place.run(name, resume_uris=saved, **asked)
        assert expected == contents(out)
        assert "" == result_of(merged).resume_refused
        assert least * total <= result_of(merged).tiles_resumed <= total
        assert total == result_of(merged).tiles_resumed + place.calls[-1]


async def test_a_share_that_was_cut_off_is_gone_on_with(place: Place, wholes: Wholes) -> None:
    asked = REQUESTS["stains"]
    _, expected = await wholes.of("stains")
    cut, _ = await place.run("cut", until=0.5, share=Share(index=0, count=2), **asked)
    rest, _ = await place.run("rest", share=Share(index=0, count=2), resume_uris=parts(cut), **asked)
    other, _ = await place.run("other", share=Share(index=1, count=2), **asked)
    _, out = await place.run("merged", resume_uris=parts(cut) + parts(rest) + parts(other), **asked)

    assert 0 < result_of(rest).tiles_resumed < result_of(rest).tiles_analyzed
    assert expected == contents(out)


async def test_damage_is_judged_by_the_whole_slide_and_not_by_a_share(place: Place) -> None:
    nuclei = scattered(300, within=(40, 40, 1400, 1200), apart=25)
    picture = paint(1536, 1280, tissue=(20, 20, 1480, 1230), nuclei=nuclei, noise=2.0)
    described = "Aperio Image Library v11|AppMag = 20|MPP = 0.5"
    # Of 120 stored tiles 8 in the last rows: few of the slide, many of the last share.
    place.slide = write_jpeg_tiff(
        place.folder / "damaged.svs",
        [picture, picture[::4, ::4]],
        description=described,
        rgb_components=True,
        tile=128,
        spoil=range(98, 106),
    )
    asked = REQUESTS["he_baseline"]
    _, expected = await place.run("whole", **asked)
    shares = [await place.run(f"share-{index}", share=Share(index=index, count=4), **asked) for index in range(4)]
    _, out = await place.run("merged", resume_uris=sum((parts(events) for events, _ in shares), ()), **asked)
    assert contents(expected) == contents(out)


async def test_a_share_that_is_missing_is_computed_by_the_one_that_merges(place: Place, wholes: Wholes) -> None:
    asked = REQUESTS["pinkness"]
    _, expected = await wholes.of("pinkness")
    half, _ = await place.run("half", share=Share(index=1, count=2), **asked)
    merged, out = await place.run("merged", resume_uris=parts(half), **asked)

    assert result_of(half).tiles_analyzed == result_of(merged).tiles_resumed
    assert expected == contents(out)


async def test_shares_may_be_streamed_and_run_at_the_same_time(place: Place, wholes: Wholes) -> None:
    asked = {**REQUESTS["colours"], "output_uri": ""}
    _, expected = await wholes.of("colours")
    shares = await asyncio.gather(*(place.run("share", share=Share(index=index, count=4), **asked) for index in range(4)))
    merged, _ = await place.run("merged", resume_parts=sum((streamed(events) for events, _ in shares), ()), **asked)

    assert expected == sent(merged)


async def test_more_shares_than_tiles_leave_some_empty(place: Place) -> None:
    events, _ = await place.run("empty", tile_size=2048, share=Share(index=0, count=5))
    assert (0, 1) == (result_of(events).tiles_analyzed, len(parts(events)))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"share": Share(index=2, count=2)}, "share is 2 of 2"),
        ({"share": Share(index=0, count=0)}, "share is 0 of 0"),
        ({"share": Share(index=0, count=2), "checkpoints": False}, "ask for checkpoints with it"),
    ],
)
async def test_a_share_that_makes_no_sense_is_refused(place: Place, asked: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        await place.run("refused", **asked)


@pytest.mark.parametrize("end", [{}, {"until": 0.3}], ids=["done", "cut off"])
async def test_nothing_that_was_read_for_a_share_is_held_when_its_memory_is_given_back(
    place: Place, monkeypatch: pytest.MonkeyPatch, end: dict[str, float]
) -> None:
    tiles: list[weakref.ref[Pixels]] = []
    held: list[int] = []
    original = TiffReader.read_tiles

    async def read_tiles(self: TiffReader, level: int, places: Sequence[Position], soon: Sequence[Position] = ()) -> list[Pixels | None]:
        read = await original(self, level, places, soon)
        tiles.extend(weakref.ref(tile) for tile in read if tile is not None)
        return read

    monkeypatch.setattr(TiffReader, "read_tiles", read_tiles)
    monkeypatch.setattr(allocator, "return_what_is_free", lambda: held.append(sum(each() is not None for each in tiles)))
    await place.run("share", share=Share(index=0, count=2), **end, **REQUESTS["stains"])

    assert len(tiles) > 40
    assert [0] == held
