"""How a network sees a pixel: each of a channel's 256 levels is normalised once, and looked up from then on."""

from __future__ import annotations

import cv2
import numpy as np

from inference_server.engine.port import Tensor
from inference_server.errors import ConfigurationError
from inference_server.tasks.slides.kinds.blocks import Blocks
from inference_server.tasks.slides.manifest import FILE, TileManifest
from inference_server.tasks.slides.values import Pixels

# Types of as many bytes that OpenCV's look-up copies, whatever they mean to us.
_COPIED = {1: np.uint8, 2: np.uint16, 4: np.int32, 8: np.float64}


class Levels:
    """The values of all levels, as a manifest scales and normalises them."""

    def __init__(self, manifest: TileManifest, dtype: np.dtype[np.generic], *, model: str) -> None:
        """`dtype`: of the network's input; `model`: named in errors. Raises `ConfigurationError` where it cannot hold the values."""
        scaled = np.arange(256, dtype=np.float32)[:, None] * np.float32(manifest.scale)
        with np.errstate(over="ignore", invalid="ignore"):
            exact = (scaled - np.array(manifest.mean, np.float32)) / np.array(manifest.std, np.float32)
            values = exact.astype(dtype)
        if not (values == exact if np.issubdtype(dtype, np.integer) else np.isfinite(values)).all():
            raise ConfigurationError(
                f"{model} takes {dtype.name}, which does not hold pixels as scale, mean and std of its {FILE} make them: "
                f"{exact.min():g} to {exact.max():g}. A network of whole numbers needs a scale of 1; or export it so that it takes float32."
            )
        self._dtype = dtype
        self._blocks = Blocks()
        self._copied = np.dtype(_COPIED[dtype.itemsize])
        # [level, 1, channel], and the same by channel.
        self._table = values.view(self._copied)[:, None, :]
        self._tables = [np.ascontiguousarray(self._table[..., channel]) for channel in range(3)]

    def of(self, tiles: Pixels, *, planes: bool) -> Tensor:
        """RGB tiles [count, rows, columns, 3] as the network takes them; `planes`: as [count, 3, rows, columns]."""
        count, rows, columns, _ = tiles.shape
        values = self._blocks.empty((count, 3, rows, columns) if planes else tiles.shape, self._copied)
        for tile, place in zip(tiles, values, strict=True):
            if planes:
                for channel, table, plane in zip(cv2.split(tile), self._tables, place, strict=True):
                    cv2.LUT(channel, table, plane)
            else:
                cv2.LUT(tile, self._table, place)
        return values.view(self._dtype)
