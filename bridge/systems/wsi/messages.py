"""The slide system's messages: `{"slide_uri": …, "analysis"?: …, "mpp"?: …, "tile_size"?: …}` in our own envelope."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bridge.envelopes import native
from bridge.job import Job
from bridge.systems.locations import Location, absolute

SYSTEM = "wsi"
_EXPECTED = '{"slide_uri": "/data/slide.svs"}, with analysis, mpp and tile_size where they are wanted'


class SlideRequest(BaseModel):
    """Asks for one analysis of one slide."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # A path or URL under the server's allowed roots.
    slide_uri: Location
    # Empty for the server's default.
    analysis: Annotated[str, Field(max_length=200)] = ""
    # Micrometres per pixel of level 0; overrides what the slide tells.
    mpp: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = None
    # Edge of the tiles in pixels; 0 for the analysis' own.
    tile_size: Annotated[int, Field(ge=0, le=8192)] = 0


def request_message(
    *, key: str, slide_uri: str, analysis: str = "", mpp: float | None = None, tile_size: int = 0, reply_queue: str = "", priority: int = 0
) -> bytes:
    """The message that asks for a slide. A relative path starts at the current folder. Raises `PoisonError`."""
    asked = {"slide_uri": absolute(slide_uri), "analysis": analysis, "mpp": mpp, "tile_size": tile_size}
    request = native.check_request(SlideRequest, asked, expected=_EXPECTED)
    content = request.model_dump(mode="json", exclude_defaults=True)
    return native.write(Job(key=key, system=SYSTEM, request=content, reply_queue=reply_queue, priority=priority))


def job_of(body: bytes) -> Job:
    """The job that a message asks for. Raises `PoisonError`."""
    return native.read_job(body, system=SYSTEM, request=SlideRequest, expected=_EXPECTED)


def request_of(job: Job) -> SlideRequest:
    """What a job asks for. Raises `PoisonError`."""
    return native.check_request(SlideRequest, job.request, expected=_EXPECTED)
