"""What is found does not depend on how many tiles are called together, nor on how many calls run at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference_server.tasks.slides.kinds import tile_model
from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.tile_models import write_classifier, write_embedder, write_head, write_segmenter
from tests.support.slides.written_files import contents

PICTURE = paint(900, 700, tissue=(30, 30, 860, 650), nuclei=scattered(120, within=(50, 50, 840, 630), apart=25), noise=2.0)


MACENKO, REINHARD = {"method": "macenko"}, {"method": "reinhard", "estimate": "tile"}


@pytest.mark.parametrize(("analysis", "stain"), [("pinkness", None), ("colours", MACENKO), ("judge", REINHARD), ("stains", MACENKO)])
async def test_every_file_is_the_same_for_any_batch(
    analyses_with: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, analysis: str, stain: Any
) -> None:
    models = tmp_path / "models"
    for write in (write_classifier, write_embedder, write_segmenter):
        write(models, mpp=0.5, stain=stain)
    write_head(models)
    slide = write_svs(tmp_path / "slide.svs", PICTURE)
    found = []
    for tiles, calls in ((1, 1), (7, 4), (32, 2)):
        monkeypatch.setattr(tile_model, "_PIXELS_A_CALL", tiles * 64 * 64)
        run = await analyses_with(models, calls_in_flight=calls).run(slide, analysis=analysis)
        found.append(contents(run.folder))
    assert found[0] == found[1] == found[2]
