"""MNIST and Fashion-MNIST: four gzipped or plain idx files."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from nbs_env.common.errors import DataError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


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


def read(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """All 70 000 images (n, 28, 28) uint8, those for training first, and their labels (n,) int64.

    Raises:
        DataError: a file is missing or wrong.
    """
    arrays = []
    for name in FILES:
        found = [file for file in (root / f"{name}.gz", root / name) if file.is_file()]
        if not found:
            raise DataError(f"{root} lacks {name}.gz; expected {', '.join(FILES)}, gzipped or not")
        arrays.append(read_idx(found[0]))
    side = arrays[0].shape[1:]
    for name, array in zip(FILES, arrays, strict=True):
        if len(side) != 2 or array.shape[1:] != (side if "images" in name else ()):
            raise DataError(f"{root}: {name} has the shape {array.shape}; download it again")
    images, labels = np.concatenate(arrays[::2]), np.concatenate(arrays[1::2]).astype(np.int64)
    if len(images) != len(labels):
        raise DataError(f"{root}: {len(images)} images but {len(labels)} labels; download the files again")
    return images, labels
