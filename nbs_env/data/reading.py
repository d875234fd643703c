"""What the readers share: the request they answer, where a data set lies, and the images they collect."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbs_env.common.errors import DataError, DataWarning
from nbs_env.data import masks
from nbs_env.data.dataset import GOOD, AnomalyDataset, some
from nbs_env.data.folders import by_stem as by_stem  # commands take it from here
from nbs_env.data.folders import image_files, need_directory
from nbs_env.data.images import (
    UNTURNED,
    WHITE_12,
    WHITE_16,
    Original,
    Picture,
    read_image,
    read_with_white,
    resize_image,
    resize_mask,
)

MIN_SIDE = 64
"""Smallest side in pixels that an image may have: the patch's."""
ON_DISC = 2**30
"""Bytes past which images, or masks, lie in a temporary file (in `TMPDIR`) that is mapped into memory."""


@dataclass(frozen=True)
class Request:
    """The arguments of `load`. A reader takes those that concern it."""

    name: str
    root: Path | None = None
    category: str | None = None
    image_size: int = 256
    seed: int = 0
    count: int = 40
    difficulty: float = 0.5
    mask_values: tuple[int, ...] = ()

    def without_mask_values(self) -> None:
        """Raise `DataError` if values were chosen where masks are no image files."""
        if self.mask_values:
            raise DataError(f"{self.name} has no mask files of its own; leave out mask_values")

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
        need_directory(root, f"the folder of {self.name} ({expected})")
        for place in (root, root / self.name):
            if is_home(place):
                return place
        raise DataError(f"{root}: no {self.name} here or in {self.name}/ inside; expected {expected}")


class _Stack:
    """Arrays of one shape and type, appended one by one; past `ON_DISC` bytes on disc."""

    def __init__(self, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.shape, self.dtype = shape, dtype
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

    def whole(self) -> NDArray[Any]:
        """All of them."""
        shape = (self.count, *self.shape)
        if self.file is None:
            return np.array(self.parts, self.dtype).reshape(shape)
        self.file.flush()
        return np.memmap(self.file, self.dtype, "r+", shape=shape)


class Whites:
    """Which levels became 255 in the files of one data set: one range for all that have 16 bit."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._files: dict[int, list[Path]] = {}

    def add(self, file: Path, white: int) -> None:
        """Take in that `white` became 255 in a file.

        Raises:
            DataError: If other files have another range.
        """
        self._files.setdefault(white, []).append(file)
        if WHITE_12 in self._files and WHITE_16 in self._files:
            raise DataError(
                f"{self._files[WHITE_12][0]}: no level of 16 bit above 4095, so 12 bit, but "
                f"{self._files[WHITE_16][0].name} has 16; save both with one range, or with 8 bit"
            )

    def close(self) -> int:
        """The level that became 255; a `DataWarning` says so for 12 bit."""
        twelve = [file.name for file in self._files.get(WHITE_12, [])]
        if twelve:
            _warn(f"{self._name}: no level of 16 bit above 4095 in {some(twelve)}, so 0..4095 became 0..255")
        return max(self._files, default=255)


@dataclass(frozen=True)
class Pair:
    """An image and what is known of its anomalies, checked."""

    file: Path
    """The image's."""
    image: NDArray[np.uint8]
    """RGB `(h, w, 3)`."""
    truth: NDArray[np.bool_] | None
    """True where it is anomalous, `(h, w)`; None if that is not known."""


class Collection:
    """Reads, checks and resizes the images of a data set one after the other.

    Args:
        request: what was asked for.
        part: the category or folder that it is, if it is one of several.
    """

    def __init__(self, request: Request, part: str = "") -> None:
        self.name = f"{request.name}/{part}" if part else request.name
        self.image_size, self.mask_values = request.image_size, request.mask_values
        square = (self.image_size, self.image_size)
        self._images, self._good = _Stack((*square, 3), np.uint8), _Stack((*square, 3), np.uint8)
        self._masks = _Stack(square, np.bool_)
        self._originals: list[Original] = []
        self._good_originals: list[Original] = []
        self._has_mask: list[bool] = []
        self._names: list[str] = []
        self._kinds: list[str] = []
        self._whites = Whites(self.name)
        self._anomalous = False
        self._keeping_size = self.image_size
        # Files to warn of.
        self._vanished: list[str] = []
        self._mostly: list[str] = []
        self._unturned: list[str] = []

    def read(self, file: Path, mask: Path | NDArray[np.bool_] | None) -> Pair:
        """Read an image and its mask.

        Args:
            file: The image.
            mask: A mask file or an array `(h, w)`; None where there is none.

        Raises:
            DataError: If a file cannot be read, the image is too small, the range of its levels is not that
                of the others, or the mask has another size or cannot be understood.
        """
        image, white, picture = read_with_white(file)
        _reject_small(file, image, MIN_SIDE)
        self._whites.add(file, white)
        self._note_damage(picture)
        truth = None if isinstance(mask, Path) else mask
        if isinstance(mask, Path):
            drawn = masks.open_mask(mask)
            # Before a mask's content is judged: sizes tell more.
            masks.reject_other_size(drawn, picture, marks=False)
            truth = masks.marked(drawn, self.mask_values)
            masks.reject_other_size(drawn, picture, marks=bool(truth.any()))
            self._note_damage(drawn)
            if truth.mean() > 0.5:
                self._mostly.append(mask.name)
        elif truth is not None and truth.shape != image.shape[:2]:
            raise DataError(
                f"mask of {file}: {truth.shape[1]}x{truth.shape[0]} pixels, but its image {file.name} has "
                f"{image.shape[1]}x{image.shape[0]}; make them equal"
            )
        return Pair(file, image, truth)

    def _note_damage(self, picture: Picture) -> None:
        if picture.exif_damaged:
            self._unturned.append(Path(picture.name).name)

    def add(self, pair: Pair, name: str, kind: str) -> None:
        """Add an image.

        A defect that vanishes at this image size leaves the truth of its image unknown.

        Args:
            pair: The image and its truth.
            name: Its name in the data set.
            kind: Its defect kind. A `good` image is known to be so without a mask.

        Raises:
            DataError: If a `good` image has a mask that is not empty.
        """
        size, truth = self.image_size, pair.truth
        if kind == GOOD and truth is not None and truth.any():
            raise DataError(
                f"{pair.file}: among the good images, but its mask marks a defect; move it or clear the mask"
            )
        small = np.zeros((size, size), dtype=np.bool_) if truth is None else resize_mask(truth, size)
        known = truth is not None or kind == GOOD
        if truth is not None and truth.any() and not small.any():
            known = False
            self._vanished.append(name)
            self._keeping_size = _keeping_size(truth, self._keeping_size)
        self._anomalous |= bool(small.any())
        self._images.append(resize_image(pair.image, size))
        self._masks.append(small)
        self._has_mask.append(known)
        self._names.append(name)
        self._kinds.append(kind)
        self._originals.append(Original.of(pair.file, pair.image.shape[:2], truth))

    def add_good(self, folder: Path) -> None:
        """Add the images of a folder, if it is there: known to be good, neither labelled nor scored.

        Raises:
            DataError: If there is none in it, or a file cannot be used.
        """
        for file in by_stem(image_files(folder)).values() if folder.is_dir() else ():
            self.add_known_good(self.read(file, None))

    def add_known_good(self, pair: Pair) -> None:
        """Add an image that is known to be good, neither labelled nor scored."""
        self._good.append(resize_image(pair.image, self.image_size))
        self._good_originals.append(Original.of(pair.file, pair.image.shape[:2], None))

    def dataset(self) -> AnomalyDataset:
        """All images added. A `DataWarning` says what may not be as was meant.

        Raises:
            DataError: If every defect vanishes at this image size, or no mask has one of `mask_values`.
        """
        lost = (
            f"{self.name}: too thin for image_size {self.image_size}: the defects in {some(self._vanished)}"
        )
        if self._vanished and not self._anomalous:
            raise DataError(f"{lost}, so none is left; image_size {self._keeping_size} keeps them")
        if self.mask_values and any(self._has_mask) and not self._anomalous:
            values = ", ".join(map(str, self.mask_values))
            raise DataError(
                f"{self.name}: no mask has a pixel of the mask_values {values}; name values that the masks "
                "store"
            )
        if self._vanished:
            _warn(f"{lost}; they count as without a mask, and image_size {self._keeping_size} keeps them")
        if self._mostly:
            _warn(f"{self.name}: mask {some(self._mostly)}: {masks.INVERTED}")
        if self._unturned:
            _warn(f"{self.name}: {some(self._unturned)}: {UNTURNED}")
        return AnomalyDataset(
            name=self.name,
            images=self._images.whole(),
            masks=self._masks.whole(),
            has_mask=np.array(self._has_mask),
            names=tuple(self._names),
            kinds=tuple(self._kinds),
            sizes=tuple(original.size for original in self._originals),
            good=self._good.whole(),
            originals=tuple(self._originals),
            good_originals=tuple(self._good_originals),
            white=self._whites.close(),
        )


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=3)


def _keeping_size(truth: NDArray[np.bool_], size: int) -> int:
    """A side in pixels, `size` or larger, at which a mask keeps an anomalous pixel; its own side does."""
    while not resize_mask(truth, size).any():
        size = (size * 5 // 4 // 64 + 1) * 64
    return size


def read_large(file: Path, min_side: int, white: int | None = None) -> NDArray[np.uint8]:
    """Read an image as `read_image` does, `(h, w, 3)`, that a patch fits into.

    Raises:
        DataError: If the file cannot be read, or a side is shorter than `min_side` pixels.
    """
    image = read_image(file, white)
    _reject_small(file, image, min_side)
    return image


def _reject_small(file: Path, image: NDArray[np.uint8], min_side: int) -> None:
    height, width = image.shape[:2]
    if min(height, width) < min_side:
        raise DataError(
            f"{file}: {width}x{height} pixels, smaller than a patch; "
            f"expected at least {min_side} on each side, so remove or enlarge it"
        )
