"""MVTec AD (Bergmann et al. 2019), and any data set in its layout.

    <category>/test/good/*.png              images without a defect
    <category>/test/<kind>/000.png          images with a defect of that kind
    <category>/ground_truth/<kind>/000_mask.png
    <category>/train/good/*.png             images without a defect, for methods that learn from those alone

The data set of the batch-sampling task is the original test images (thesis 4.1.1).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nbs_env.common.errors import DataError
from nbs_env.data.dataset import GOOD, AnomalyDataset
from nbs_env.data.folders import by_stem, child, entries, image_files, masks_of, subfolders, warn_left_out
from nbs_env.data.reading import Collection, Request


def read(request: Request) -> AnomalyDataset:
    """Read the test images of a category; names are `<kind>/<stem>`.

    Raises:
        DataError: If the category is missing or unknown, a defective image lacks its mask, a mask its image,
            or a file cannot be used.
    """
    home = find_category(request)
    return read_layout(home, f"{request.name}/{home.name}", request)


def find_category(request: Request) -> Path:
    """Find the folder of a category; the root may be that folder itself.

    Raises:
        DataError: If there is no category there, it was not said which, or it is not among them.
    """
    home = request.find(
        lambda place: is_layout(place) or any(map(is_layout, subfolders(place))),
        "a folder for each category with test/ and ground_truth/",
    )
    if is_layout(home):
        if request.category not in (None, home.resolve().name):
            raise DataError(f"{home}: this is one category, not {request.category!r}; leave the category out")
        return home.resolve()
    found = [path.name for path in subfolders(home) if is_layout(path)]
    if request.category not in found:
        asked = "no category given" if request.category is None else f"no category {request.category!r}"
        raise DataError(f"{home}: {asked}; choose one of {', '.join(found)}")
    return home / str(request.category)


def is_layout(directory: Path) -> bool:
    """Whether a folder has the MVTec layout, that is a `test` folder."""
    return child(directory, "test").is_dir()


def read_layout(home: Path, name: str, request: Request) -> AnomalyDataset:
    """Read the test images of a folder that has the MVTec layout.

    Raises:
        DataError: If a defective image lacks its mask, a mask its image, or a file cannot be used.
    """
    collection = Collection(name, request.image_size, request.min_side, request.mask_values)
    test, truths = child(home, "test"), child(home, "ground_truth")
    kinds = subfolders(test)
    if not kinds:
        raise DataError(f"{test}: no folder inside; expected good/ and one for each defect kind")
    warn_left_out(test, [path for path in entries(test) if path not in kinds])
    for folder in subfolders(truths):
        if not child(test, folder.name).is_dir():
            raise DataError(f"{folder}: masks without images; add test/{folder.name}/ or remove them")
    for folder in kinds:
        kind = GOOD if folder.name.lower() == GOOD else folder.name
        drawn = child(truths, kind)
        images = by_stem(image_files(folder))
        masks = masks_of(drawn, images, ("_mask", "")) if kind != GOOD or drawn.is_dir() else {}
        for stem, file in images.items():
            if kind != GOOD and stem not in masks:
                raise DataError(
                    f"{file}: no mask; expected ground_truth/{kind}/{stem}_mask.png, "
                    "so add it or remove the image"
                )
            collection.add(collection.read(file, masks.get(stem)), f"{kind}/{stem}", kind)
    known = child(home, "train", GOOD)
    return collection.dataset(good_images(known, name, request) if known.is_dir() else None)


def normal_training_images(
    root: Path, category: str | None, image_size: int = 256, min_side: int = 64
) -> NDArray[np.uint8]:
    """Read the anomaly-free images of `train/good`, which unsupervised methods learn from.

    Args:
        root: The category's folder, the folder of all categories, or the folder that holds `mvtec`.
        category: The category; None if root is its folder.
        image_size: Side in pixels that the images are resized to.
        min_side: Smallest side in pixels that a file may have.

    Returns:
        RGB `(n, image_size, image_size, 3)` in the order of the file names.

    Raises:
        DataError: If the category or its `train/good` is missing, or a file cannot be used.
    """
    request = Request("mvtec", root=root, category=category, image_size=image_size, min_side=min_side)
    home = find_category(request)
    return good_images(child(home, "train", GOOD), f"mvtec/{home.name}/train", request).dataset().images


def good_images(folder: Path, name: str, request: Request) -> Collection:
    """Read a folder of images that are known to be good.

    Raises:
        DataError: If it is not there or a file cannot be used.
    """
    collection = Collection(name, request.image_size, request.min_side)
    for stem, file in by_stem(image_files(folder)).items():
        collection.add(collection.read(file, None), stem, GOOD)
    return collection
