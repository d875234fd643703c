"""Mask files: which pixels are anomalous, or why that cannot be said. `docs/masks.md` shows what users see.

A mask that is read wrongly trains the opposite without a word. So a mask is read as it looks, and refused
where a look does not tell: where its values may be classes, or say "ignore", or lie in several places.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from nbs_env.common.errors import DataError, DataWarning
from nbs_env.data.dataset import some
from nbs_env.data.images import UNTURNED, Picture, decode, deep_levels, to_rgb8

MASK_THRESHOLD = 127
"""A pixel is anomalous above this level of 255, where the file is black and white but for its edges."""
BLACK, WHITE = 64, 192
"""Levels of 255 below which, and from which on, an area counts as black or white."""
SMALLEST = 16
"""Levels of 255 that look black; a mask of few levels that has some above 0 and below this holds classes."""
FEW = 5
"""Up to so many levels are deliberate, and pixels between black and white must lie on an edge."""
MANY = 48
"""With more levels than this, those near black and white are noise or blur."""
NOISE = (24, 231)
"""Levels of 255 that an even area may not have between, where there is noise or blur."""
EVEN = 6
"""Levels that an even area of a lossy format may spread over."""
PHOTO = 0.2
"""A share of grey pixels from which on it is a photo, not a mask."""
COLOUR = 48
"""Two bright colours that differ by more in a channel are two colours to the eye."""
LOSSY = ("JPEG", "MPO", "WEBP")
"""Formats that change values a little."""
INVERTED = "more than half of it is anomalous; if black marks the defect, invert it"


def read_mask(path: Path, values: Sequence[int] = ()) -> NDArray[np.bool_]:
    """Read a mask file as it looks, `(h, w)`: True where it is white, or 1 in a file of 0 and 1.

    Args:
        path: The file.
        values: The stored values (of a palette picture: indices) that are anomalous; everything else is
            normal, regions to be ignored too. None given: by the rule above.

    Raises:
        DataError: As `read_image` does, or if it has several pages, its values could mean several things, or
            it marks every pixel.
    """
    picture = open_mask(path)
    mask = marked(picture, values)
    if mask.mean() > 0.5:
        warnings.warn(f"{path}: {INVERTED}", DataWarning, stacklevel=2)
    if picture.exif_damaged:
        warnings.warn(f"{path}: {UNTURNED}", DataWarning, stacklevel=2)
    return mask


def open_mask(path: Path) -> Picture:
    """Decode a mask file.

    Raises:
        DataError: If it cannot be decoded, or has several pages.
    """
    picture = decode(path, str(path))
    if picture.pages > 1:
        raise DataError(f"{path}: a mask of {picture.pages} pages; save the one that marks the defects alone")
    return picture


def reject_other_size(mask: Picture, image: Picture, marks: bool) -> None:
    """Raise `DataError` if a mask does not fit its image, or might be drawn on the image as it is stored.

    Args:
        mask: The mask.
        image: Its image.
        marks: Whether any pixel may be anomalous; an empty mask fits either way up.
    """
    (width, height), (own_width, own_height) = image.pixels.size, mask.pixels.size
    same = (own_width, own_height) == (width, height)
    untold = same and mask.orientation is None and marks  # either way up, and the mask does not say which
    if (
        image.orientation not in (None, 1)
        and (own_width, own_height) == image.stored_size
        and (untold or not same)
    ):
        raise DataError(
            f"{mask.name}: {own_width}x{own_height} pixels, as its image {Path(image.name).name} is stored, "
            f"but the image's EXIF data turns it to {width}x{height}"
            f"{', so the mask may be drawn either way up' if same else ''}; save the image turned upright, "
            "without the EXIF orientation, and the mask likewise"
        )
    if not same:
        raise DataError(
            f"{mask.name}: {own_width}x{own_height} pixels, but its image {Path(image.name).name} has "
            f"{width}x{height}; make them equal"
        )


def marked(picture: Picture, values: Sequence[int] = ()) -> NDArray[np.bool_]:
    """The anomalous pixels `(h, w)` of a mask, see `read_mask`.

    Raises:
        DataError: As `read_mask` does.
    """
    mask = _chosen(picture, values) if values else _as_it_looks(picture)
    if mask.all():
        raise DataError(
            f"{picture.name}: every pixel is anomalous, and nothing can be learnt from that; mark the defect "
            "alone, and if black marks it, invert the mask"
        )
    return mask


def _chosen(picture: Picture, values: Sequence[int]) -> NDArray[np.bool_]:
    if picture.format in LOSSY:
        raise DataError(f"{picture.name}: {picture.format} changes values; save it as PNG to choose them")
    stored = _stored(picture)
    if stored is None:
        raise DataError(f"{picture.name}: a coloured mask has no single values; save it as grey or a palette")
    return np.isin(stored, np.asarray(values))


def _stored(picture: Picture) -> NDArray[np.integer] | None:
    """The values in the file `(h, w)`, a palette's indices; None for colours and varying transparency."""
    pixels = picture.pixels
    if pixels.mode == "P":
        return np.asarray(pixels)
    if pixels.mode == "PA":
        return np.asarray(pixels)[..., 0]
    deep = deep_levels(pixels, picture.name)
    if deep is not None:
        return deep
    if pixels.mode == "1":
        return np.asarray(pixels).astype(np.uint8)
    rgba = to_rgb8(pixels, picture.name, "RGBA")
    grey = (rgba[..., :1] == rgba[..., 1:3]).all()
    return rgba[..., 0] if grey and (rgba[..., 3] == rgba[0, 0, 3]).all() and not picture.cut else None


def _as_it_looks(picture: Picture) -> NDArray[np.bool_]:
    pixels = picture.pixels
    if picture.cut:
        raise DataError(f"{picture.name}: a mask of 16-bit colours; save it as 8-bit grey")
    deep = deep_levels(pixels, picture.name)
    if deep is not None or pixels.mode == "1":
        stored = np.asarray(pixels).astype(np.uint16) if deep is None else deep
        return _of_levels(picture, stored, 65535 if stored.max() > 255 else 255)
    if pixels.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in pixels.info:
        rgba = to_rgb8(pixels, picture.name, "RGBA")
        alpha = rgba[..., 3]
        if alpha.min() < alpha.max():
            return _of_alpha(picture, rgba[..., :3], alpha)
        if alpha.max() <= MASK_THRESHOLD:
            raise DataError(f"{picture.name}: transparent everywhere; save it as grey without transparency")
    if pixels.mode == "L":
        return _of_levels(picture, np.asarray(pixels), 255)
    return _of_colours(picture, to_rgb8(pixels, picture.name))


def _of_alpha(picture: Picture, rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where it is opaque, if the colours say the same or nothing."""
    level = rgb.max(axis=2)
    try:
        drawn = _of_levels(picture, alpha, 255)
        paint = rgb[drawn]
        plain = len(paint) and (np.ptp(paint, axis=0) <= COLOUR).all()
        # What is hidden under the transparent part does not count, unless it is the white of black paint.
        inverse = plain and level[drawn].max() < BLACK and level[~drawn].max(initial=0) >= WHITE
        if (plain and not inverse) or np.array_equal(_of_colours(picture, rgb), drawn):
            return drawn
    except DataError:
        pass
    raise DataError(
        f"{picture.name}: its colours and its transparency do not say the same; save it as grey without "
        "transparency, 255 where anomalous and 0 elsewhere"
    )


def _of_colours(picture: Picture, rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """By the strongest channel, unless that hides a difference that one would see."""
    level = rgb.max(axis=2)
    stored: NDArray[np.integer] = level
    if picture.pixels.mode in ("P", "PA"):
        stored = np.asarray(picture.pixels)
        stored = stored if stored.ndim == 2 else stored[..., 0]
        if level.min() == level.max() and stored.min() < stored.max():
            raise _ambiguous(picture, stored, "look alike")
    bright = level >= WHITE
    if bright.any() and (rgb != level[..., None])[bright].any():
        colours = rgb[bright]
        off = np.zeros(level.shape, np.bool_)
        off[bright] = (np.abs(colours.astype(np.int16) - np.median(colours, axis=0)) > COLOUR).any(axis=1)
        few = len(np.unique(colours.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32))) <= 16
        if off.any() if few else minimum_filter(off, 3)[1:-1, 1:-1].any():
            raise DataError(
                f"{picture.name}: a mask of several bright colours; save it as grey with 255 where anomalous "
                "and 0 elsewhere, or with a palette and say which indices are, such as --mask-values 1"
            )
    return _of_levels(picture, level, 255, stored)


def _of_levels(
    picture: Picture,
    level: NDArray[np.uint8] | NDArray[np.uint16],
    top: int,
    stored: NDArray[np.integer] | None = None,
) -> NDArray[np.bool_]:
    """White (`top`) where black and white are all there is, but for edges and noise; 1 of 0 and 1.

    Messages list what is `stored` instead of the levels, where that is given.
    """
    stored = level if stored is None else stored
    seen = np.zeros(65536, np.bool_)
    for row in level:  # one at a time, since an index takes eight bytes
        seen[row] = True
    present = np.flatnonzero(seen)
    lossy = picture.format in LOSSY
    if present[-1] <= 1 and not (lossy and present[-1]):
        return level == 1
    grey = present * 255 / top
    low, high = grey[0], grey[-1]
    between = grey[1:-1]
    shade = level if top == 255 else level * (255 / top)
    clear = high > MASK_THRESHOLD if lossy or len(present) > FEW else high >= WHITE
    if len(present) > 1:
        clear &= low < BLACK
    if not lossy and len(present) <= FEW:
        clear &= not ((grey > 0) & (grey < SMALLEST)).any()
        clear = clear and (not len(between) or _only_edges(shade, low, high))
    elif clear:
        bounds = (low, high) if not lossy and len(present) <= MANY else NOISE
        inner = shade[1:-1, 1:-1]
        flat = _blocks(shade, EVEN if lossy else 0)
        clear = not (flat & (inner > bounds[0]) & (inner < bounds[1])).any()
        clear = clear and ((shade >= BLACK) & (shade < WHITE)).mean() < PHOTO
    if not clear:
        raise _ambiguous(picture, stored)
    return shade > MASK_THRESHOLD


def _only_edges(shade: NDArray[np.number], low: float, high: float) -> bool:
    """Whether each pixel between two levels has a darker and a lighter one beside it."""
    between = (shade > low) & (shade < high)
    darker, lighter = minimum_filter(shade, 3) < shade, maximum_filter(shade, 3) > shade
    return bool((darker & lighter)[between].all())


def _blocks(array: NDArray[np.number], spread: int) -> NDArray[np.bool_]:
    """Whether the 3x3 pixels around each inner pixel, `(h - 2, w - 2)`, differ by at most so many levels."""
    high, low = (function(array, 3)[1:-1, 1:-1] for function in (maximum_filter, minimum_filter))
    return high - low <= spread


def _ambiguous(
    picture: Picture, stored: NDArray[np.integer], how: str = "could mean several things"
) -> DataError:
    values = [int(value) for value in np.unique(stored)]
    kind = "palette indices" if picture.pixels.mode in ("P", "PA") else "values"
    listed = some([str(value) for value in values], 8)
    message = f"{picture.name}: a mask with the {kind} {listed}, which {how}; "
    message += "write 255 where anomalous and 0 elsewhere"
    if picture.format in LOSSY:
        return DataError(f"{message}, in a PNG file ({picture.format} changes values)")
    if len(values) > 16:
        return DataError(f"{message}, and see that it is the mask, not a photo")
    classes = [str(value) for value in values if value not in (0, 255, 65535)] or [str(values[-1])]
    choice = f"--mask-values {' '.join(classes[:4])} (mask_values in Python)"
    return DataError(f"{message}, or say which are anomalous, such as {choice}")
