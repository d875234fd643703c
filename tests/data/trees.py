"""Small trees in the layout of the real data sets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

SHAPE = (80, 100)


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)


def mask(number: int) -> np.ndarray:
    result = np.zeros(SHAPE, dtype=bool)
    result[10 + number : 30, 20:60] = True
    return result


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array * np.uint8(255) if array.dtype == bool else array).save(path)


def save_labels(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    truth = np.empty((1, 1), dtype=[("Segmentation", object), ("Boundaries", object)])
    truth[0, 0] = (labels.astype(np.uint16), labels.astype(bool))
    scipy.io.savemat(path, {"groundTruth": truth})


def make_folder(root: Path) -> Path:
    """Images a (with a mask), b (unlabelled) and c (with an empty mask)."""
    for number, stem in enumerate("abc"):
        save(root / "images" / f"{stem}.png", image(number))
    save(root / "masks" / "a.png", mask(0))
    save(root / "masks" / "c.png", mask(0) & False)
    return root


def make_mvtec(root: Path) -> Path:
    for kind in ("bent", "good"):
        for number in range(2):
            save(root / "mvtec" / "grid" / "test" / kind / f"00{number}.png", image(number)[..., 0])
    for number in range(2):
        path = root / "mvtec" / "grid" / "ground_truth" / "bent" / f"00{number}_mask.png"
        save(path, mask(number))
    for number in range(3):
        save(root / "mvtec" / "grid" / "train" / "good" / f"00{number}.png", image(10 + number))
    shutil.copytree(root / "mvtec" / "grid", root / "mvtec" / "screw")
    (root / "mvtec" / "license.txt").touch()
    return root / "mvtec"


def make_crackforest(root: Path) -> Path:
    for number, stem in enumerate(("001", "002", "042")):
        save(root / "crackforest" / "image" / f"{stem}.jpg", image(number))
        labels = np.ones(SHAPE)
        labels[mask(number)] = 2
        labels[40:60, :50] = 3
        labels[62:64] = 4
        save_labels(root / "crackforest" / "groundTruth" / f"{stem}.mat", labels)
    return root / "crackforest"


def make_nanotwice(root: Path) -> Path:
    home = root / "nanotwice"
    for number in range(2):
        save(home / "Anomalous" / "images" / f"ITIA110{number}.tif", image(number)[..., 0])
        save(home / "Anomalous" / "gt" / f"ITIA110{number}_gt.png", mask(number))
    save(home / "Normal" / "ITIA1141.tif", np.zeros((84, 100), np.uint8))
    return home


def make_magnetic_tile(root: Path) -> Path:
    home = root / "magnetic_tile"
    for kind, marked in (("Blowhole", True), ("Uneven", False), ("Free", False)):
        for stem in ("x_0", "x_1") if kind == "Free" else ("x_1",):
            save(home / f"MT_{kind}" / "Imgs" / f"{stem}.jpg", image(1)[..., 0])
            save(home / f"MT_{kind}" / "Imgs" / f"{stem}.png", mask(1) & marked)
    soft = np.where(mask(2), 255, 0).astype(np.uint8)
    soft[9, 20:60:3] = np.arange(5, 117, 8)  # not strictly binary: noise below the middle
    save(home / "MT_Uneven" / "Imgs" / "x_2.jpg", image(2)[..., 0])
    save(home / "MT_Uneven" / "Imgs" / "x_2.png", soft)
    return home
