"""Images with masks from many sources, all as one `AnomalyDataset`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nbs_env.common.errors import DataError, DataWarning
from nbs_env.data import folder, published, synthetic
from nbs_env.data.dataset import GOOD, AnomalyDataset, split
from nbs_env.data.folders import image_files
from nbs_env.data.images import read_image, resize_image, resize_map, resize_mask
from nbs_env.data.masks import read_mask
from nbs_env.data.reading import MIN_SIDE, Request

__all__ = [
    "GOOD",
    "READERS",
    "AnomalyDataset",
    "DataError",
    "DataWarning",
    "Request",
    "image_files",
    "load",
    "read_image",
    "read_mask",
    "resize_image",
    "resize_map",
    "resize_mask",
    "split",
]

READERS: dict[str, Callable[[Request], AnomalyDataset]] = {
    "synthetic": synthetic.read,
    "folder": folder.read,
    "mvtec": folder.read_mvtec,
    "crackforest": published.read_crackforest,
    "nanotwice": published.read_nanotwice,
    "magnetic_tile": published.read_magnetic_tile,
}
"""The reader of each data set."""


def load(
    name: str,
    root: Path | None = None,
    *,
    category: str | None = None,
    image_size: int = 256,
    seed: int = 0,
    count: int = 40,
    difficulty: float = 0.5,
    mask_values: Sequence[int] = (),
) -> AnomalyDataset:
    """Load a data set, checked and resized.

    Args:
        name: One of `READERS`.
        root: The data set's folder, or the folder that holds it; `synthetic` needs none.
        category: The category of `mvtec`, the texture of `synthetic` (`weave`, `wood` or `speckle`), the
            defect kind of `magnetic_tile`, or a folder inside the root of `folder`.
        image_size: Side in pixels that every image is resized to.
        seed: Seed of the images of `synthetic`.
        count: Number of images of `synthetic`.
        difficulty: How hard the defects of `synthetic` are to find, from 0 to 1.
        mask_values: The stored values of mask files (of a palette: the indices) that are anomalous; all else
            is normal, regions to be ignored too. None given: a mask is read as it looks, `docs/masks.md`.

    Returns:
        The images with their masks.

    Raises:
        DataError: If there is no such data set, or something in it is wrong or missing.
    """
    if name not in READERS:
        raise DataError(f"there is no data set {name!r}; choose one of {', '.join(READERS)}")
    if image_size < MIN_SIDE:
        raise DataError(f"image_size is {image_size}; it must be at least the patch's side, {MIN_SIDE}")
    for value in mask_values:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
            raise DataError(
                f"mask_values holds {value!r}; give whole numbers from 0 to 65535, such as 85 170"
            )
    request = Request(
        name, root, category, image_size, seed, count, difficulty, mask_values=tuple(mask_values)
    )
    return READERS[name](request)
