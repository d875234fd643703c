"""The images of a data set in their own size, read again when they are asked for."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nbs_env.common.errors import DataError, DataWarning
from nbs_env.data.images import read_image


@dataclass(frozen=True)
class Original:
    """An image file, and its truth in few bytes."""

    file: Path
    """The image's."""
    size: tuple[int, int]
    """Height and width."""
    truth: bytes
    """Of `mask`, compressed; empty where it is not known, or nothing is anomalous."""

    @classmethod
    def of(cls, file: Path, size: tuple[int, int], truth: NDArray[np.bool_] | None) -> Original:
        """Keep the truth `(h, w)` of an image of this size."""
        if truth is None or not truth.any():
            return cls(file, size, b"")
        return cls(file, size, zlib.compress(np.packbits(truth).tobytes(), 1))

    def image(self, white: int) -> NDArray[np.uint8]:
        """RGB `(h, w, 3)`; `white` is the level of 16-bit files that becomes 255.

        Raises:
            DataError: If the file is no longer what it was.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # said when it was read first
            image = read_image(self.file, None if white == 255 else white)
        if image.shape[:2] != self.size:
            raise DataError(f"{self.file}: another size than when it was read first; leave the files alone")
        return image

    def mask(self) -> NDArray[np.bool_]:
        """Where it is known to be anomalous, `(h, w)`."""
        height, width = self.size
        if not self.truth:
            return np.zeros(self.size, np.bool_)
        bits = np.frombuffer(zlib.decompress(self.truth), np.uint8)
        return np.unpackbits(bits, count=height * width).reshape(self.size).astype(np.bool_)
