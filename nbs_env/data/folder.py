"""Folders of images and masks in one of two layouts: a user's own, or that of MVTec AD.

A user's own has `images/` and `masks/`. A mask has the stem of its image (`images/007.jpg`, `masks/007.png`,
`007_mask.png` or `007.jpg.png`) and its size. It marks anomalous pixels with white, or with 1 where it holds
only 0 and 1; `docs/masks.md` says what becomes of others. An empty mask says that the image is good; an image
without a mask file is unlabelled. More good images, which need no masks and are not scored, may lie in
`good/`; `runs/` is the labelling page's.

MVTec AD (Bergmann et al. 2019) has

    <category>/test/good/*.png              images without a defect
    <category>/test/<kind>/000.png          images with a defect of that kind
    <category>/ground_truth/<kind>/000_mask.png
    <category>/train/good/*.png             images without a defect, for methods that learn from those alone

and the batch-sampling task is about the original test images (thesis 4.1.1).
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
    """Read a folder; names are the stems, or `<kind>/<stem>` in the MVTec layout.

    Where `images/` is, it wins over `test/`. A category is the name of a folder inside the root.

    Raises:
        DataError: If neither layout is there, a mask has no image or another size than its image, two files
            share a stem, or a file cannot be used.
    """
    inner = Path(request.category or "")
    home = request.find(
        lambda place: child(place / inner, "images").is_dir() or is_mvtec(place / inner),
        f"{inner / 'images'}/ and {inner / 'masks'}/, or {inner / 'test'}/ and {inner / 'ground_truth'}/",
    )
    home = (home / inner).resolve()
    collection = Collection(request, home.name)
    pictures, drawn, good, runs = (
        child(home, "images"),
        child(home, "masks"),
        child(home, GOOD),
        home / "runs",
    )
    if not pictures.is_dir():
        return _read_mvtec(home, collection)
    others = [path for path in subfolders(home) if path not in (pictures, drawn, good, runs)]
    missing = "" if drawn.is_dir() else "; masks are looked for in masks/, which is not there"
    warn_left_out(home, others, missing)
    images = by_stem(image_files(pictures))
    masks = masks_of(drawn, images, ("", "_mask")) if drawn.is_dir() else {}
    for stem, file in images.items():
        pair = collection.read(file, masks.get(stem))
        collection.add(pair, stem, GOOD if pair.truth is not None and not pair.truth.any() else "")
    collection.add_good(good)
    return collection.dataset()


def read_mvtec(request: Request) -> AnomalyDataset:
    """Read the test images of a category of MVTec AD; names are `<kind>/<stem>`.

    Raises:
        DataError: If the category is missing or unknown, a defective image lacks its mask, a mask its image,
            or a file cannot be used.
    """
    home = _category(request)
    return _read_mvtec(home, Collection(request, home.name))


def read_mvtec_training(root: Path, image_size: int) -> NDArray[np.uint8]:
    """Read the images of `train/good` of a category, which methods learn from that need no defects.

    Args:
        root: The category's folder.
        image_size: Side in pixels that the images are resized to.

    Returns:
        RGB `(n, image_size, image_size, 3)` in the order of the file names.

    Raises:
        DataError: If `train/good` is missing, or a file cannot be used.
    """
    collection = Collection(Request("mvtec", root, image_size=image_size), f"{root.resolve().name}/train")
    for stem, file in by_stem(image_files(child(root, "train", GOOD))).items():
        collection.add(collection.read(file, None), stem, GOOD)
    return collection.dataset().images


def is_mvtec(directory: Path) -> bool:
    """Whether a folder has the layout of a category of MVTec AD, that is a `test` folder."""
    return child(directory, "test").is_dir()


def _category(request: Request) -> Path:
    """The folder of the category; the root may be that folder itself."""
    home = request.find(
        lambda place: is_mvtec(place) or any(map(is_mvtec, subfolders(place))),
        "a folder for each category with test/ and ground_truth/",
    )
    if is_mvtec(home):
        if request.category not in (None, home.resolve().name):
            raise DataError(f"{home}: this is one category, not {request.category!r}; leave the category out")
        return home.resolve()
    found = [path.name for path in subfolders(home) if is_mvtec(path)]
    if request.category not in found:
        asked = "no category given" if request.category is None else f"no category {request.category!r}"
        raise DataError(f"{home}: {asked}; choose one of {', '.join(found)}")
    return home / str(request.category)


def _read_mvtec(home: Path, collection: Collection) -> AnomalyDataset:
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
    collection.add_good(child(home, "train", GOOD))
    return collection.dataset()
