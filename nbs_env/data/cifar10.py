"""CIFAR-10 (Krizhevsky and Hinton 2009): the binary or Python version, or JPEG files in a zip archive."""

from __future__ import annotations

import codecs
import io
import pickle
import warnings
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from nbs_env.common.errors import DataError, DataWarning
from nbs_env.data.dataset import some
from nbs_env.data.folders import SUFFIXES, entries, visible
from nbs_env.data.images import decode, to_rgb8

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
EXPECTED = "data_batch_1..5 and test_batch (with or without .bin), or one zip of */CLASS/*.jpg"


class _Arrays(pickle.Unpickler):
    """Reads dictionaries of NumPy arrays and plain values, and refuses anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """What an array is pickled with, by NumPy 1 and 2, and bytes by Python 3."""
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.zeros(0).__reduce__()[0]
        if (module, name) == ("_codecs", "encode"):
            return codecs.encode
        raise pickle.UnpicklingError(f"it wants {module}.{name}")


def read(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images (n, 32, 32, 3) uint8, those for training first, and their labels (n,), indices into NAMES.

    Raises:
        DataError: none of the three forms is there, or a file is damaged.
    """
    for suffix, one in ((".bin", _read_binary), ("", _read_python)):
        files = [root / (name + suffix) for name in BATCHES]
        if any(file.is_file() for file in files):
            parts = [one(file) for file in files]
            return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    archives = [path for path in entries(root) if path.suffix.lower() == ".zip"]
    if len(archives) != 1:
        raise DataError(f"{root} holds no CIFAR-10; expected {EXPECTED}")
    return _read_zip(archives[0])


def _planes(data: np.ndarray, labels: np.ndarray, file: Path) -> tuple[np.ndarray, np.ndarray]:
    if (
        labels.ndim != 1
        or data.shape != (len(labels), 3072)
        or data.dtype != np.uint8
        or not np.isin(labels, range(10)).all()
    ):
        raise DataError(f"{file}: not a batch of CIFAR-10; download it again")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)


def _read_binary(file: Path) -> tuple[np.ndarray, np.ndarray]:
    content = np.fromfile(file, np.uint8) if file.is_file() else np.zeros(0, np.uint8)
    if not len(content) or len(content) % 3073:
        raise DataError(f"{file}: missing or truncated; download it again")
    records = content.reshape(-1, 3073)
    return _planes(records[:, 1:], records[:, 0], file)


def _read_python(file: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _Arrays(io.BytesIO(file.read_bytes()), encoding="bytes").load()
        return _planes(np.asarray(batch[b"data"]), np.asarray(batch[b"labels"]), file)
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may ask for nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file}: not a readable batch of CIFAR-10 ({reason}); download it again") from error


def _read_zip(file: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels, others = [], [], []
    try:
        with zipfile.ZipFile(file) as archive:
            # "train" before "test", as in the other forms
            for name in sorted(archive.namelist(), key=lambda name: ("test" in name, name)):
                path = PurePosixPath(name)
                if name.endswith("/") or not all(map(visible, path.parts)):
                    continue
                if path.parent.name in NAMES and path.suffix.lower() in SUFFIXES:
                    picture = decode(io.BytesIO(archive.read(name)), f"{file}: {name}")
                    images.append(to_rgb8(picture.pixels, picture.name))
                    labels.append(NAMES.index(path.parent.name))
                else:
                    others.append(name)
    except DataError:
        raise
    except Exception as error:  # zipfile also raises RuntimeError, NotImplementedError and zlib.error
        raise DataError(f"{file}: not a readable zip of images ({error}); download it again") from error
    if not images or {image.shape for image in images} != {(32, 32, 3)}:
        raise DataError(f"{file}: expected images of 32x32 in folders named {', '.join(NAMES)}")
    if others:
        message = f"{file}: left out: {some(others)} ({len(others)} in all)"
        warnings.warn(message, DataWarning, stacklevel=2)
    return np.stack(images), np.array(labels)
