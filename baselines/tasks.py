"""What image-level baselines learn to tell apart: images in classes, and which of them are anomalous."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from baselines.d_anogan import wheel
from nbs_env.common.errors import RunError
from nbs_env.data import GOOD
from nbs_env.data.classes import (
    ClassDataset,
    read_cifar10,
    read_folder,
    read_mnist,
    read_mvtec,
    read_plant_village,
)
from nbs_env.data.folders import need_directory
from nbs_env.detect.metrics import image_auroc


def read_classes(dataset: str, root: Path | None, size: int, channels: int) -> ClassDataset:
    """Read `mnist`, `fashion_mnist`, `cifar10` or `folder`; RunError at a size that the data do not have."""
    root = home(dataset, root)
    if dataset == "folder":
        return read_folder(root, size, channels)
    if dataset == "cifar10":
        return read_cifar10(root, size, channels)
    if (size, channels) != (28, 1):
        raise RunError(f"{dataset} is 28 pixels and grey; give --model.size 28 --model.channels 1")
    return read_mnist(root)


TORCHVISION = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw", "cifar10": "cifar-10-batches-py"}
"""Where in its root torchvision puts a data set."""


def home(dataset: str, root: Path | None) -> Path:
    """The folder of `dataset`: `root`, or the one in it that has the data set's name or is torchvision's."""
    if root is None:
        raise RunError(f"{dataset} is read from files; give its folder with --data-root")
    need_directory(root, f"the folder of {dataset}, or the one that holds it")
    # torchvision's first: where case does not matter, its MNIST/ would pass for mnist/
    inside = (root / TORCHVISION.get(dataset, dataset), root / dataset)
    return next((place for place in inside if place.is_dir()), root)


class Task(NamedTuple):
    """What one model is trained for."""

    data: ClassDataset
    anomalous: tuple[str, ...]
    share: float
    """Of each other class, for training."""
    apart: bool = False
    """Whether each anomalous class is scored by itself against the normal images."""

    def draw(
        self, limit: int, test_limit: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Indices for training and for testing, and which of the latter are anomalous.

        Args:
            limit: images to train on, at most; 0: all.
            test_limit: images of each kind to test on, at most; 0: all.
            rng: draws them.

        Returns:
            Two arrays of indices, (n,) and (m,), and by anomalous class (by "" unless `apart`) what the test
            images are, (m,): 1 anomalous, 0 normal, -1 of another anomalous class.

        Raises:
            RunError: there is no image of a kind to test on.
        """
        train, test = self.data.split(self.anomalous, self.share, rng)
        if limit:
            train = rng.permutation(train)[:limit]
        codes = [self.data.names.index(name) for name in self.anomalous]
        labels = self.data.labels[test]
        kinds = np.where(np.isin(labels, codes), labels if self.apart else 0, -1)
        if test_limit:
            rows = [rng.permutation(np.flatnonzero(kinds == kind))[:test_limit] for kind in np.unique(kinds)]
            kept = np.sort(np.concatenate(rows))
            test, kinds = test[kept], kinds[kept]
        names = dict(zip(self.anomalous, codes, strict=True)) if self.apart else {"": 0}
        found = {name: np.select([kinds == code, kinds == -1], [1, 0], -1) for name, code in names.items()}
        for name, truth in found.items():
            for wanted, kind in enumerate(("normal", name or "anomalous")):
                if wanted not in truth:
                    raise RunError(f"no {kind} image is left to test on; more are needed")
        return train, test, found


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve of `scores` (m,), higher for what is anomalous; `truth` as `draw` has it."""
    rows = truth >= 0
    value = image_auroc(scores[rows], truth[rows] == 1)
    assert value is not None, "both kinds are in the test set"
    return value


def class_tasks(
    dataset: str, root: Path | None, size: int, channels: int, protocol: int, seed: int, per_class: int = 250
) -> dict[str, Task]:
    """What can be trained for, by the name that `--classes` takes; errors are those of `read_classes`.

    Args:
        dataset: `synthetic` (200 wheels a class), `wheel` (with the anomalies of the D-AnoGAN thesis),
            `mvtec`, `plant_village`, or one that `read_classes` knows.
        root: its folder, or the one that holds it; no matter for wheels.
        size, channels: of the images; 1 (grey) or 3 (RGB).
        protocol: 1: the class is anomalous; 2: all others are. `wheel` and the two after it have their own.
        seed, per_class: of wheels.
    """
    if dataset == "mvtec":
        found = read_mvtec(home(dataset, root), size, channels)
        return {name: Task(data, data.names[1:], 0.7) for name, data in found.items()}
    if dataset == "plant_village":
        found = read_plant_village(home(dataset, root), size, channels)
        return {n: Task(data, tuple(k for k in data.names if k != GOOD), 0.8) for n, data in found.items()}
    if dataset in ("synthetic", "wheel"):
        images, labels, _ = wheel.make(200 if dataset == "synthetic" else per_class, size, seed)
        pool = ClassDataset(images[:, None].repeat(channels, 1), labels, wheel.CLASSES)
        if dataset == "wheel":
            return {"wheel": Task(pool, wheel.ANOMALIES, 0.8, apart=True)}
    else:
        pool = read_classes(dataset, root, size, channels)
    others = {name: tuple(other for other in pool.names if other != name) for name in pool.names}
    return {name: Task(pool, (name,) if protocol == 1 else others[name], 0.8) for name in pool.names}
