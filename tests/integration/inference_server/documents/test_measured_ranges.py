"""Ranges of int8 as they are measured for new weights of the text models."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import onnx
import pytest

from inference_server.models.builders import int8_ranges
from inference_server.models.builders.ppocr import DETECTOR, RECOGNIZER, wheel_model
from inference_server.models.shipped import int8_ranges as shipped_ranges
from scripts.measure_int8_ranges import Channels, measured
from tests.support.documents.printed_pages import lab_report_pdf


def test_a_range_holds_what_was_seen_and_some_more() -> None:
    scale = np.array([1, 10, 10, 10], np.float32).reshape(1, 4, 1, 1)
    values = np.random.default_rng(0).normal(size=(2, 4, 30, 20)).astype(np.float32) * scale
    channels = Channels()
    for rows in values:
        channels.add(rows[None])
    least, most, mean = channels.ranges().astype(float)
    seen = values.max((0, 2, 3)) - values.min((0, 2, 3))
    np.testing.assert_allclose(1.1 * seen[1:], (most - least)[1:], rtol=0.01)
    # No narrower than half of the others, about where its values are.
    assert most[0] - least[0] == pytest.approx(np.median(seen) / 2, rel=0.01)
    assert most[0] + least[0] == pytest.approx(values[:, 0].min() + values[:, 0].max(), abs=0.05)
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), atol=0.01)


def test_no_range_goes_below_what_an_activation_gives() -> None:
    channels = Channels()
    channels.add(np.maximum(np.random.default_rng(0).normal(size=(1, 8, 40)), 0).astype(np.float32))
    assert [0.0] * 8 == channels.ranges()[0].tolist()


def test_a_tensor_with_channels_that_never_change_has_ranges_all_the_same() -> None:
    values = np.zeros((1, 8, 40), np.float32)
    values[:, 0] = np.linspace(-1, 1, 40)
    channels = Channels()
    channels.add(values)
    least, most, _ = channels.ranges().astype(float)
    assert (most - least > 0.9).all()


def widths(ranges: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([ranges[tensor][1].astype(float) - ranges[tensor][0] for tensor in ranges if tensor != "weights"])


async def test_what_is_measured_is_written_as_the_builder_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await measured([lab_report_pdf()])
    for name in (DETECTOR, RECOGNIZER):
        source = wheel_model(name)
        content = int8_ranges.packed(source, found[name])
        new, shipped = (dict(np.load(io.BytesIO(each))) for each in (content, shipped_ranges(name)))
        assert {key: (each.shape, each.dtype) for key, each in shipped.items()} == {
            key: (each.shape, each.dtype) for key, each in new.items()
        }
        assert str(shipped["weights"]) == str(new["weights"])
        # Two small pages take somewhat less than many of all kinds.
        assert 0.4 < np.median(widths(new) / widths(shipped)) < 1.2
        monkeypatch.setattr(int8_ranges, "int8_ranges", lambda _, content=content: content)
        served = onnx.ModelProto()
        int8_ranges.tell_ranges(served, source, name)
        assert len(found[name]) == len(served.metadata_props[0].value.splitlines())
