"""The slide system's messages: `{"slide_uri": …, "analysis"?: …, "mpp"?: …, "tile_size"?: …, "artifacts"?: […]}` in our own envelope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from bridge.envelopes import native
from bridge.envelopes.message import Message
from bridge.job import Job
from bridge.systems.locations import Location, absolute

SYSTEM = "wsi"
MOST_SHARES = 64
# The bounds here are the server's, so that what it would refuse is refused before it waits in a queue.
MicrometresPerPixel = Annotated[float, Field(ge=0.05, le=100, allow_inf_nan=False)]
_EXPECTED = '{"slide_uri": "/data/slide.svs"}, with analysis, mpp, tile_size and apply_icc_profile where they are wanted'


class SlideRequest(Message):
    """Asks for one analysis of one slide."""

    # A path or URL under the server's allowed roots.
    slide_uri: Location
    # Empty for the server's default.
    analysis: Annotated[str, Field(max_length=200)] = ""
    # Micrometres per pixel of level 0; overrides what the slide tells.
    mpp: MicrometresPerPixel | None = None
    # The same for a slide that tells none; overrides nothing.
    assumed_mpp: MicrometresPerPixel | None = None
    # Whether colours are brought to sRGB by the slide's ICC profile.
    apply_icc_profile: bool = False
    # Edge of the tiles in pixels; 0 for the analysis' own.
    tile_size: Annotated[int, Field(ge=0, le=4096)] = 0
    # Names of the artifacts that are wanted; empty for all.
    artifacts: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    # Into how many shares the slide is split, each a job of its own; this one merges them.
    shares: Annotated[int, Field(ge=1, le=MOST_SHARES)] = 1
    # Of a share's job: which one it is, from 0, and the job that merges.
    share: Annotated[int, Field(ge=0, lt=MOST_SHARES)] | None = None
    merged_by: Annotated[str, Field(max_length=200)] = ""

    @model_validator(mode="after")
    def _shares_fit(self) -> SlideRequest:
        if self.share is not None and (self.share >= self.shares or not self.merged_by):
            raise ValueError("share is one of shares, and merged_by names the job that merges them")
        return self


def request_message(*, key: str, slide_uri: str, reply_queue: str = "", priority: int = 0, **asked: Any) -> bytes:
    """The message that asks for a slide; `asked`: the other fields of `SlideRequest`.

    A relative path starts at the current folder. Raises `PoisonError`.
    """
    asked = {"slide_uri": absolute(slide_uri), **asked}
    request = native.check_request(SlideRequest, asked, expected=_EXPECTED)
    content = request.model_dump(mode="json", exclude_defaults=True)
    return native.write(Job(key=key, system=SYSTEM, request=content, reply_queue=reply_queue, priority=priority))


def share_messages(*, key: str, shares: int, priority: int = 0, **asked: Any) -> dict[str, bytes]:
    """The messages of the shares of a slide, by their keys, which are the same for the same slide's job. They are sent before its own.

    `asked`: as for its own. Raises `PoisonError`.
    """
    return {
        own: request_message(key=own, priority=priority, shares=shares, share=index, merged_by=key, **asked)
        for index, own in enumerate(share_keys(key, shares) if shares > 1 else ())
    }


def share_keys(key: str, shares: int) -> Sequence[str]:
    """The jobs of the shares of a slide, in their order."""
    return [f"{key}/share/{index}-of-{shares}" for index in range(shares)]


def job_of(body: bytes) -> Job:
    """The job that a message asks for. Raises `PoisonError`."""
    return native.read_job(body, system=SYSTEM, request=SlideRequest, expected=_EXPECTED)


def request_of(job: Job) -> SlideRequest:
    """What a job asks for. Raises `PoisonError`."""
    return native.check_request(SlideRequest, job.request, expected=_EXPECTED)
