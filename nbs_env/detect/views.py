"""The images as the segmenter sees them: squares, or rectangles of their own shape."""

from __future__ import annotations

import numpy as np

from nbs_env.common.errors import ConfigError
from nbs_env.data import AnomalyDataset, resize_image, resize_mask
from nbs_env.detect.config import Size


def working_size(height: int, width: int, size: Size, side: int) -> tuple[int, int]:
    """Height and width that an image is resized to; `side` is that of squares."""
    if size == "square":
        return side, side
    if size == "own":
        return height, width
    longer = max(height, width)
    rows, columns = ((2 * length * size + longer) // (2 * longer) for length in (height, width))
    return max(1, rows), max(1, columns)


class Views:
    """Images and masks at the working size, made when they are asked for.

    Args:
        data: all images.
        size: see `DetectorConfig.segmenter_size`.

    Raises:
        ConfigError: their files are not known, so that there is nothing but squares.
    """

    def __init__(self, data: AnomalyDataset, size: Size) -> None:
        self.data, self.size, self.side = data, size, data.images.shape[1]
        if size != "square" and not data.originals:
            raise ConfigError(f"segmenter_size is {size}; {data.name} is not read from files: choose square")

    def image(self, index: int) -> np.ndarray:
        """RGB (h, w, 3) uint8."""
        if self.size == "square":
            return self.data.images[index]
        return self._resized(self.data.originals[index].image(self.data.white))

    def mask(self, index: int) -> np.ndarray:
        """Mask (h, w) bool."""
        if self.size == "square":
            return self.data.masks[index]
        if not self.data.has_mask[index]:
            return np.zeros(self._shape(self.data.originals[index].size), np.bool_)
        mask = self.data.originals[index].mask()
        return resize_mask(mask, self._shape(mask.shape))

    def good(self, index: int) -> np.ndarray:
        """RGB (h, w, 3) uint8 of one of the images that are known to be good."""
        if self.size == "square":
            return self.data.good[index]
        return self._resized(self.data.good_originals[index].image(self.data.white))

    def _shape(self, size: tuple[int, ...]) -> tuple[int, int]:
        return working_size(size[0], size[1], self.size, self.side)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        return resize_image(image, self._shape(image.shape))
