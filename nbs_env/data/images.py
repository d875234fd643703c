"""Image files, and the one rule by which images and masks of any size become square."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nbs_env.data.dataset import DataError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes, in lower case, of the files that are taken for images."""
MASK_SHARE = 0.25
"""A pixel of a resized mask is anomalous where at least this share of its source area is."""
MASK_THRESHOLD = 127
"""A pixel of a mask file is anomalous above this value, unless the file holds only 0 and 1."""


def image_files(directory: Path) -> list[Path]:
    """List the image files of a directory, sorted by name; hidden files and subdirectories are skipped.

    Raises:
        DataError: If the directory is missing or holds no image file.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; expected one with image files")
    files = sorted(
        path
        for path in directory.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not files:
        raise DataError(f"{directory}: no image file in this directory; expected {', '.join(SUFFIXES)}")
    return files


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file as RGB `(h, w, 3)`, turned upright as its EXIF data says.

    Grey is replicated, transparency dropped, 16-bit grey mapped from 0..65535 to 0..255.

    Raises:
        DataError: If the file is missing, no image, damaged, or neither 8 nor 16 bit.
    """
    return _to_rgb(_open(path), str(path))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask file as `(h, w)`: True above `MASK_THRESHOLD` of 255, or at 1 if there are only 0 and 1.

    Raises:
        DataError: As `read_image` does, or if it holds other values, but none above `MASK_THRESHOLD`.
    """
    picture = _open(path)
    rgb = _to_rgb(picture, str(path))
    one_channel = picture.mode in ("1", "L", "P") or picture.mode.startswith("I")
    values = np.asarray(picture) if one_channel else rgb  # a palette's indices: many 0/1 masks have one
    if values.max() <= 1:
        return values.reshape(*rgb.shape[:2], -1).max(axis=2) == 1
    mask = rgb.max(axis=2) > MASK_THRESHOLD
    if not mask.any():
        raise DataError(
            f"{path}: a mask with values up to {values.max()}; write 255 where it is anomalous, or 1 in a "
            "file of 0 and 1"
        )
    return mask


def resize_image(image: NDArray[np.uint8] | NDArray[np.uint16] | Image.Image, size: int) -> NDArray[np.uint8]:
    """Make an image square: the rule for training images and for new images alike.

    Each side is resampled on its own (bicubic, anti-aliased where it shrinks), so the aspect ratio is not
    kept, as in the thesis (4.1). An image that has the size already is returned pixel for pixel.

    Args:
        image: `(h, w)`, `(h, w, 1)` or `(h, w, 3)`, uint8 or uint16 (0..65535 becomes 0..255), or a picture.
        size: Side of the result in pixels.

    Returns:
        RGB `(size, size, 3)`, a fresh array.

    Raises:
        DataError: If the array has another shape or dtype.
    """
    rgb = _to_rgb(image, "image") if isinstance(image, Image.Image) else _array_to_rgb(image)
    if rgb.shape[:2] == (size, size):
        return rgb.copy()
    return np.array(Image.fromarray(rgb).resize((size, size), Image.Resampling.BICUBIC))


def resize_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Make a mask square: True where at least `MASK_SHARE` of a pixel's source area is anomalous.

    The share is the exact area average. Thin cracks vanish if single pixels are picked instead.

    Args:
        mask: `(h, w)`.
        size: Side of the result in pixels.

    Returns:
        `(size, size)`, a fresh array.
    """
    height, width = mask.shape
    # Areas in units of 1/size^2 of a source pixel are whole numbers, which float64 holds exactly.
    area = _overlap(height, size) @ mask.astype(np.float64) @ _overlap(width, size).T
    return area >= MASK_SHARE * height * width


def _overlap(source: int, target: int) -> NDArray[np.float64]:
    """Length, in 1/target of a source pixel, that pixels of two grids on one line share: (target, source)."""
    begin = np.maximum(np.arange(target)[:, None] * source, np.arange(source)[None] * target)
    end = np.minimum(np.arange(1, target + 1)[:, None] * source, np.arange(1, source + 1)[None] * target)
    return np.maximum(end - begin, 0).astype(np.float64)


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings(), Image.open(path) as picture:
            warnings.simplefilter("ignore")
            picture.load()
            return ImageOps.exif_transpose(picture)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected an image") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).replace(str(path), "the file").rstrip(".") or type(error).__name__
        raise DataError(f"{path}: not a readable image ({reason}); replace or remove it") from error


def _to_rgb(picture: Image.Image, what: str) -> NDArray[np.uint8]:
    if picture.mode == "F":
        raise DataError(f"{what}: a floating-point image; convert it to 8 or 16 bit")
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{what}: values {values.min()}..{values.max()}; convert it to 8 or 16 bit")
        return _array_to_rgb(values.astype(np.uint16))
    return np.array(picture.convert("RGB"))


def _array_to_rgb(array: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or array.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"an image is {array.dtype} {array.shape}; "
            "expected uint8 or uint16 of shape (h, w), (h, w, 1) or (h, w, 3)"
        )
    if array.dtype == np.uint16:
        array = np.round(array / 257).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)), dtype=np.uint8)
