"""A user's own images: a folder with `images/` and `masks/`, or one in the MVTec layout.

A mask has the stem of its image (`images/007.jpg`, `masks/007.png`) and its size. It marks anomalous pixels
with values above 127 of 255, or with 1 where it holds only 0 and 1. An empty mask says that the image is
good; an image without a mask file is unlabelled.
"""

from __future__ import annotations

from pathlib import Path

from nbs_env.data.dataset import GOOD, AnomalyDataset
from nbs_env.data.images import image_files, read_mask
from nbs_env.data.mvtec import is_layout, read_layout
from nbs_env.data.reading import Collection, Request, by_stem, reject_orphans


def read(request: Request) -> AnomalyDataset:
    """Read a folder; names are the stems, or `<kind>/<stem>` in the MVTec layout.

    Where `images/` is, it wins over `test/`. A category is the name of a folder inside the root.

    Raises:
        DataError: If neither layout is there, a mask has no image or another size than its image, two files
            share a stem, or a file cannot be used.
    """
    inner = Path(request.category or "")
    home = request.find(
        lambda place: (place / inner / "images").is_dir() or is_layout(place / inner),
        f"{inner / 'images'}/ and {inner / 'masks'}/, or {inner / 'test'}/ and {inner / 'ground_truth'}/",
    )
    home = (home / inner).resolve()
    name = f"{request.name}/{home.name}"
    if not (home / "images").is_dir():
        return read_layout(home, name, request)
    images = by_stem(image_files(home / "images"))
    masks = by_stem(image_files(home / "masks")) if (home / "masks").is_dir() else {}
    reject_orphans(masks, images)
    collection = Collection(name, request.image_size, request.min_side)
    for stem, file in images.items():
        mask = masks.get(stem)
        good = mask is not None and not read_mask(mask).any()
        collection.add(file, stem, GOOD if good else "", mask)
    return collection.dataset()
