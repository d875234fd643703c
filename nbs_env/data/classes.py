"""Images sorted into classes, some of which are anomalous: what image-level baselines learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nbs_env.data import mnist
from nbs_env.data.dataset import DataError
from nbs_env.data.images import image_files, read_image, resize_image


@dataclass(frozen=True)
class ClassDataset:
    """Images with a class each.

    Attributes:
        images: (n, channels, S, S) uint8.
        labels: (n,) int64, indices into `names`.
        names: of the classes.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]

    def split(
        self, anomalous: tuple[str, ...], share: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Indices for training, all normal, and for testing: the normal ones that are left and the anomalous.

        Args:
            anomalous: classes that count as anomalous.
            share: of each normal class, for training.
            rng: draws it.

        Raises:
            DataError: no such class, or no class is left.
        """
        for name in anomalous:
            if name not in self.names:
                raise DataError(f"there is no class {name!r}; choose from {', '.join(self.names)}")
        train, test = [], []
        for label, name in enumerate(self.names):
            members = np.flatnonzero(self.labels == label)
            count = 0 if name in anomalous else round(share * len(members))
            members = rng.permutation(members)
            train.append(members[:count])
            test.append(members[count:])
        if not sum(map(len, train)):
            raise DataError("every class is anomalous, so none is left to train on; name fewer")
        return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def read_mnist(root: Path) -> ClassDataset:
    """MNIST or Fashion-MNIST, classes "0" to "9"."""
    images, labels = mnist.read(root)
    return ClassDataset(images[:, None], labels, tuple(map(str, range(10))))


def read_folder(root: Path, size: int, channels: int) -> ClassDataset:
    """`root/CLASS/*.png` (or any image format), resized to `size`; `channels` is 1 (grey) or 3 (RGB).

    Raises:
        DataError: fewer than two classes, an empty one, or a file that is no image.
    """
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []
    if len(folders) < 2:
        raise DataError(f"{root} has no folders of classes; expected at least two, CLASS/image.png")
    images, labels = [], []
    for label, folder in enumerate(folders):
        files = image_files(folder)
        if not files:
            raise DataError(f"{folder} holds no images; fill it or remove it")
        for file in files:
            image = resize_image(read_image(file), size)
            grey = (image @ np.array([0.299, 0.587, 0.114]))[None].round()
            images.append(image.transpose(2, 0, 1) if channels == 3 else grey.astype(np.uint8))
            labels.append(label)
    return ClassDataset(np.stack(images), np.array(labels), tuple(folder.name for folder in folders))
