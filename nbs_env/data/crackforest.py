"""CrackForest (Shi et al. 2016): road surfaces, `image/001.jpg` with `groundTruth/001.mat`.

A `.mat` file holds a label for each pixel: 1 background, 2 crack, 3 (in 22 files) and 4 (in 5 files). What 3
and 4 mean is not documented; laid over the images they show:

* 3 fills the slabs of intact pavement that a net of cracks encloses. They look like the rest of the road and
  cover up to 30 % of an image (097, 101), so counting them as cracks would call normal surface anomalous.
* 4 follows strands that are barely visible, if at all, beside the cracks, with at most 0.3 % of an image. The
  annotators kept them apart from the cracks.

Anomalous is therefore what they called a crack: the label 2 alone. The mask of 042 shows the cracks of
another image; the image stays, without a mask.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from nbs_env.common.errors import DataError
from nbs_env.data.dataset import AnomalyDataset
from nbs_env.data.folders import by_stem, child, image_files, masks_of
from nbs_env.data.reading import Collection, Request

CRACK = 2
"""The label of a crack."""
WRONG_MASKS = frozenset({"042"})
"""Images whose ground truth belongs to another image."""


def read(request: Request) -> AnomalyDataset:
    """Read all images; names are the stems.

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
    collection = Collection(request.name, request.image_size, request.min_side)
    for stem, file in images.items():
        if stem not in truths:
            raise DataError(f"{file}: no ground truth; expected groundTruth/{stem}.mat, so add it")
        if stem in WRONG_MASKS:
            collection.add(collection.read(file, None), stem, "")
        else:
            collection.add(collection.read(file, read_labels(truths[stem]) == CRACK), stem, "crack")
    return collection.dataset()


def read_labels(path: Path) -> NDArray[np.int64]:
    """Read the label of each pixel, `(h, w)`, from a ground-truth file.

    Raises:
        DataError: If the file is damaged or has another structure.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            labels = np.asarray(scipy.io.loadmat(path)["groundTruth"][0, 0]["Segmentation"])
    except Exception as error:  # SciPy raises nearly anything on a damaged file
        raise _unreadable(path) from error
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or not labels.size:
        raise _unreadable(path)
    return labels.astype(np.int64)


def _unreadable(path: Path) -> DataError:
    return DataError(
        f"{path}: not a CrackForest ground truth (expected a MATLAB 5 file with "
        "groundTruth(1,1).Segmentation); fetch it anew"
    )
