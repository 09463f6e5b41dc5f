"""What tells a caller that the server has begun, and that a status is its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from lamina.v1 import slides_pb2, slides_pb2_grpc

from inference_server.errors import Unavailable
from inference_server.tasks.slides.analysis import SlideAnalyzer
from tests.support.inference_server.running_application import running_application

ASKED = (("lamina-tell-begin", "1"),)


@pytest.fixture
async def slides(tmp_path: Path) -> AsyncIterator[slides_pb2_grpc.SlideServiceStub]:
    (tmp_path / "models").mkdir()
    async with (
        running_application(tmp_path / "models", tmp_path, services="slides") as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        yield slides_pb2_grpc.SlideServiceStub(channel)


async def failure(slides: slides_pb2_grpc.SlideServiceStub, metadata: tuple[tuple[str, str], ...]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await slides.GetSlideInfo(slides_pb2.GetSlideInfoRequest(slide_uri="missing.svs"), metadata=metadata)
    return raised.value


async def test_only_a_caller_that_asks_is_told_that_the_work_begins(slides: slides_pb2_grpc.SlideServiceStub) -> None:
    told = [dict(found.initial_metadata() or ()) for found in (await failure(slides, ASKED), await failure(slides, ()))]

    assert ["lamina-begun" in each for each in told] == [True, False]


async def test_an_unavailable_of_the_servers_own_says_so_and_other_statuses_do_not(
    slides: slides_pb2_grpc.SlideServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await failure(slides, ASKED)

    async def away(*_: object) -> None:
        raise Unavailable("the storage does not answer.")

    monkeypatch.setattr(SlideAnalyzer, "info", away)
    own = await failure(slides, ASKED)

    assert grpc.StatusCode.UNAVAILABLE is own.code()
    assert "lamina-own-status" in dict(own.trailing_metadata() or ())
    assert "lamina-own-status" not in dict(other.trailing_metadata() or ())
