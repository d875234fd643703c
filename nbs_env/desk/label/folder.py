"""The folder that is labelled: what its images and masks are, and how a mask is changed.

An image is called by its number in the order of the names, so no path ever comes from outside.
"""

from __future__ import annotations

import io
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nbs_env.common.checkpoint import replace_file
from nbs_env.common.errors import DataError
from nbs_env.data.dataset import GOOD
from nbs_env.data.folders import by_stem, child, entries, image_files, masks_of
from nbs_env.data.images import FORMATS, ORIENTATION, Picture, decode, read_with_white
from nbs_env.data.masks import marked, open_mask, reject_other_size

UNLABELLED = "none"
"""The version of a mask that is not there."""
SHOWN = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "BMP": "image/bmp"}
"""Formats that a browser shows as they are."""
Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""
Look = tuple[tuple[int, int], int | None]
"""Width and height of an image, upright, and its EXIF orientation."""


class Conflict(Exception):
    """A mask is no longer the one that a change was made to."""


class Outside(Exception):
    """A file leads out of the folder."""


class Folder:
    """Images and masks of one folder, `images/` and `masks/`; safe for threads.

    All methods raise `DataError` where an image or a mask cannot be read, and `Outside` where it leads out of
    the folder; those that change a mask raise `Conflict` where it has another version by now.

    Args:
        home: the folder.

    Raises:
        DataError: there is no such folder, no image in it or in its good/, or a mask that belongs to none.
    """

    def __init__(self, home: Path) -> None:
        if not home.is_dir():
            raise DataError(f"{home}: no such folder; give one that holds images/")
        self.home = home.resolve()
        pictures = child(self.home, "images")
        if not pictures.is_dir():
            raise DataError(f"{home}: no images/ in this folder; make one and move the images into it")
        if not pictures.resolve().is_relative_to(self.home):
            raise DataError(f"{pictures}: a link out of {home}; copy the images into the folder")
        found = by_stem(image_files(pictures))
        self.stems, self.files = list(found), list(found.values())
        good = child(self.home, GOOD)
        self.good = len(image_files(good)) if good.is_dir() else 0
        """How many images are known to be good beside those that are labelled."""
        self.numbers = {stem: number for number, stem in enumerate(found)}
        self._by_stem, self._drawn = found, child(self.home, "masks")
        self._masks: dict[str, Path] = {}
        self._scanned = 0
        self._looks: dict[int, Look] = {}
        self._defects: dict[int, tuple[str, bool]] = {}
        self._lock = threading.RLock()
        self.masks()

    def masks(self) -> dict[str, Path]:
        """The mask files that are there now, by stem.

        Raises:
            DataError: one belongs to no image, or two to one.
        """
        with self._lock:
            stamp = self._drawn.stat().st_mtime_ns if self._drawn.is_dir() else 0
            if stamp != self._scanned:
                there = entries(self._drawn)
                self._masks = masks_of(self._drawn, self._by_stem, ("", "_mask")) if there else {}
                self._scanned = stamp
            return self._masks if stamp else {}

    def inside(self, path: Path) -> Path:
        """The path itself, unless it leads out of the folder."""
        if not path.resolve().is_relative_to(self.home):
            raise Outside(f"{path.name}: a link out of {self.home.name}; copy the file into the folder")
        return path

    def version(self, number: int) -> str:
        """What changes whenever the mask of an image does, by whatever program."""
        path = self.masks().get(self.stems[number])
        if path is None:
            return UNLABELLED
        stat = path.stat()
        return f"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}"

    def shown(self, number: int) -> tuple[bytes, str]:
        """An image as a browser shows it, and its media type."""
        file = self.inside(self.files[number])
        with suppress(Exception):  # which `pixels` explains
            mode, info, form, _ = _header(file)
            turned = form != "JPEG" and "exif" in info
            if form in SHOWN and mode in ("L", "RGB") and not turned and "transparency" not in info:
                return file.read_bytes(), SHOWN[form]
        return encoded(Image.fromarray(self.pixels(number)), "BMP"), SHOWN["BMP"]

    def pixels(self, number: int) -> np.ndarray:
        """An image as RGB (h, w, 3) uint8, upright."""
        rgb, _, picture = read_with_white(self.inside(self.files[number]))
        self._look(number, picture)
        return rgb

    def size(self, number: int) -> tuple[int, int]:
        """Width and height of an image, upright."""
        return self._look(number)[0]

    def read(self, number: int) -> tuple[np.ndarray | None, str]:
        """The mask (h, w) bool of an image, None where there is none, and its version."""
        with self._lock:
            path, version = self.masks().get(self.stems[number]), self.version(number)
            if path is None:
                return None, version
            size, turned = self._look(number)
            image = _blank(str(self.files[number]), size, turned)
            try:
                *_, drawn_size = _header(self.inside(path))  # before it is decoded
            except (OSError, Image.DecompressionBombError):
                drawn_size = size  # `open_mask` says what is wrong
            if drawn_size not in (size, size[::-1]):
                reject_other_size(_blank(str(path), drawn_size), image, marks=False)
            drawn = open_mask(path)
            reject_other_size(drawn, image, marks=False)
            mask = marked(drawn)
            reject_other_size(drawn, image, marks=bool(mask.any()))
            self._defects[number] = version, bool(mask.any())
            return mask, version

    def paint(self, number: int, version: str, box: Box, pixels: np.ndarray) -> str:
        """Put `pixels` (h, w) bool in their place in a mask, and write it; the new version.

        A mask that stays as it is, is not written again.

        Args:
            number: the image's.
            version: the mask's that the pixels were painted on.
            box: where they lie.
            pixels: True where anomalous.

        Raises:
            DataError: the box lies not in the image, or all of the mask would be anomalous.
            WriteError: it cannot be written.
        """
        left, top, width, height = box
        with self._lock:
            if version != self.version(number):
                raise Conflict
            mask, _ = self.read(number)
            new = np.zeros(self.size(number)[::-1], bool) if mask is None else mask.copy()
            place = new[top : top + height, left : left + width]
            if min(box) < 0 or place.shape != pixels.shape or not place.size:
                raise DataError(
                    f"{self.stems[number]}: {box} does not lie in {new.shape[1]}x{new.shape[0]} pixels"
                )
            place[:] = pixels
            if new.all():
                raise DataError(f"{self.stems[number]}: every pixel is marked; leave some that are good")
            if mask is None or (new != mask).any():
                self._write(number, new)
            return self.version(number)

    def remove(self, number: int, version: str) -> str:
        """Make an image unlabelled; its mask stays as a hidden file. The new version."""
        with self._lock:
            if version != self.version(number):
                raise Conflict
            path = self.masks().get(self.stems[number])
            if path is not None:
                self.inside(path.parent)
                path.replace(_hidden(path))
                self._scanned = 0
            return self.version(number)

    def _write(self, number: int, mask: np.ndarray) -> None:
        old = self.masks().get(self.stems[number])
        path = old if old and old.suffix.lower() == ".png" else self._drawn / f"{self.stems[number]}.png"
        self.inside(self._drawn).mkdir(exist_ok=True)
        exif = Image.Exif()
        if self._look(number)[1] not in (None, 1):
            exif[ORIENTATION] = 1  # so that readers know that it is upright, though its image is not
        picture = Image.fromarray(mask * np.uint8(255))
        # What is being written is hidden: readers would take 1.png.part for a mask of the image 1.png.
        replace_file(_hidden(path), lambda part: picture.save(part, "PNG", exif=exif))
        _hidden(path).replace(path)
        if old not in (None, path):
            old.replace(_hidden(old))
        self._scanned = 0
        self._defects[number] = self.version(number), bool(mask.any())

    def defect(self, number: int) -> bool | None:
        """Whether the mask of a labelled image marks a defect; None if it was not read yet."""
        version, defect = self._defects.get(number, ("", False))
        return defect if version == self.version(number) else None

    def _look(self, number: int, picture: Picture | None = None) -> Look:
        if number not in self._looks:
            file = self.inside(self.files[number])
            picture = picture or decode(file, str(file))
            self._looks[number] = picture.pixels.size, picture.orientation
        return self._looks[number]


def _header(path: Path) -> tuple[str, dict[Any, Any], str, tuple[int, int]]:
    """Mode, remarks, format and stored size of a file, of which no pixel is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as picture:
            return picture.mode, picture.info, picture.format or "", picture.size


def _blank(name: str, size: tuple[int, int], orientation: int | None = None) -> Picture:
    """A file of which only the size counts."""
    return Picture(name, Image.new("1", size), orientation, False, "", 1, False)


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}")


def encoded(picture: Image.Image, kind: str) -> bytes:
    """The picture as a file of that format."""
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()
