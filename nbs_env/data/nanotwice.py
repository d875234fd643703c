"""NanoTWICE (Carrera et al. 2017): nanofibres under an electron microscope, grey.

    Normal/*.tif                     five images without an anomaly, 1024x700
    Anomalous/images/ITIA1101.tif    forty images with anomalies, 1024x696
    Anomalous/gt/ITIA1101_gt.png     their masks

The microscope's caption is cut off already; the two heights differ, and all images are resized alike.
"""

from __future__ import annotations

from nbs_env.common.errors import DataError
from nbs_env.data.dataset import GOOD, AnomalyDataset
from nbs_env.data.folders import by_stem, child, image_files, masks_of
from nbs_env.data.reading import Collection, Request


def read(request: Request) -> AnomalyDataset:
    """Read all images, the anomalous ones first; names are `Anomalous/<stem>` and `Normal/<stem>`.

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
    collection = Collection(request.name, request.image_size, request.min_side, request.mask_values)
    for stem, file in images.items():
        if stem not in masks:
            raise DataError(f"{file}: no mask; expected Anomalous/gt/{stem}_gt.png, so add it")
        collection.add(collection.read(file, masks[stem]), f"Anomalous/{stem}", "anomalous")
    for stem, file in by_stem(image_files(child(home, "Normal"))).items():
        collection.add(collection.read(file, None), f"Normal/{stem}", GOOD)
    return collection.dataset()
