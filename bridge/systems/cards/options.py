"""What the settings say about cards."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.systems.cards.review import Gate


@dataclass(frozen=True, kw_only=True)
class CardOptions:
    """How documents are worked on."""

    # Where results are published.
    channel: str = "filot:ocr:gpu:results"
    # Tries after which a document is given up, the last of which may fall back to another engine.
    most_attempts: int = 3
    # Whether another engine may read what the one before it does not: else the GPU alone does, or, where none is to be there, the server.
    falls_back: bool = True
    # Whether a GPU is to read: what it did not is told.
    has_gpu: bool = False
    # What sends a card to a person however it scores.
    gate: Gate = Gate.PICTURES
    # Of reading one document by the server's GPU, and by its CPU, in seconds; the latter by whatever it has where no GPU is to be there.
    gpu_seconds: float = 60.0
    cpu_seconds: float = 300.0
    most_bytes: int = 64 * 1024 * 1024
