"""Tells a server that may read no slide from a slide that no server may read."""

from __future__ import annotations

from dataclasses import dataclass, field

# How long a slide waits that was refused, at first and after half an hour; others are tried meanwhile. SQS gives a message up after 1000
# receipts, and a server may be set up wrongly over a weekend.
_SOON_SECONDS, _LATER_SECONDS = 60.0, 300.0
_SOON_TIMES = 30
# Between any two of them another slide was done. Should one server of several be set up wrongly, or all be mended one by one, the slide
# meets one that takes it long before.
_MOST = 30
# Slides that are remembered, the newest: some of them end elsewhere.
_MOST_SLIDES = 10_000


@dataclass
class _Refused:
    times: int = 0
    # How often, others having been done since the time before.
    alone: int = 0
    # Slides that were done when it was refused last.
    done: int = 0


@dataclass
class Refusals:
    """Counts how often each slide was refused by the inference server while others were done; of one bridge, since it started."""

    _done: int = 0
    _slides: dict[str, _Refused] = field(default_factory=dict)

    def done(self, job_key: str) -> None:
        """A slide was read, and its result written."""
        self._done += 1
        self._slides.pop(job_key, None)

    def is_for_good(self, job_key: str) -> bool:
        """Count a refusal; whether it is the slide's own, since others are done all the while. What no server is let do says nothing."""
        if job_key not in self._slides and len(self._slides) >= _MOST_SLIDES:
            del self._slides[next(iter(self._slides))]
        slide = self._slides.setdefault(job_key, _Refused(done=self._done))
        slide.times += 1
        slide.alone += self._done > slide.done
        slide.done = self._done
        if slide.alone < _MOST:
            return False
        del self._slides[job_key]
        return True

    def wait_seconds(self, job_key: str) -> float:
        """How long a slide waits that was refused."""
        slide = self._slides.get(job_key)
        return _SOON_SECONDS if slide and slide.times <= _SOON_TIMES else _LATER_SECONDS
