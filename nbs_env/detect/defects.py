"""Defects put where there are none: real ones from the labelled images, and made-up ones."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import find_objects, gaussian_filter, grey_dilation, label

from nbs_env.profiles import dihedral

Pair = tuple[np.ndarray, np.ndarray]
"""An image (h, w, 3) uint8 and its mask (h, w) bool."""
MARGIN = 4
"""Pixels around a real defect that are taken along, and fade into what is there."""
SEEN = 10
"""Grey levels by which a place has to change before a made-up defect counts as one there."""


def cut_out(image: np.ndarray, mask: np.ndarray) -> list[Pair]:
    """Each connected defect of a labelled image, with a margin."""
    regions, _ = label(mask, np.ones((3, 3)))
    found = []
    for number, (rows, columns) in enumerate(find_objects(regions), 1):
        here = tuple(slice(max(0, axis.start - MARGIN), axis.stop + MARGIN) for axis in (rows, columns))
        found.append((image[here], regions[here] == number))
    return found


def paste(crop: Pair, defect: Pair, rng: np.random.Generator) -> Pair:
    """A defect under a random symmetry at a random place of a crop, both at their own contrast.

    What sticks out is cut off. The defect's surroundings are levelled with those of its new place.
    """
    image, mask = crop
    turned = dihedral(torch.from_numpy(np.dstack([*defect])).permute(2, 0, 1), int(rng.integers(8))).permute(
        1, 2, 0
    )
    shown, shape = turned[..., :3].numpy().astype(np.float32), turned[..., 3].numpy() > 0
    lengths = np.minimum(shape.shape, mask.shape)
    begin = [int(rng.integers(have - want + 1)) for have, want in zip(shape.shape, lengths, strict=True)]
    kept = (slice(begin[0], begin[0] + lengths[0]), slice(begin[1], begin[1] + lengths[1]))
    shown, shape = shown[kept], shape[kept]
    place = [int(rng.integers(have - want + 1)) for have, want in zip(mask.shape, lengths, strict=True)]
    here = (slice(place[0], place[0] + lengths[0]), slice(place[1], place[1] + lengths[1]))
    there = image[here].astype(np.float32)
    if not shape.all():
        shown = shown + (there - shown)[~shape].mean(axis=0)
    weight = gaussian_filter(grey_dilation(shape.astype(np.float32), (3, 3)), 1)[..., None]
    image, mask = image.copy(), mask.copy()
    image[here] = (weight * shown + (1 - weight) * there).round().clip(0, 255)
    mask[here] |= shape
    return image, mask


def make_up(crop: Pair, source: np.ndarray, rng: np.random.Generator) -> Pair:
    """A blob of another image in a crop, as natural synthetic anomalies are (Schlueter et al. 2022).

    Its tone is levelled with that of its place. Anomalous is what has visibly changed.

    Args:
        crop: image and mask.
        source: (H, W, 3) uint8, at least as large as half the crop.
        rng: draws place, size and shape.
    """
    image, mask = crop
    side = int(rng.integers(8, max(9, min(image.shape[:2]) // 2)))
    noise = gaussian_filter(rng.normal(size=(side, side)), side / 6)
    away = np.hypot(*np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j])
    shape = noise / noise.std() > 3 * away**2 - 1.5
    weight = gaussian_filter(shape.astype(np.float32), 1)[..., None]
    corners = [[int(rng.integers(length - side + 1)) for length in of.shape[:2]] for of in (source, image)]
    (top, left), (y, x) = corners
    shown = source[top : top + side, left : left + side].astype(np.float32)
    here = (slice(y, y + side), slice(x, x + side))
    there = image[here].astype(np.float32)
    level = (there - shown).mean(axis=(0, 1)) * rng.random()
    image, mask = image.copy(), mask.copy()
    image[here] = (weight * (shown + level) + (1 - weight) * there).round().clip(0, 255)
    change = np.abs(image[here].astype(np.float32) - there).max(axis=2)
    mask[here] |= shape & (gaussian_filter(change, 2) > SEEN)
    return image, mask
