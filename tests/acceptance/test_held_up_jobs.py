"""A bridge's client and a server one of whose models does not serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import HeldUpError
from bridge.inference.client import InferenceClient
from bridge.inference.slides import SlideOptions, SlideResult
from tests.support.inference_server.running_application import running_application
from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.tile_models import write_classifier

PICTURE = paint(320, 320, tissue=(0, 0, 320, 320), nuclei=scattered(20, within=(20, 20, 300, 300), apart=25), noise=2.0)


async def test_a_slide_whose_model_is_broken_waits_and_the_server_stays_in_use_for_others(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_classifier(models, mpp=0.5)
    write_classifier(models, "tumour", mpp=0.5)
    (models / "tumour" / "1" / "model.onnx").write_bytes(b"no model")
    write_svs(tmp_path / "slide.svs", PICTURE)

    async def analysed(client: InferenceClient, analysis: str) -> object:
        options = SlideOptions(analysis=analysis)
        return [event async for event in client.analyze_slide(str(tmp_path / "slide.svs"), request_id=analysis, options=options)][-1]

    async with (
        running_application(models, tmp_path, read_roots=(str(tmp_path),)) as application,
        InferenceClient(application.grpc.address) as client,
    ):
        assert await client.server_ready()
        with pytest.raises(HeldUpError, match="model tumour could not be loaded"):
            await analysed(client, "tumour")
        assert {"serving": 1} == {standing: count for standing, count in client.standings().items() if count}
        assert isinstance(await analysed(client, "pinkness"), SlideResult)
