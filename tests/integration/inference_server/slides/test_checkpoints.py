"""Analyses that are cut off and gone on with elsewhere."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_server.tasks.slides import checkpoints
from inference_server.tasks.slides.values import Checkpoint, Share
from tests.support.slides.cut_off_analyses import REQUESTS, Place, parts, result_of, streamed, write_inputs
from tests.support.slides.written_files import contents, sent


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    # Parts are due by the share of the tiles alone: these slides take less than a second.
    monkeypatch.setattr(checkpoints, "_LEAST_SECONDS", 0.0)
    # Of one's own, so that they may be changed.
    return Place(tmp_path, shutil.copytree(inputs, tmp_path / "inputs", symlinks=True))


@pytest.fixture
def small_place(place: Place) -> Place:
    """With a slide of 80 tiles."""
    place.slide = place.inputs / "small.svs"
    return place


@pytest.mark.parametrize("analysis", sorted(REQUESTS))
async def test_a_resumed_analysis_writes_the_same_bytes_and_computes_next_to_nothing_again(place: Place, analysis: str) -> None:
    asked = REQUESTS[analysis]
    whole, expected = await place.run("whole", **asked)
    cut, _ = await place.run("cut", until=0.6, **asked)
    resumed, out = await place.run("resumed", resume_uris=parts(cut), **asked)

    total = result_of(whole).tiles_analyzed
    assert total >= 200
    assert contents(expected) == contents(out)
    assert 0.6 * total <= result_of(resumed).tiles_resumed < total
    assert ("", 2) == (result_of(resumed).resume_refused, result_of(resumed).tiles_skipped)
    assert place.calls[1] + place.calls[2] - total <= 0.05 * total


async def test_parts_that_were_streamed_are_gone_on_with_too(place: Place) -> None:
    asked = REQUESTS["he_baseline"]
    whole, expected = await place.run("whole", **asked)
    cut, _ = await place.run("cut", until=0.6, output_uri="", **asked)
    resumed, _ = await place.run("resumed", output_uri="", resume_parts=streamed(cut), **asked)

    assert result_of(resumed).tiles_resumed >= 0.6 * result_of(whole).tiles_analyzed
    assert contents(expected) == sent(resumed)
    assert not (place.folder / "out" / "cut").exists()


async def test_an_analysis_may_be_cut_off_again_and_again(place: Place) -> None:
    asked = REQUESTS["pinkness"]
    _, expected = await place.run("whole", **asked)
    saved: tuple[str, ...] = ()
    for number, until in enumerate((0.3, 0.5, 0.7, 0.9)):
        events, _ = await place.run(str(number), until=until, resume_uris=saved, **asked)
        told = [event for event in events if isinstance(event, Checkpoint)]
        assert [number > 0] * len(told) == [each.resumed for each in told]
        saved += parts(events)
    _, out = await place.run("last", resume_uris=saved, **asked)

    assert contents(expected) == contents(out)


async def test_a_run_that_goes_on_in_its_own_folder_replaces_none_of_the_parts_that_it_goes_on_from(place: Place) -> None:
    asked = REQUESTS["pinkness"]
    _, expected = await place.run("whole", **asked)
    saved: list[str] = []
    for until in (0.3, 0.6, 0.9):
        earlier = {uri: Path(uri).read_bytes() for uri in saved}
        events, _ = await place.run("again", until=until, resume_uris=tuple(saved), **asked)
        told = [event for event in events if isinstance(event, Checkpoint)]
        assert list(range(1, len(told) + 1)) == [each.part for each in told]
        # Whoever comes next finds them in the folder, those of which nobody was told any more too.
        saved = sorted(str(path) for path in (place.folder / "out" / "again" / "checkpoint").glob("*.part"))
        assert [] == [each.uri for each in told if each.uri not in saved or each.uri <= max(earlier, default="")]
        assert earlier == {uri: Path(uri).read_bytes() for uri in earlier}
    events, out = await place.run("again", resume_uris=tuple(saved), **asked)

    assert result_of(events).tiles_resumed >= 0.9 * result_of(events).tiles_analyzed
    assert contents(expected) == contents(out)


@pytest.mark.parametrize("spelled", ["{}//out/cut", "{}/out/./cut", "{}/link/cut", "file://{}/%6Fut/cut"])
async def test_parts_in_ones_own_folder_are_not_replaced_however_their_place_is_spelled(small_place: Place, spelled: str) -> None:
    asked = REQUESTS["pinkness"]
    cut, _ = await small_place.run("cut", until=0.6, **asked)
    (small_place.folder / "link").symlink_to(small_place.folder / "out")
    earlier = {uri: Path(uri).read_bytes() for uri in parts(cut)}
    uris = tuple(f"{spelled.format(small_place.folder)}/checkpoint/{Path(uri).name}" for uri in parts(cut))
    resumed, _ = await small_place.run("cut", resume_uris=uris, **asked)

    assert result_of(resumed).tiles_resumed > 0
    assert len(parts(cut)) + 1 == int(Path(parts(resumed)[0]).stem)
    assert earlier == {uri: Path(uri).read_bytes() for uri in earlier}


async def test_progress_goes_on_where_it_was(place: Place) -> None:
    cut, _ = await place.run("cut", until=0.6, tile_size=64)
    resumed, _ = await place.run("resumed", resume_uris=parts(cut), tile_size=64)

    told = [event for event in resumed if getattr(event, "stage", "") == "tiles"]
    assert told[0].tiles_done >= 0.6 * told[0].tiles_total


def _another_slide(place: Place) -> None:
    os.utime(place.slide, (1, 1))


def _another_model(place: Place) -> None:
    path = place.models / "pinkness" / "slide.json"
    path.write_text(path.read_text().replace('"mpp": 0.5', '"mpp": 0.5, "std": [1, 1, 2]'))


@pytest.mark.parametrize("change", [_another_slide, _another_model])
async def test_what_does_not_fit_is_not_gone_on_with_and_that_is_told(small_place: Place, change: Any) -> None:
    cut, _ = await small_place.run("cut", until=0.6, **REQUESTS["pinkness"])
    change(small_place)
    resumed, out = await small_place.run("resumed", resume_uris=parts(cut), **REQUESTS["pinkness"])
    _, expected = await small_place.run("fresh", **REQUESTS["pinkness"])

    assert 0 == result_of(resumed).tiles_resumed
    assert re.search("^it was saved for another state of the slide", result_of(resumed).resume_refused)
    assert not any(event.resumed for event in resumed if isinstance(event, Checkpoint))
    assert contents(expected) == contents(out)


def _missing(path: Path) -> None:
    path.unlink()


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def _told_before(path: str, saved: dict[str, checkpoints.Part]) -> None:
    """Have one part tell of all stored tiles that are damaged, as one does that was saved when they had just been read."""
    damaged = [place for part in saved.values() for place in part.unreadable]
    assert len(damaged) == 2
    for each, part in saved.items():
        read = [place for place in part.read if place not in damaged]
        told = damaged if each == path else []
        Path(each).write_bytes(checkpoints.pack(dataclasses.replace(part, read=[*read, *told], unreadable=told)))


@pytest.mark.parametrize(
    ("lost", "lose", "reason"),
    [
        ("the survey", _missing, "does not exist"),
        ("some tiles", _missing, "does not exist"),
        ("some tiles", _cut_short, "is cut short"),
        ("some tiles", _flipped, "cannot be read|is cut short"),
        ("what was read ahead", _missing, "does not exist"),
    ],
)
async def test_a_part_that_is_lost_costs_its_own_tiles_and_no_others(place: Place, lost: str, lose: Any, reason: str) -> None:
    # Of an overlay all of the slide is read again.
    asked = REQUESTS["pinkness"] | {"artifacts": ("tiles.parquet", "heatmap.png", "detections.geojson.gz")}
    place.slide = place.inputs / "pyramid.svs"
    whole, expected = await place.run("whole", **asked)
    cut, _ = await place.run("cut", until=0.6, **asked)
    saved = {path: checkpoints.unpack(Path(path).read_bytes()) for path in parts(cut)}
    surveyed, *others = saved
    path = surveyed if lost == "the survey" else others[2]
    if lost == "what was read ahead":
        _told_before(path, {path: saved[path] for path in others})
    lose(Path(path))
    resumed, out = await place.run("resumed", resume_uris=tuple(saved), **asked)

    assert contents(expected) == contents(out)
    batches = [number for each, part in saved.items() if each != path for number in part.batches]
    assert len(set(batches)) == len(batches) > 0
    told = result_of(resumed)
    # Calls are of three tiles each, but the last.
    tiles = sum(min(told.tiles_analyzed - 3 * number, 3) for number in batches)
    assert tiles == told.tiles_resumed == told.tiles_analyzed - place.calls[-1]
    assert 2 == result_of(whole).tiles_skipped == told.tiles_skipped
    assert re.search(rf"^1 of {len(saved)} parts were not taken up.*({reason})", told.resume_refused)
    assert all(event.resumed for event in resumed if isinstance(event, Checkpoint))


@pytest.mark.parametrize("analysis", sorted(REQUESTS))
async def test_what_is_computed_for_lost_parts_is_saved_with_a_survey_for_whoever_goes_on(place: Place, analysis: str) -> None:
    asked = REQUESTS[analysis]
    _, expected = await place.run("whole", **asked)
    cut, _ = await place.run("cut", until=0.4, **asked)
    # No survey is left.
    kept = parts(cut)[3:]
    resumed, _ = await place.run("resumed", until=0.7, resume_uris=kept, **asked)
    last, out = await place.run("last", resume_uris=kept + parts(resumed), **asked)

    assert contents(expected) == contents(out)
    assert "" == result_of(last).resume_refused
    assert 0.7 * result_of(last).tiles_analyzed <= result_of(last).tiles_resumed


async def test_parts_of_another_model_among_those_of_this_one_cost_their_own_tiles(place: Place) -> None:
    asked = REQUESTS["pinkness"]
    _, expected = await place.run("whole", **asked)
    ours, _ = await place.run("ours", share=Share(index=0, count=2), **asked)
    path = place.models / "pinkness" / "slide.json"
    kept = path.read_text()
    _another_model(place)
    theirs, _ = await place.run("theirs", share=Share(index=1, count=2), **asked)
    path.write_text(kept)
    merged, out = await place.run("merged", resume_uris=parts(theirs) + parts(ours), **asked)

    assert contents(expected) == contents(out)
    assert result_of(ours).tiles_analyzed == result_of(merged).tiles_resumed
    assert re.search(rf"^{len(parts(theirs))} of {len(parts(theirs) + parts(ours))} parts", result_of(merged).resume_refused)


async def test_a_part_that_is_sent_empty_is_missing_and_what_it_alone_told_of_is_found_again(place: Place) -> None:
    asked = REQUESTS["pinkness"] | {"artifacts": ("tiles.parquet",)}
    place.slide = place.inputs / "pyramid.svs"
    cut, _ = await place.run("cut", until=0.6, **asked)
    surveyed, *others = parts(cut)
    _told_before(others[2], {path: checkpoints.unpack(Path(path).read_bytes()) for path in others})
    sent = tuple(b"" if path == others[2] else Path(path).read_bytes() for path in (surveyed, *others))
    resumed, _ = await place.run("resumed", output_uri="", resume_parts=sent, **asked)

    assert 2 == result_of(resumed).tiles_skipped
    assert re.search(rf"^1 of {len(sent)} parts were not taken up.*is missing", result_of(resumed).resume_refused)


async def test_parts_of_which_none_fits_the_slide_start_the_analysis_over(small_place: Place) -> None:
    asked = REQUESTS["pinkness"]
    cut, _ = await small_place.run("cut", until=0.6, **asked)
    for path in map(Path, parts(cut)):
        part = checkpoints.unpack(path.read_bytes())
        beyond = tuple(number + 100_000 for number in part.batches) or (100_000,)
        engines = part.engines or ("other:float32",)
        path.write_bytes(checkpoints.pack(dataclasses.replace(part, batches=beyond, engines=engines)))
    resumed, out = await small_place.run("resumed", resume_uris=parts(cut), **asked)
    _, expected = await small_place.run("fresh", **asked)

    assert (0, "it does not fit the slide") == (result_of(resumed).tiles_resumed, result_of(resumed).resume_refused)
    # Nobody is told to keep what is of no use, and the survey is saved anew.
    assert not any(event.resumed for event in resumed if isinstance(event, Checkpoint))
    assert checkpoints.unpack(Path(parts(resumed)[0]).read_bytes()).cells is not None
    assert contents(expected) == contents(out)


async def test_other_parameters_start_over(small_place: Place) -> None:
    cut, _ = await small_place.run("cut", until=0.6, tile_size=64)
    resumed, _ = await small_place.run("resumed", resume_uris=parts(cut), tile_size=128)

    assert "another state" in result_of(resumed).resume_refused


async def test_parts_outside_of_the_output_roots_are_not_read(small_place: Place) -> None:
    resumed, _ = await small_place.run("resumed", resume_uris=(str(small_place.slide),), tile_size=64)

    assert "may not be written" in result_of(resumed).resume_refused


@pytest.mark.parametrize("content", [b"", b"no part", b"x\x9c\x03\x00\x00\x00\x00\x01", np.random.default_rng(1).bytes(4096)])
async def test_bytes_that_are_no_part_are_refused(small_place: Place, content: bytes) -> None:
    resumed, _ = await small_place.run("resumed", output_uri="", resume_parts=(content,), tile_size=64)

    assert "of the checkpoint" in result_of(resumed).resume_refused


async def test_without_being_asked_nothing_is_saved(small_place: Place) -> None:
    events, out = await small_place.run("plain", checkpoints=False, tile_size=64)

    assert not [event for event in events if isinstance(event, Checkpoint)]
    assert not (out / "checkpoint").exists()
