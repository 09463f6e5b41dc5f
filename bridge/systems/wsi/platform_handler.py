"""The worker behind the platform: slides out of its bucket, results into it, answers as its own worker gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import structlog

from bridge.errors import NotYetError, PermanentError, RefusedError
from bridge.job import Delivery, Job, Outcome
from bridge.results import ResultFolder, ResultStore
from bridge.systems.port import Context
from bridge.systems.wsi import platform_messages
from bridge.systems.wsi.checkpoints import Found
from bridge.systems.wsi.handler import SlideHandler
from bridge.systems.wsi.platform_messages import AnswerNames
from bridge.systems.wsi.refusals import Refusals

_log = structlog.get_logger()
_REPORT = "analysis.json"
# Where the platform keeps its slides.
_SLIDES = "wsi/"


class RequestedSlideHandler:
    """Has the platform's slides analysed.

    What a try finds lies under `results/{tenant}/{upload}/{job}/{fence}/`, so that a stale worker overwrites nothing; the event names
    the `analysis.json` there. Copies of all lie at the platform's own place, `results/{tenant}/{upload}/analysis.json`, as the newest.
    """

    def __init__(
        self, *, slides: SlideHandler, bucket: ResultStore, names: AnswerNames | None = None, asked: Mapping[str, Any] | None = None
    ) -> None:
        """`bucket`: opened at its root; the server must reach it under the same URL.

        `asked`: how all its slides are analysed, as fields of `SlideRequest`; nothing for the server's defaults.
        """
        self._slides = slides
        self._bucket = bucket
        self._names = names or AnswerNames()
        self._asked = dict(asked or {})
        self._refusals = Refusals()

    @property
    def system(self) -> str:
        """Its name."""
        return platform_messages.SYSTEM

    def recognises(self, delivery: Delivery) -> bool:
        """Whether a message is in the platform's form."""
        return platform_messages.is_request(delivery)

    def parse(self, delivery: Delivery) -> Job:
        """Read a message. Raises `PoisonError`."""
        return platform_messages.job_of(delivery)

    async def handle(self, job: Job, context: Context) -> Outcome:
        """Analyse the slide. Raises `TransientError`, `OverloadError`, `NotYetError`, `PermanentError`, `ConfigurationError`."""
        request = platform_messages.request_of(job)
        if not await self._bucket.holds(request.s3key):
            raise _missing(request)
        place = f"results/{request.tenantid}/{request.uploadid}"
        slide = {**self._asked, "slide_uri": f"{self._bucket.root}/{quote(request.s3key)}"}

        def folder_of(fence: int) -> ResultFolder:
            return self._bucket.folder_at(f"{place}/{job.key}/{fence}")

        try:
            found = await self._slides.analyze_into(folder_of, replace(job, request=slide), context)
        except PermanentError as error:
            # Taken away since.
            if not await self._bucket.holds(request.s3key):
                raise _missing(request) from error
            refused = isinstance(error, RefusedError) and request.s3key.startswith(_SLIDES)
            if refused and not self._refusals.is_for_good(job.key):
                raise _refused(error, self._refusals.wait_seconds(job.key)) from error
            raise
        if found.fence == context.claim.fence:
            self._refusals.done(job.key)
        await self._publish(found, folder_of(found.fence), self._bucket.folder_at(place))
        key = f"{place}/{job.key}/{found.fence}/{_REPORT}"
        kept = {**found.result, "upload_id": str(request.uploadid), "result_s3_key": key}
        return Outcome(succeeded=True, result=kept, events=platform_messages.completed(job, key, self._names))

    async def _publish(self, found: Found, folder: ResultFolder, known: ResultFolder) -> None:
        """Copy all files to where readers look who know only the upload; the report comes last, when the others are there."""
        names = [str(artifact["name"]) for artifact in found.result["artifacts"]]
        for name in sorted(names, key=lambda name: name == _REPORT):
            await folder.copy(name, known)

    def failure(self, job: Job, reason: str) -> Outcome:
        """The outcome of a slide that is given up."""
        result = {"error": "the slide could not be analysed", "reason": reason}
        return Outcome(succeeded=False, result=result, events=platform_messages.failed(job, reason, self._names))


def _refused(error: PermanentError, seconds: float) -> NotYetError:
    """What makes a slide wait that the server may not read, or whose result it may not write.

    We have just seen it where the platform keeps its slides: whoever set the server up is at fault, and a failed event is for ever. Only
    where other slides are done meanwhile is it the slide, such as one with a key or a tag of its own, and somebody waits for an answer.
    """
    _log.warning("server_may_not", reason=str(error), retry_in=seconds)
    return NotYetError(f"waits until the inference server may read slides and write results: {error}", retry_after=seconds)


def _missing(request: platform_messages.AnalysisRequest) -> PermanentError:
    return PermanentError(f"S3 object not found. The key is {request.s3key}")
