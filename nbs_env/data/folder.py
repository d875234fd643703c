"""A user's own images: a folder with `images/` and `masks/`, or one in the MVTec layout.

A mask has the stem of its image (`images/007.jpg`, `masks/007.png`, `007_mask.png` or `007.jpg.png`) and its
size. It marks anomalous pixels with white, or with 1 where it holds only 0 and 1; `docs/masks.md` says what
becomes of others. An empty mask says that the image is good; an image without a mask file is unlabelled. More
good images, which need no masks and are not scored, may lie in `good/`; `runs/` is the labelling page's.
"""

from __future__ import annotations

from pathlib import Path

from nbs_env.data.dataset import GOOD, AnomalyDataset
from nbs_env.data.folders import by_stem, child, image_files, masks_of, subfolders, warn_left_out
from nbs_env.data.mvtec import good_images, is_layout, read_layout
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
        lambda place: child(place / inner, "images").is_dir() or is_layout(place / inner),
        f"{inner / 'images'}/ and {inner / 'masks'}/, or {inner / 'test'}/ and {inner / 'ground_truth'}/",
    )
    home = (home / inner).resolve()
    name = f"{request.name}/{home.name}"
    pictures, drawn, runs = child(home, "images"), child(home, "masks"), home / "runs"
    if not pictures.is_dir():
        return read_layout(home, name, request)
    known = child(home, GOOD)
    others = [path for path in subfolders(home) if path not in (pictures, drawn, known, runs)]
    missing = "" if drawn.is_dir() else "; masks are looked for in masks/, which is not there"
    warn_left_out(home, others, missing)
    images = by_stem(image_files(pictures))
    masks = masks_of(drawn, images, ("", "_mask")) if drawn.is_dir() else {}
    collection = Collection(name, request.image_size, request.min_side, request.mask_values)
    for stem, file in images.items():
        pair = collection.read(file, masks.get(stem))
        collection.add(pair, stem, GOOD if pair.truth is not None and not pair.truth.any() else "")
    return collection.dataset(good_images(known, name, request) if known.is_dir() else None)
