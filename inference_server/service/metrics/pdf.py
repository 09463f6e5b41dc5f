"""The processes that read PDFs, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from inference_server.tasks.documents.pdf.process import Reason


class PdfMetrics:
    """How many there are, and why others have ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = Gauge("lamina_pdf_processes", "Processes that read PDFs.", registry=registry)
        self._ended = Counter("lamina_pdf_process_ends", "Processes for PDFs that ended, by why.", ("reason",), registry=registry)
        for reason in Reason:
            self._ended.labels(reason)

    def watch(self, count: Callable[[], int]) -> None:
        """`count`: how many there are now."""
        self._count.set_function(count)

    def ended(self, reason: str) -> None:
        """One ended."""
        self._ended.labels(reason).inc()
