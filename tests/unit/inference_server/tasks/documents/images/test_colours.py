"""Whether a page has colours."""

from __future__ import annotations

import numpy as np

from inference_server.tasks.documents.detection.detector import DetectionSettings, detector_input
from inference_server.tasks.documents.images.colours import grey_of

GREY = np.random.default_rng(1).integers(0, 256, (300, 400), np.uint8)


def page() -> np.ndarray:
    return np.repeat(GREY[:, :, None], 3, axis=2)


def test_a_page_whose_channels_are_the_same_is_grey() -> None:
    np.testing.assert_array_equal(GREY, grey_of(page()))


def test_one_coloured_pixel_in_any_channel_makes_a_page_coloured() -> None:
    for channel in range(3):
        coloured = page()
        coloured[299, 399, channel] ^= 1
        assert grey_of(coloured) is None


def test_a_grey_page_is_given_to_the_detector_as_a_coloured_one_is() -> None:
    coloured = page()
    coloured[0, 0] = 0, 0, 1
    grey = page()
    grey[0, 0] = 0
    settings = DetectionSettings()
    one, other = detector_input(grey, settings), detector_input(coloured, settings)
    assert (one.scale, one.extent, one.origin) == (other.scale, other.extent, other.origin)
    assert (1, 3) == one.tensor.shape[:2]
    np.testing.assert_allclose(one.tensor, other.tensor, atol=1.01 / 127.5)
    np.testing.assert_array_equal(one.tensor[:, :, 8:, 8:], other.tensor[:, :, 8:, 8:])
