"""What the readers share: the request they answer, where a data set lies, and the images they collect."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbs_env.data.dataset import GOOD, AnomalyDataset, DataError
from nbs_env.data.images import read_image, read_mask, resize_image, resize_mask


@dataclass(frozen=True)
class Request:
    """What `load` was asked for. A reader takes the fields that concern it."""

    name: str
    """Name of the reader."""
    root: Path | None = None
    """The data set's folder, or the folder that holds it."""
    category: str | None = None
    """One of several sets that a data set consists of."""
    image_size: int = 256
    """Side in pixels that images and masks are resized to."""
    min_side: int = 64
    """Smallest side in pixels that an image file may have."""
    seed: int = 0
    """Seed of images that are made rather than read."""
    count: int = 40
    """Number of images that are made rather than read."""
    difficulty: float = 0.5
    """How hard the defects of made images are to find, from 0 to 1."""

    def without_category(self) -> None:
        """Raise `DataError` if a category was asked for where there are none."""
        if self.category is not None:
            raise DataError(f"{self.name} has no categories; leave out {self.category!r}")

    def find(self, is_home: Callable[[Path], bool], expected: str) -> Path:
        """Find the data set's folder: the root itself, or the folder inside it that has the reader's name.

        Args:
            is_home: Whether a folder has the data set's layout.
            expected: The layout in words, for the message.

        Raises:
            DataError: If no root was given, it does not exist, or the layout is found in neither place.
        """
        if self.root is None:
            raise DataError(f"{self.name} is read from files; give its folder as root (it holds {expected})")
        root = Path(self.root)
        if not root.is_dir():
            raise DataError(f"{root}: no such directory; expected the folder of {self.name} ({expected})")
        for place in (root, root / self.name):
            if is_home(place):
                return place
        raise DataError(f"{root}: no {self.name} here or in {self.name}/ inside; expected {expected}")


ON_DISC = 2**30
"""Bytes past which images, or masks, lie in a temporary file (in `TMPDIR`) that is mapped into memory."""


class _Stack:
    """Arrays of one shape and type, appended one by one."""

    def __init__(self) -> None:
        self.parts: list[NDArray[Any]] = []
        self.count = 0
        self.file: Any = None

    def append(self, array: NDArray[Any]) -> None:
        self.parts.append(array)
        self.count += 1
        if self.file is None and self.count * array.nbytes > ON_DISC:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the map
        if self.file is not None:
            self.file.writelines(np.ascontiguousarray(part).data for part in self.parts)
            self.parts.clear()

    def whole(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """All of them, each of `shape` and `dtype`."""
        if self.file is None:
            return np.stack(self.parts)
        self.file.flush()
        return np.memmap(self.file, dtype, "r+", shape=(self.count, *shape))


@dataclass
class Collection:
    """Reads, checks and resizes the images of a data set one after the other."""

    name: str
    image_size: int
    min_side: int
    _images: _Stack = field(default_factory=_Stack)
    _masks: _Stack = field(default_factory=_Stack)
    _has_mask: list[bool] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _kinds: list[str] = field(default_factory=list)
    _sizes: list[tuple[int, int]] = field(default_factory=list)

    def add(self, file: Path, name: str, kind: str, mask: Path | NDArray[np.bool_] | None) -> None:
        """Add the image of a file.

        Args:
            file: The image.
            name: Its name in the data set.
            kind: Its defect kind. A `good` image has an empty mask that need not be given.
            mask: A mask file or an array `(h, w)`; None where the truth is unknown, or the image is good.

        Raises:
            DataError: If a file cannot be read, the image is too small, or the mask has another size.
        """
        image = read_large(file, self.min_side)
        height, width = image.shape[:2]
        truth = read_mask(mask) if isinstance(mask, Path) else mask
        if truth is not None and truth.shape != (height, width):
            where = mask if isinstance(mask, Path) else f"mask of {file}"
            raise DataError(
                f"{where}: {truth.shape[1]}x{truth.shape[0]} pixels, but its image {file.name} has "
                f"{width}x{height}; make them equal"
            )
        self._images.append(resize_image(image, self.image_size))
        self._has_mask.append(truth is not None or kind == GOOD)
        empty = np.zeros((self.image_size, self.image_size), dtype=np.bool_)
        self._masks.append(empty if truth is None else resize_mask(truth, self.image_size))
        self._names.append(name)
        self._kinds.append(kind)
        self._sizes.append((height, width))

    def dataset(self) -> AnomalyDataset:
        """All images added; past `ON_DISC` bytes on disc."""
        side = self.image_size
        return AnomalyDataset(
            name=self.name,
            images=self._images.whole((side, side, 3), np.uint8),
            masks=self._masks.whole((side, side), np.bool_),
            has_mask=np.array(self._has_mask),
            names=tuple(self._names),
            kinds=tuple(self._kinds),
            sizes=tuple(self._sizes),
        )


def read_large(file: Path, min_side: int) -> NDArray[np.uint8]:
    """Read an image as `read_image` does, `(h, w, 3)`, that a patch fits into.

    Raises:
        DataError: If the file cannot be read, or a side is shorter than `min_side` pixels.
    """
    image = read_image(file)
    height, width = image.shape[:2]
    if min(height, width) < min_side:
        raise DataError(
            f"{file}: {width}x{height} pixels, smaller than a patch; "
            f"expected at least {min_side} on each side, so remove or enlarge it"
        )
    return image


def by_stem(files: Iterable[Path], ending: str = "") -> dict[str, Path]:
    """Map each file's stem, without an ending such as `_mask`, to the file.

    Raises:
        DataError: If two files share a stem, or a stem lacks the ending.
    """
    found: dict[str, Path] = {}
    for file in files:
        if not file.stem.endswith(ending):
            raise DataError(f"{file}: its name should end in {ending}{file.suffix}; rename or remove it")
        stem = file.stem.removesuffix(ending)
        if stem in found:
            raise DataError(f"{file}: {found[stem].name} has the same stem; rename or remove one of them")
        found[stem] = file
    return found


def reject_orphans(masks: dict[str, Path], images: dict[str, Path]) -> None:
    """Raise `DataError` if a mask belongs to no image."""
    for stem, mask in masks.items():
        if stem not in images:
            raise DataError(f"{mask}: a mask without its image; add an image named {stem} or remove the mask")


def subfolders(directory: Path) -> list[Path]:
    """The visible subfolders of a directory, sorted; none where the directory is missing."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
