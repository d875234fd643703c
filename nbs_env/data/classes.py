"""Images sorted into classes, some of which are anomalous: what image-level baselines learn from."""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nbs_env.common.errors import DataError
from nbs_env.data import cifar10, load
from nbs_env.data.dataset import GOOD
from nbs_env.data.folder import is_mvtec, read_mvtec_training
from nbs_env.data.folders import entries, image_files, subfolders, warn_left_out
from nbs_env.data.images import read_with_white, resize_image
from nbs_env.data.reading import Whites

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


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
    """MNIST or Fashion-MNIST, all 70 000 images, those for training first; classes "0" to "9".

    Raises:
        DataError: one of the four idx files, gzipped or not, is missing or wrong.
    """
    arrays = []
    for name in MNIST_FILES:
        found = [file for file in (root / f"{name}.gz", root / name) if file.is_file()]
        if not found:
            raise DataError(f"{root} lacks {name}.gz; expected {', '.join(MNIST_FILES)}, gzipped or not")
        arrays.append(read_idx(found[0]))
    side = arrays[0].shape[1:]
    for name, array in zip(MNIST_FILES, arrays, strict=True):
        if len(side) != 2 or array.shape[1:] != (side if "images" in name else ()):
            raise DataError(f"{root}: {name} has the shape {array.shape}; download it again")
    images, labels = np.concatenate(arrays[::2]), np.concatenate(arrays[1::2]).astype(np.int64)
    if len(images) != len(labels) or labels.max(initial=0) > 9:
        raise DataError(
            f"{root}: {len(images)} images and {len(labels)} labels up to {labels.max(initial=0)}; expected "
            "as many labels, from 0 to 9, so download the files again"
        )
    return ClassDataset(images[:, None], labels, tuple(map(str, range(10))))


def read_idx(file: Path) -> np.ndarray:
    """The array of an idx file of bytes, gzipped or not.

    Raises:
        DataError: the file is absent, damaged, or of another kind.
    """
    try:
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
        zeros, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        array = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
        if zeros or kind != 8 or array.size != math.prod(shape):
            raise ValueError("not an idx file of bytes")
        return array.reshape(shape)
    except Exception as error:  # gzip alone raises OSError, EOFError, struct.error and zlib.error
        raise DataError(f"{file}: not a readable idx file ({error}); download it again") from error


def read_cifar10(root: Path, size: int, channels: int) -> ClassDataset:
    """CIFAR-10, see `nbs_env.data.cifar10`; resized to `size`, `channels` 1 (grey) or 3 (RGB)."""
    images, labels = cifar10.read(root)
    return ClassDataset(np.stack([_fit(image, size, channels) for image in images]), labels, cifar10.NAMES)


def read_folder(root: Path, size: int, channels: int) -> ClassDataset:
    """`root/CLASS/*.png` (or any image format), resized to `size`; `channels` is 1 (grey) or 3 (RGB).

    Raises:
        DataError: fewer than two classes, an empty one, or a file that is no image.
    """
    folders = subfolders(root)
    if len(folders) < 2:
        raise DataError(f"{root} has no folders of classes; expected at least two, CLASS/image.png")
    warn_left_out(root, [path for path in entries(root) if path not in folders])
    return _read_classes({folder.name: folder for folder in folders}, size, channels)


def read_plant_village(root: Path, size: int, channels: int) -> dict[str, ClassDataset]:
    """Plant Village (Hughes and Salathe 2015), folders `Species___condition`; by species, healthy is GOOD.

    `root` is the folder that holds them: that of one variant, where there are several.

    Raises:
        DataError: no species with healthy and with diseased leaves, or a file that is no image.
    """
    species: dict[str, dict[str, Path]] = {}
    for folder in subfolders(root):
        name, separator, condition = folder.name.partition("___")
        if separator:
            species.setdefault(name, {})[GOOD if condition == "healthy" else condition] = folder
    species = {name: folders for name, folders in species.items() if GOOD in folders and len(folders) > 1}
    if not species:
        raise DataError(
            f"{root} holds no Plant Village; expected Species___healthy and Species___DISEASE, so give the "
            "folder of one variant (segmented, say)"
        )
    used = [folder for folders in species.values() for folder in folders.values()]
    warn_left_out(root, [path for path in entries(root) if path not in used])
    return {name: _read_classes(folders, size, channels) for name, folders in species.items()}


def read_mvtec(root: Path, size: int, channels: int) -> dict[str, ClassDataset]:
    """MVTec AD by category: all images without a defect are GOOD, those of `train` first.

    Raises:
        DataError: there is no category, or a file cannot be used.
    """
    homes = [folder for folder in subfolders(root) if is_mvtec(folder)]
    if not homes:
        raise DataError(
            f"{root} holds no categories of MVTec AD; expected CATEGORY/train/good and CATEGORY/test"
        )
    found = {}
    for home in homes:
        train = read_mvtec_training(home, size)
        test = load("mvtec", home, image_size=size)
        names = (GOOD, *sorted(set(test.kinds) - {GOOD}))
        labels = np.array([0] * len(train) + [names.index(kind) for kind in test.kinds])
        images = np.stack([_fit(image, size, channels) for image in (*train, *test.images)])
        found[home.name] = ClassDataset(images, labels, names)
    return found


def _fit(image: np.ndarray, size: int, channels: int) -> np.ndarray:
    """RGB (h, w, 3) uint8 as (channels, size, size)."""
    image = resize_image(image, size)
    if channels == 3:
        return image.transpose(2, 0, 1)
    return (image @ np.array([0.299, 0.587, 0.114]))[None].round().astype(np.uint8)


def _read_classes(folders: dict[str, Path], size: int, channels: int) -> ClassDataset:
    images, labels, whites = [], [], Whites(", ".join(folders))
    for label, folder in enumerate(folders.values()):
        for file in image_files(folder):
            image, white, _ = read_with_white(file)
            whites.add(file, white)
            images.append(_fit(image, size, channels))
            labels.append(label)
    whites.close()
    return ClassDataset(np.stack(images), np.array(labels), tuple(folders))
