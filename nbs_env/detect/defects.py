"""Labelled defects put where there are none."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import find_objects, gaussian_filter, grey_dilation, label

from nbs_env.common.symmetries import dihedral

Pair = tuple[np.ndarray, np.ndarray]
"""An image (h, w, 3) uint8 and its mask (h, w) bool."""
MARGIN = 4
"""Pixels around a real defect that are taken along, and fade into what is there."""


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
    channels = torch.from_numpy(np.dstack([*defect])).permute(2, 0, 1)
    turned = dihedral(channels, int(rng.integers(8))).permute(1, 2, 0).numpy()
    shown, shape = turned[..., :3].astype(np.float32), turned[..., 3] > 0
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
