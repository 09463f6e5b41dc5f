"""Tells a server that may read no slide from a slide that no server may read."""

from __future__ import annotations

from dataclasses import dataclass, field

# How long a slide waits that was refused; others are tried meanwhile.
WAIT_SECONDS = 60.0
# Between any two of them another slide was done. Should one server of several be set up wrongly, or all be mended one by one, the slide
# meets one that takes it long before.
_MOST = 30
# Slides that are remembered; where more wait, it is the server.
_MOST_SLIDES = 10_000


@dataclass
class _Refused:
    # How often, others having been done since the time before.
    times: int = 0
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
            return False
        slide = self._slides.setdefault(job_key, _Refused(done=self._done))
        slide.times += self._done > slide.done
        slide.done = self._done
        if slide.times < _MOST:
            return False
        del self._slides[job_key]
        return True
