"""Files of built-in models that this package holds as they are."""

from __future__ import annotations

from importlib import resources


def slide_manifest(name: str) -> bytes:
    """`slide.json` of a built-in analysis of slides."""
    return (resources.files("inference_server.models") / "data" / name / "slide.json").read_bytes()


def int8_ranges(name: str) -> bytes:
    """`int8_ranges.npz` of a built-in model, as `builders/int8_ranges` reads it."""
    return (resources.files("inference_server.models") / "data" / name / "int8_ranges.npz").read_bytes()
