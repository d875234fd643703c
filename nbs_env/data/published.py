"""Published surfaces with defects: CrackForest, NanoTWICE and magnetic tiles. MVTec AD is in `folder`."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from nbs_env.common.errors import DataError
from nbs_env.data.dataset import GOOD, AnomalyDataset
from nbs_env.data.folders import by_stem, child, image_files, masks_of, orphan, subfolders
from nbs_env.data.reading import Collection, Request

CRACK = 2
"""CrackForest's label of a crack."""
WRONG_MASKS = ("042",)
"""Images of CrackForest whose ground truth belongs to another image."""
PREFIX = "MT_"
"""How the folders of magnetic tiles begin."""
FREE = "Free"
"""The kind of magnetic tiles without a defect."""


def read_crackforest(request: Request) -> AnomalyDataset:
    """Read CrackForest (Shi et al. 2016): roads, `image/001.jpg` with `groundTruth/001.mat`; names are stems.

    A `.mat` file holds a label for each pixel: 1 background, 2 crack, 3 (in 22 files) and 4 (in 5 files).
    What 3 and 4 mean is not documented; laid over the images they show:

    * 3 fills the slabs of intact pavement that a net of cracks encloses. They look like the rest of the road
      and cover up to 30 % of an image (097, 101), so counting them as cracks would call normal surface
      anomalous.
    * 4 follows strands that are barely visible, if at all, beside the cracks, with at most 0.3 % of an image.
      The annotators kept them apart from the cracks.

    Anomalous is therefore what they called a crack: the label 2 alone. The mask of 042 shows the cracks of
    another image; the image stays, without a mask.

    Raises:
        DataError: If the folders are missing, an image has no ground truth or one of another size, ground
            truth has no image, or a file cannot be used.
    """
    request.without_category()
    request.without_mask_values()
    home = request.find(
        lambda place: child(place, "image").is_dir() and child(place, "groundTruth").is_dir(),
        "image/ and groundTruth/",
    )
    images = by_stem(image_files(child(home, "image")))
    truths = masks_of(child(home, "groundTruth"), images, suffixes=(".mat",))
    collection = Collection(request)
    for stem, file in images.items():
        if stem not in truths:
            raise DataError(f"{file}: no ground truth; expected groundTruth/{stem}.mat, so add it")
        if stem in WRONG_MASKS:
            collection.add(collection.read(file, None), stem, "")
        else:
            collection.add(collection.read(file, read_labels(truths[stem]) == CRACK), stem, "crack")
    return collection.dataset()


def read_labels(path: Path) -> NDArray[np.integer]:
    """Read CrackForest's label of each pixel, `(h, w)`, from a ground-truth file.

    Raises:
        DataError: If the file is damaged or has another structure.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            labels = np.asarray(scipy.io.loadmat(path)["groundTruth"][0, 0]["Segmentation"])
        if labels.ndim != 2 or labels.dtype.kind not in "iu" or not labels.size:
            raise ValueError("not one label a pixel")
        return labels
    except Exception as error:  # SciPy raises nearly anything on a damaged file
        raise DataError(
            f"{path}: not a CrackForest ground truth (expected a MATLAB 5 file with "
            "groundTruth(1,1).Segmentation); fetch it anew"
        ) from error


def read_nanotwice(request: Request) -> AnomalyDataset:
    """Read NanoTWICE (Carrera et al. 2017): nanofibres under an electron microscope, grey.

        Normal/*.tif                     five images without an anomaly, 1024x700
        Anomalous/images/ITIA1101.tif    forty images with anomalies, 1024x696
        Anomalous/gt/ITIA1101_gt.png     their masks

    The microscope's caption is cut off already; the two heights differ, and all images are resized alike. The
    anomalous ones come first; names are `Anomalous/<stem>` and `Normal/<stem>`.

    Raises:
        DataError: If a folder is missing, an anomalous image has no mask or one of another size, a mask has
            no image, or a file cannot be used.
    """
    request.without_category()
    home = request.find(
        lambda place: child(place, "Anomalous", "images").is_dir() and child(place, "Normal").is_dir(),
        "Normal/, Anomalous/images/ and Anomalous/gt/",
    )
    images = by_stem(image_files(child(home, "Anomalous", "images")))
    masks = masks_of(child(home, "Anomalous", "gt"), images, ("_gt",))
    collection = Collection(request)
    for stem, file in images.items():
        if stem not in masks:
            raise DataError(f"{file}: no mask; expected Anomalous/gt/{stem}_gt.png, so add it")
        collection.add(collection.read(file, masks[stem]), f"Anomalous/{stem}", "anomalous")
    for stem, file in by_stem(image_files(child(home, "Normal"))).items():
        collection.add(collection.read(file, None), f"Normal/{stem}", GOOD)
    return collection.dataset()


def read_magnetic_tile(request: Request) -> AnomalyDataset:
    """Read magnetic tiles (Huang et al. 2018): `MT_<kind>/Imgs/<stem>.jpg`, its mask `<stem>.png` beside it.

    All kinds that are there, or one kind (the category) and `Free`, which holds images without a defect:
    every second one is known to be good, the others are among the images. Names are `<kind>/<stem>`. A few
    images of the kind `Uneven` have an empty mask although the unevenness is
    plain to see; their truth counts as unknown.

    Raises:
        DataError: If no kind is there, the category is not among them, an image has no mask or one of another
            size, a mask has no image, or a file cannot be used.
    """
    home = request.find(
        lambda place: any(path.name.startswith(PREFIX) for path in subfolders(place)),
        f"folders such as {PREFIX}Blowhole/Imgs/",
    )
    kinds = [path.name.removeprefix(PREFIX) for path in subfolders(home) if path.name.startswith(PREFIX)]
    chosen = (request.category or "").removeprefix(PREFIX)
    if request.category is not None:
        if chosen not in kinds or chosen == FREE:
            defects = [kind for kind in kinds if kind != FREE]
            raise DataError(f"{home}: no category {request.category!r}; choose one of {', '.join(defects)}")
        kinds = [kind for kind in kinds if kind in (chosen, FREE)]
    collection = Collection(request, chosen)
    for kind in kinds:
        _add_tiles(collection, child(home, f"{PREFIX}{kind}", "Imgs"), kind)
    return collection.dataset()


def _add_tiles(collection: Collection, folder: Path, kind: str) -> None:
    files = image_files(folder)
    masks = by_stem(file for file in files if file.suffix.lower() == ".png")
    images = by_stem(file for file in files if file.suffix.lower() != ".png")
    for stem, mask in masks.items():
        if stem not in images:
            raise orphan(mask, images)
    for number, (stem, file) in enumerate(images.items()):
        if stem not in masks:
            raise DataError(f"{file}: no mask; expected {stem}.png beside it, so add it or remove the image")
        pair = collection.read(file, masks[stem])
        if kind == FREE and number % 2 == 0 and pair.truth is not None and not pair.truth.any():
            collection.add_known_good(pair)
            continue
        if kind != FREE and pair.truth is not None and not pair.truth.any():
            pair = replace(pair, truth=None)
        collection.add(pair, f"{kind}/{stem}", GOOD if kind == FREE else kind)
