"""Magnetic tile defects (Huang et al. 2018): `MT_<kind>/Imgs/<stem>.jpg`, its mask `<stem>.png` beside it.

The kind `Free` holds images without a defect. A few images of the kind `Uneven` have an empty mask although
the unevenness is plain to see; their truth counts as unknown.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nbs_env.common.errors import DataError
from nbs_env.data.dataset import GOOD, AnomalyDataset
from nbs_env.data.folders import by_stem, child, image_files, orphan, subfolders
from nbs_env.data.reading import Collection, Request

PREFIX = "MT_"
FREE = "Free"


def read(request: Request) -> AnomalyDataset:
    """Read all kinds that are there, or one kind (the category) and `Free`; names are `<kind>/<stem>`.

    Raises:
        DataError: If no kind is there, the category is not among them, an image has no mask or one of another
            size, a mask has no image, or a file cannot be used.
    """
    home = request.find(
        lambda place: any(path.name.startswith(PREFIX) for path in subfolders(place)),
        f"folders such as {PREFIX}Blowhole/Imgs/",
    )
    kinds = [path.name.removeprefix(PREFIX) for path in subfolders(home) if path.name.startswith(PREFIX)]
    name = request.name
    if request.category is not None:
        chosen = request.category.removeprefix(PREFIX)
        if chosen not in kinds or chosen == FREE:
            defects = [kind for kind in kinds if kind != FREE]
            raise DataError(f"{home}: no category {request.category!r}; choose one of {', '.join(defects)}")
        kinds = [kind for kind in kinds if kind in (chosen, FREE)]
        name = f"{name}/{chosen}"
    collection = Collection(name, request.image_size, request.min_side, request.mask_values)
    for kind in kinds:
        _add_kind(collection, child(home, f"{PREFIX}{kind}", "Imgs"), kind)
    return collection.dataset()


def _add_kind(collection: Collection, folder: Path, kind: str) -> None:
    files = image_files(folder)
    masks = by_stem(file for file in files if file.suffix.lower() == ".png")
    images = by_stem(file for file in files if file.suffix.lower() != ".png")
    for stem, mask in masks.items():
        if stem not in images:
            raise orphan(mask, images)
    for stem, file in images.items():
        if stem not in masks:
            raise DataError(f"{file}: no mask; expected {stem}.png beside it, so add it or remove the image")
        pair = collection.read(file, masks[stem])
        if kind != FREE and pair.truth is not None and not pair.truth.any():
            pair = replace(pair, truth=None)
        collection.add(pair, f"{kind}/{stem}", GOOD if kind == FREE else kind)
