"""Pictures of predictions: heat maps, outlines and sheets that put them side by side."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

_PREDICTED = (0, 229, 255)  # cyan and magenta: seldom met in images of surfaces
_TRUE = (255, 64, 224)
_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
_INK, _PAPER = (32, 32, 32), (255, 255, 255)
_MARGIN, _GAP, _LINE, _FONT_SIZE = 16, 8, 26, 16  # pixels

# Inferno at ninths of its range: dark to bright, even to the eye, readable by the colour-blind.
_COLOURS = "#000004", "#210c4a", "#57106e", "#8a226a", "#bc3754", "#e35933", "#f98e09", "#f9cb35", "#fcffa4"
_HEAT = np.array([ImageColor.getrgb(colour) for colour in _COLOURS])


def heat(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colour a map from black over red to light yellow.

    Args:
        values: `(H, W)` numbers; those outside `[low, high]` get the colour of the nearer end.
        low: The value that is black.
        high: The value that is light yellow.

    Returns:
        `(H, W, 3)` uint8.
    """
    position = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * (len(_HEAT) - 1)
    channels = [np.interp(position, np.arange(len(_HEAT)), _HEAT[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def outline(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Draw the boundary of a mask over an image.

    The boundary is every pixel of the mask that has one of its four neighbours outside the mask or outside
    the image, so a mask of the whole image is seen as a frame.

    Args:
        image: `(H, W, 3)` uint8.
        mask: `(H, W)` bools.
        colour: Red, green, blue, 0-255.

    Returns:
        A new `(H, W, 3)` uint8 array.
    """
    around = np.pad(mask, 1)
    inner = mask & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    drawn = image.copy()
    drawn[mask & ~inner] = colour
    return drawn


def draw_path(
    image: np.ndarray, path: Sequence[tuple[int, int]], here: tuple[int, int], patch_size: int
) -> np.ndarray:
    """Draw the centres of sampled patches, joined in order, and the frame of the patch that is looked at.

    Args:
        image: `(H, W, 3)` uint8.
        path: (top, left) of the patches sampled so far, pixels, oldest first.
        here: (top, left) of the present patch.
        patch_size: Side of a patch, pixels.

    Returns:
        A copy of the image, `(H, W, 3)` uint8.
    """
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    half = patch_size // 2
    centres = [(left + half, top + half) for top, left in path]
    if len(centres) > 1:
        draw.line(centres, fill=_TRUE, width=1)
    for x, y in centres:
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=_TRUE)
    top, left = here
    draw.rectangle((left, top, left + patch_size - 1, top + patch_size - 1), outline=_PREDICTED, width=2)
    return np.asarray(picture)


def overlay_sheet(
    images: Sequence[np.ndarray] | np.ndarray,
    probabilities: Sequence[np.ndarray] | np.ndarray,
    masks_pred: Sequence[np.ndarray] | np.ndarray,
    masks_true: Sequence[np.ndarray] | np.ndarray | None,
    names: Sequence[str],
    tile: int = 256,
) -> Image.Image:
    """Put images, probabilities, predicted masks and truth side by side, one image a row.

    Args:
        images: n times `(H, W, 3)` uint8; the sizes may differ.
        probabilities: n times `(H, W)` floats, coloured from 0 to 1.
        masks_pred: n times `(H, W)` bools, outlined over the image.
        masks_true: n times `(H, W)` bools, outlined over the image; `None` leaves the column out.
        names: n names, written above the rows.
        tile: Width of a picture in the sheet, pixels; the images are scaled to it.

    Returns:
        The sheet, RGB.
    """
    rows = []
    for i, image in enumerate(images):
        masks = [(masks_pred[i], _PREDICTED)] + ([] if masks_true is None else [(masks_true[i], _TRUE)])
        rows.append(_row(image, probabilities[i], masks, tile))
    width = 2 * _MARGIN + len(rows[0]) * (tile + _GAP) - _GAP
    height = 2 * _MARGIN + _LINE + sum(_LINE + row[0].height + _GAP for row in rows)
    sheet = Image.new("RGB", (width, height - _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    _header(sheet, draw, font, tile, with_truth=masks_true is not None)
    y = _MARGIN + _LINE
    for name, row in zip(names, rows, strict=True):
        draw.text(
            (_MARGIN, y + _LINE / 2), _shorten(name, font, width - 2 * _MARGIN), _INK, font, anchor="lm"
        )
        y += _LINE
        for column, picture in enumerate(row):
            sheet.paste(picture, (_MARGIN + column * (tile + _GAP), y))
        y += row[0].height + _GAP
    return sheet


def new_figure(width: float, height: float) -> Any:
    """An empty `matplotlib.figure.Figure` of so many inches; no backend is chosen, whatever MPLBACKEND says.

    A notebook hands that variable to its commands, and Matplotlib cannot be imported without that backend.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return Figure(figsize=(width, height), layout="constrained")


def _row(
    image: np.ndarray,
    probability: np.ndarray,
    masks: Sequence[tuple[np.ndarray, tuple[int, int, int]]],
    tile: int,
) -> list[Image.Image]:
    """The pictures of one row, `tile` wide: outlined after scaling, so that outlines stay one pixel wide."""
    size = (tile, max(1, round(tile * image.shape[0] / image.shape[1])))
    scaled = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    values = Image.fromarray(probability.astype(np.float32)).resize(size, Image.Resampling.BOX)
    pictures = [scaled, Image.fromarray(heat(np.asarray(values), 0, 1))]
    for mask, colour in masks:
        share = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
        pictures.append(Image.fromarray(outline(np.asarray(scaled), np.asarray(share) >= 0.25, colour)))
    return pictures


def _header(sheet: Image.Image, draw: ImageDraw.ImageDraw, font: _Font, tile: int, with_truth: bool) -> None:
    """The labels of the columns; the probability has a colour bar, each mask a patch of its colour."""
    middle = _MARGIN + _LINE // 2
    bar = Image.fromarray(heat(np.tile(np.linspace(0, 1, 48), (12, 1)), 0, 1))
    labels = [("image", None), ("probability", None), ("predicted", _PREDICTED), ("truth", _TRUE)]
    for column, (label, colour) in enumerate(labels[: 3 + with_truth]):
        x = _MARGIN + column * (tile + _GAP)
        if colour is not None:
            draw.rectangle((x, middle - 6, x + 11, middle + 5), colour)
            x += 18
        draw.text((x, middle), label, _INK, font, anchor="lm")
        if label == "probability":
            x += round(font.getlength(label)) + 12
            draw.text((x, middle), "0", _INK, font, anchor="lm")
            sheet.paste(bar, (x + 14, middle - 6))
            draw.text((x + 14 + bar.width + 5, middle), "1", _INK, font, anchor="lm")


def _shorten(name: str, font: _Font, width: int) -> str:
    """Cut the front of a name that is too long for the sheet: file names differ at their ends."""
    if font.getlength(name) <= width:
        return name
    while font.getlength("..." + name) > width:
        name = name[1:]
    return "..." + name
