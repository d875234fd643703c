"""Image files, and the one rule by which images and masks of any size become square."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nbs_env.common.errors import DataError, DataWarning

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that Pillow may try, whatever a file's suffix is. Others run programs (EPS) or are no pictures."""
ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held, from 1 (upright) to 8."""
MASK_SHARE = 0.25
"""A pixel of a resized mask is anomalous where at least this share of its source area is."""
WHITE_12, WHITE_16 = 4095, 65535
"""The highest level of 12 and of 16 bit."""
UNTURNED = "damaged EXIF data, so it is read as stored, not turned; check that it is upright"

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """A decoded file."""

    name: str
    """For messages."""
    pixels: Image.Image
    """Upright, as the EXIF data says."""
    orientation: int | None
    """The EXIF tag, 1 to 8, 1 being upright already; None if there is none, or it cannot be read."""
    exif_damaged: bool
    """Whether there may be an orientation that cannot be read."""
    format: str
    """Pillow's name of the format."""
    pages: int
    """Pages or frames; `pixels` is the first."""
    cut: bool
    """Whether Pillow cut 16-bit colours to 8 bit."""

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height in the file, before it was turned upright."""
        width, height = self.pixels.size
        return (height, width) if (self.orientation or 1) >= 5 else (width, height)


def decode(source: Path | IO[bytes], name: str) -> Picture:
    """Decode an image file.

    Args:
        source: The file.
        name: What messages call it.

    Raises:
        DataError: If the file is missing, no image, too large or damaged.
    """
    try:
        with warnings.catch_warnings(), Image.open(source, formats=FORMATS) as picture:
            warnings.simplefilter("ignore")
            pages = getattr(picture, "n_frames", 1)
            raw_mode = str(picture.tile[0][3]) if picture.tile else ""
            # Pillow turns a TIFF upright itself and then forgets the tag; a PNG's may come after the pixels.
            orientation, damaged = _orientation(picture) if picture.format == "TIFF" else (None, False)
            picture.load()
            upright: Image.Image = picture
            if picture.format != "TIFF":
                orientation, damaged = _orientation(picture)
                if orientation in _TURNS:
                    upright = picture.transpose(_TURNS[orientation])
            elif picture.mode.startswith("I;16") and picture.tag_v2.get(262) == 0:
                raise DataError(f"{name}: a 16-bit TIFF in which 0 is white; save it with 0 as black")
            cut = any(depth in raw_mode for depth in (";16B", ";16L", ";16N")) and picture.mode[0] != "I"
            return Picture(name, upright, orientation, damaged, picture.format, pages, cut)
    except DataError:
        raise
    except FileNotFoundError:
        link = isinstance(source, Path) and source.is_symlink()
        lacking = "a link to a file that is not there; mount or copy it" if link else "no such file"
        raise DataError(f"{name}: {lacking}; expected an image") from None
    except (MemoryError, Image.DecompressionBombError):
        raise DataError(f"{name}: too large an image to be read at once; cut it into tiles") from None
    except Exception as error:
        # Pillow's decoders raise nearly anything on a damaged file: OSError, SyntaxError, struct.error,
        # zlib.error, TypeError, OverflowError, KeyError and more.
        text = " ".join(str(error).replace(name, "the file").split()).rstrip(".")
        reason = text[:200] or type(error).__name__
        raise DataError(f"{name}: not a readable image ({reason}); replace or remove it") from error


def _orientation(picture: Image.Image) -> tuple[int | None, bool]:
    """The EXIF orientation, None if there is none, and whether the EXIF data is damaged where it may be."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # Pillow warns of corrupt EXIF data, or raises nearly anything
        try:
            Image.Exif().load(picture.info.get("exif", b""))  # what went wrong on opening is forgotten
            value: Any = picture.getexif().get(ORIENTATION)
        except Exception:
            return None, True
    valid = isinstance(value, int) and 1 <= value <= 8
    return (value, False) if valid else (None, bool(caught))


def read_image(path: Path, white: int | None = None) -> NDArray[np.uint8]:
    """Read an image file as RGB `(h, w, 3)`, turned upright as its EXIF data says.

    Grey is replicated and transparency dropped. Of a 16-bit grey file the levels from 0 to `white` become 0
    to 255. A photo's second frame (MPO) is left out.

    Args:
        path: The file.
        white: The level that becomes 255; None takes 4095 (12 bit) for a file that has no higher one, with a
            `DataWarning`, and 65535 for others.

    Raises:
        DataError: If the file is missing, no image, damaged, too large, of several pages, neither 8 nor 16
            bit, or has levels above `white`.
    """
    rgb, found, picture = read_with_white(path, white)
    if found == WHITE_12 and white is None:
        message = f"{path}: no level of 16 bit above 4095, so it is read as 12 bit: 0..4095 became 0..255"
        warnings.warn(message, DataWarning, stacklevel=2)
    if picture.exif_damaged:
        warnings.warn(f"{path}: {UNTURNED}", DataWarning, stacklevel=2)
    return rgb


def read_with_white(path: Path, white: int | None = None) -> tuple[NDArray[np.uint8], int, Picture]:
    """Read an image as `read_image` does, without its warnings.

    Returns:
        RGB `(h, w, 3)`; the level that became 255, which is 255 for 8 bit and for a file that is all black;
        and the file.

    Raises:
        DataError: As `read_image` does.
    """
    picture = decode(path, str(path))
    if picture.pages > 1 and picture.format != "MPO":  # MPO: a phone's photo with its depth or brightness
        raise DataError(f"{path}: an image of {picture.pages} pages; save each as a file of its own")
    deep = deep_levels(picture.pixels, str(path))
    if deep is None:
        rgb = to_rgb8(picture.pixels, str(path))
        if picture.cut and 0 < rgb.max() < 16:
            raise DataError(f"{path}: 12 bit in a colour file of 16 bit; save it with 8 bit a channel")
        return rgb, 255, picture
    high = int(deep.max())
    white = white or (WHITE_12 if high <= WHITE_12 else WHITE_16)
    return _to_rgb(deep, str(path), white), white if high else 255, picture


@dataclass(frozen=True)
class Original:
    """An image file, to be read again in its own size, and its truth in few bytes."""

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
        image, _, _ = read_with_white(self.file, None if white == 255 else white)
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


def resize_image(
    image: NDArray[np.uint8] | NDArray[np.uint16], size: int | tuple[int, int], white: int = WHITE_16
) -> NDArray[np.uint8]:
    """Bring an image to a size: the rule for training images and for new images alike.

    Each side is resampled on its own (bicubic, anti-aliased where it shrinks); squares do not keep the aspect
    ratio, as in the thesis (4.1). An image that has the size already is returned pixel for pixel.

    Args:
        image: `(h, w)`, `(h, w, 1)` or `(h, w, 3)`, uint8 or uint16.
        size: Side of the result in pixels, or its height and width.
        white: The level of 16-bit images that becomes 255.

    Returns:
        RGB `(size, size, 3)` or `(height, width, 3)`, a fresh array.

    Raises:
        DataError: If the array has another shape or dtype, or levels above `white`.
    """
    rgb = _to_rgb(image, "image", white)
    height, width = (size, size) if isinstance(size, int) else size
    if rgb.shape[:2] == (height, width):
        return rgb.copy()
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def resize_mask(mask: NDArray[np.bool_], size: int | tuple[int, int]) -> NDArray[np.bool_]:
    """Bring a mask to a size: True where at least `MASK_SHARE` of a pixel's source area is anomalous.

    The share is the exact area average. Thin cracks vanish if single pixels are picked instead.

    Args:
        mask: `(h, w)`.
        size: Side of the result in pixels, or its height and width.

    Returns:
        `(size, size)` or `(height, width)`, a fresh array.
    """
    height, width = mask.shape
    rows, columns = (size, size) if isinstance(size, int) else size
    # Areas in units of 1/(rows columns) of a source pixel are whole numbers, which float64 holds exactly.
    area = _overlap(height, rows) @ mask.astype(np.float64) @ _overlap(width, columns).T
    return area >= MASK_SHARE * height * width


def resize_map(values: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Bilinear resampling of (h, w) float32 to (height, width), anti-aliased where it shrinks."""
    if values.shape == (height, width):
        return values
    import torch  # which not every reader needs

    tensor = torch.from_numpy(values)[None, None]
    resized = torch.nn.functional.interpolate(tensor, (height, width), mode="bilinear", antialias=True)
    return resized[0, 0].numpy()


def _overlap(source: int, target: int) -> NDArray[np.float64]:
    """Length, in 1/target of a source pixel, that pixels of two grids on one line share: (target, source)."""
    begin = np.maximum(np.arange(target)[:, None] * source, np.arange(source)[None] * target)
    end = np.minimum(np.arange(1, target + 1)[:, None] * source, np.arange(1, source + 1)[None] * target)
    return np.maximum(end - begin, 0).astype(np.float64)


def deep_levels(pixels: Image.Image, name: str) -> NDArray[np.uint16] | None:
    """The levels `(h, w)` of a 16-bit grey picture, None if it has 8 bit.

    Raises:
        DataError: If it is neither.
    """
    if pixels.mode == "F":
        raise DataError(f"{name}: a floating-point image; convert it to 8 or 16 bit")
    if pixels.mode != "I" and not pixels.mode.startswith("I;16"):
        return None
    values = np.asarray(pixels)
    if values.min() < 0 or values.max() > WHITE_16:
        raise DataError(f"{name}: values {values.min()}..{values.max()}; convert it to 8 or 16 bit")
    return values.astype(np.uint16)


def to_rgb8(pixels: Image.Image, name: str, mode: str = "RGB") -> NDArray[np.uint8]:
    """The picture in another mode, RGB or RGBA, `(h, w, 3 or 4)`.

    Raises:
        DataError: If Pillow cannot convert it.
    """
    try:
        return np.array(pixels.convert(mode))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{name}: colours of the kind {pixels.mode}; save it as RGB") from error


def _to_rgb(array: NDArray[np.uint8] | NDArray[np.uint16], name: str, white: int) -> NDArray[np.uint8]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or array.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"an image is {array.dtype} {array.shape}; "
            "expected uint8 or uint16 of shape (h, w), (h, w, 1) or (h, w, 3)"
        )
    if array.dtype == np.uint16:
        if array.size and array.max() > white:
            raise DataError(
                f"{name}: levels up to {array.max()}, above {white}, the white of this data; "
                "bring it to the range of the other images"
            )
        array = np.round(array / (white / 255)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)), dtype=np.uint8)
