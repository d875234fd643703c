"""What lies in a folder: which files are images, and which are left out, by name."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from nbs_env.common.errors import DataError, DataWarning
from nbs_env.data.dataset import some

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes, in lower case, of the files that are taken for images."""
JUNK = frozenset({"__MACOSX", "@eaDir"})
"""Folders that archives and file servers add."""


def visible(name: str) -> bool:
    """Whether a name is one that a person gave: not hidden, not `._x.png`, not `__MACOSX`."""
    return not name.startswith(".") and name not in JUNK


def entries(directory: Path) -> list[Path]:
    """What is visible in a directory, sorted; nothing where it is missing.

    Raises:
        DataError: If it cannot be listed.
    """
    if not directory.is_dir():
        return []
    try:
        return sorted(path for path in directory.iterdir() if visible(path.name))
    except OSError as error:
        raise DataError(f"{directory}: cannot be listed ({error.strerror}); make it readable") from error


def need_directory(path: Path, expected: str) -> None:
    """Raise `DataError`, which says what is expected there, if a path is no directory."""
    if not path.is_dir():
        found = "a file, no directory" if path.exists() else "no such directory"
        raise DataError(f"{path}: {found}; expected {expected}")


def subfolders(directory: Path) -> list[Path]:
    """The visible subfolders of a directory, sorted; none where the directory is missing."""
    return [path for path in entries(directory) if path.is_dir()]


def child(directory: Path, *names: str) -> Path:
    """The folder `names[0]/names[1]/...` inside a directory, whatever its case; as named if it is not there.

    Raises:
        DataError: If there are two that differ in case alone, and none is exactly so named.
    """
    for name in names:
        found = [path for path in subfolders(directory) if path.name.lower() == name.lower()]
        exact = directory / name
        if len(found) > 1 and exact not in found:
            raise DataError(
                f"{found[0]}: {found[1].name} differs in case alone; rename or remove one of them"
            )
        directory = found[0] if found and exact not in found else exact
    return directory


def warn_left_out(directory: Path, paths: Iterable[Path], hint: str = "") -> None:
    """Name what is not read in a directory, if anything is, in one `DataWarning` that ends with `hint`."""
    names = [_described(path) for path in paths]
    if names:
        message = f"{directory}: left out: {some(names)} ({len(names)} in all){hint}"
        warnings.warn(message, DataWarning, stacklevel=3)


def _described(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return f"{path.name} (a link to nothing)"
    return f"{path.name}/" if path.is_dir() else path.name


def image_files(directory: Path) -> list[Path]:
    """List the image files of a directory, sorted by name.

    Hidden files are skipped; subfolders, links to nothing and other files are named in a `DataWarning`.

    Raises:
        DataError: If the directory is missing or holds no image file.
    """
    directory = Path(directory)
    need_directory(directory, "one with image files")
    there = entries(directory)
    files = [path for path in there if path.suffix.lower() in SUFFIXES and path.is_file()]
    taken = set(files)
    others = [path for path in there if path not in taken]
    if not files:
        left = f" ({some([_described(path) for path in others])})" if others else ""
        raise DataError(f"{directory}: no image file in this directory{left}; expected {', '.join(SUFFIXES)}")
    warn_left_out(directory, others)
    return files


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Map each file's stem to the file.

    Raises:
        DataError: If two files share a stem, or their stems look the same.
    """
    found: dict[str, Path] = {}
    for file in files:
        stem = _composed(file.stem)
        if stem in found:
            raise DataError(f"{file}: {found[stem].name} has the same stem; rename or remove one of them")
        found[stem] = file
    return {file.stem: file for file in found.values()}


def masks_of(
    directory: Path,
    images: dict[str, Path],
    endings: tuple[str, ...] = ("",),
    suffixes: tuple[str, ...] = SUFFIXES,
) -> dict[str, Path]:
    """Find the masks of images, by the images' stems.

    The mask of `001.jpg` is `001.png` or `001.jpg.png`, with one of the endings: `001_mask.png`. What looks
    like the mask of an image and cannot be read never makes that image unlabelled.

    Args:
        directory: The masks' folder.
        images: Image files by stem.
        endings: What may stand behind the image's name; "" is nothing.
        suffixes: Those of mask files, in lower case.

    Raises:
        DataError: If the directory is missing or holds no mask, a mask has no image or lacks the ending, two
            masks belong to one image, or a mask is no file of a known type.
    """
    need_directory(directory, "one with mask files")
    found: dict[str, Path] = {}
    others = []
    names = {_composed(file.name).lower(): stem for stem, file in images.items()}
    stems = {_composed(stem): stem for stem in images}
    for path in entries(directory):
        stem = _image_of(path.stem if path.suffix.lower() in suffixes else path.name, names, stems, endings)
        # A link to nothing is taken for a mask here, and answered where it is read.
        if path.suffix.lower() not in suffixes or path.is_dir():
            others.append((path, _image_of(path.stem, names, stems, endings) or stem))
        elif stem is None:
            raise orphan(path, images, endings)
        elif stem in found:
            raise DataError(f"{path}: {found[stem].name} has the same stem; rename or remove one of them")
        else:
            found[stem] = path
    for path, stem in others:
        if stem is not None and stem not in found:
            raise DataError(
                f"{path}: the mask of {images[stem].name} cannot be read; expected a file with one of "
                f"{', '.join(suffixes)}, so save it as such"
            )
    if not found:
        raise DataError(f"{directory}: no mask file in this directory; expected {', '.join(suffixes)}")
    warn_left_out(directory, [path for path, _ in others])
    return found


def _image_of(
    stem: str, names: dict[str, str], stems: dict[str, str], endings: tuple[str, ...]
) -> str | None:
    """The stem of the image that a mask of this stem belongs to."""
    for ending in endings:
        if stem.endswith(ending):
            name = _composed(stem.removesuffix(ending))
            if found := stems.get(name) or names.get(name.lower()):
                return found
    return None


def _composed(name: str) -> str:
    """A name as most systems write it; others take accents from their letters, and it looks the same."""
    return unicodedata.normalize("NFC", name)


def orphan(path: Path, images: dict[str, Path], endings: tuple[str, ...] = ("",)) -> DataError:
    """The error of a mask that is of none of the `images` by stem, or whose name lacks the ending."""
    if not any(path.stem.endswith(ending) for ending in endings):
        return DataError(f"{path}: its name should end in {endings[0]}{path.suffix}; rename or remove it")
    ending = max((ending for ending in endings if path.stem.endswith(ending)), key=len)
    stem = path.stem.removesuffix(ending)
    # Of numbered files the nearest in letters is another one.
    numbers = re.findall(r"\d+", stem)
    alike = {each.lower(): each for each in images if re.findall(r"\d+", each) == numbers}
    near = [f"{alike[each]}{ending}{path.suffix}" for each in get_close_matches(stem.lower(), alike, 1, 0.5)]
    rename = f", rename the mask (to {near[0]}?)" if near else ""
    return DataError(
        f"{path}: a mask without its image; add an image named {stem}{rename} or remove the mask"
    )
