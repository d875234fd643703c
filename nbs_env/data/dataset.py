"""What every reader returns, and how it is divided into labelled and unlabelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nbs_env.common.errors import DataError
from nbs_env.data.images import Original

GOOD = "good"
"""The defect kind of an image that is known to hold no anomaly."""


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first few names in words, and how many there are beside them."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


@dataclass(frozen=True, eq=False)
class AnomalyDataset:
    """Images of equal size with what is known about their anomalies; n is the number of images.

    Raises:
        DataError: If shapes, dtypes or lengths disagree, a name is given twice, an image of unknown truth has
            an anomalous pixel, or there is no such white.

    Example:
        >>> masks = np.zeros((3, 128, 128), bool)
        >>> masks[0, 40:50, 60:90] = True
        >>> data = AnomalyDataset(
        ...     name="mine",
        ...     images=np.zeros((3, 128, 128, 3), np.uint8),
        ...     masks=masks,
        ...     has_mask=np.array([True, True, False]),
        ...     names=("001", "002", "003"),
        ...     kinds=("scratch", "good", ""),
        ... )
        >>> data.anomalous.tolist()
        [True, False, False]
        >>> split(data, ["001", "002"], np.random.default_rng(0))
        (array([0, 1]), array([2]))
    """

    name: str
    """The reader and, where there is one, the category: `mvtec/grid`."""
    images: NDArray[np.uint8]
    """RGB, `(n, H, W, 3)`."""
    masks: NDArray[np.bool_]
    """True where a pixel is anomalous, `(n, H, W)`; all False where `has_mask` is False."""
    has_mask: NDArray[np.bool_]
    """Whether the truth of an image is known, `(n,)`. An image without it is neither labelled nor scored."""
    names: tuple[str, ...]
    """A unique name for each image: its file's path inside the data set, without the suffix."""
    kinds: tuple[str, ...]
    """The defect kind of each image; `good` where there is none, empty where it is not known."""
    sizes: tuple[tuple[int, int], ...] = ()
    """The (height, width) that each image had before it was resized; none given: as it is here."""
    white: int = 255
    """The level of the files that became 255: 65535 (16 bit) or 4095 (12 bit) where there are such files."""
    good: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 0, 3), np.uint8))
    """More RGB images `(m, H, W, 3)`, known to be good; they are neither labelled nor scored."""
    originals: tuple[Original, ...] = ()
    """The file of each image, to be read in its own size; none where they are not read from files."""
    good_originals: tuple[Original, ...] = ()
    """Those of `good`."""

    def __post_init__(self) -> None:
        """Raise `DataError` on fields that do not fit together."""
        n = len(self.images)
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or self.images.dtype != np.uint8 or n == 0:
            raise DataError(
                f"{self.name}: images are {self.images.dtype} {self.images.shape}; "
                "expected uint8 (n, H, W, 3) with n of at least 1"
            )
        for name, array, shape in (
            ("masks", self.masks, self.images.shape[:3]),
            ("has_mask", self.has_mask, (n,)),
        ):
            if array.dtype != np.bool_ or array.shape != shape:
                raise DataError(f"{self.name}: {name} is {array.dtype} {array.shape}; expected bool {shape}")
        if self.good.dtype != np.uint8 or (len(self.good) and self.good.shape[1:] != self.images.shape[1:]):
            raise DataError(
                f"{self.name}: good is {self.good.dtype} {self.good.shape}; expected images as the others"
            )
        if not self.sizes:
            height, width = self.images.shape[1:3]
            object.__setattr__(self, "sizes", ((height, width),) * n)
        for name, values, count in (
            ("names", self.names, n),
            ("kinds", self.kinds, n),
            ("sizes", self.sizes, n),
            ("originals", self.originals, n if self.originals else 0),
            ("good_originals", self.good_originals, len(self.good) if self.good_originals else 0),
        ):
            if len(values) != count:
                raise DataError(f"{self.name}: {len(values)} {name} for {count} images; give one an image")
        if len(set(self.names)) != n:
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise DataError(f"{self.name}: two images are named {twice!r}; make the names unique")
        if any(self.masks[i].any() for i in np.flatnonzero(~self.has_mask)):
            raise DataError(f"{self.name}: an image of unknown truth has anomalous pixels; clear its mask")
        if self.white not in (255, 4095, 65535):
            raise DataError(f"{self.name}: white is {self.white}; it must be 255, 4095 or 65535")

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """Whether an image is known to hold an anomalous pixel, `(n,)`."""
        return np.array([mask.any() for mask in self.masks], dtype=np.bool_)


def split(
    dataset: AnomalyDataset, labeled: int | Sequence[str], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the labelled images; all others, those without a mask included, are unlabelled.

    A number is drawn uniformly, without replacement, among the images with a mask, and drawn anew until the
    draw holds an anomalous pixel. Where no mask does, but there are good images beside, all with a mask are
    labelled. Those that are named may all be good: what cannot learn without a defect says so itself.

    Args:
        dataset: The images.
        labeled: How many images to draw, at least 1 (0 where there are good images beside), or their names.
        rng: Source of the draw; untouched if names are given.

    Returns:
        The indices of the labelled and of the unlabelled images, each sorted.

    Raises:
        DataError: If there are fewer images with a mask than asked for, a name is unknown, given twice or
            without a mask, nothing is known to be good or anomalous, or a number is asked for where no mask
            holds an anomalous pixel and there are no good images beside.
    """
    chosen = _draw(dataset, labeled, rng) if isinstance(labeled, int) else _named(dataset, labeled)
    rest = np.setdiff1d(np.arange(len(dataset)), chosen)
    return np.sort(chosen).astype(np.int64), rest.astype(np.int64)


def _draw(dataset: AnomalyDataset, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    candidates = np.flatnonzero(dataset.has_mask)
    if len(dataset.good) and count == 0:
        return candidates[:0]
    if len(dataset.good) and not dataset.anomalous.any():
        return candidates  # the good ones among them
    if count < 1:
        raise DataError(
            f"{dataset.name}: {count} labelled images asked for; ask for at least 1, or add known-good images"
        )
    if count > len(candidates):
        raise DataError(
            f"{dataset.name}: {count} labelled images asked for, but only {len(candidates)} of "
            f"{len(dataset)} images have a mask; ask for fewer, add masks, or known-good images in good/"
        )
    anomalous = dataset.anomalous
    if not anomalous.any():
        raise DataError(
            f"{dataset.name}: no mask holds an anomalous pixel; add one that does, or images that are known "
            "to be good, which need no masks"
        )
    while True:
        chosen = rng.choice(candidates, size=count, replace=False)
        if anomalous[chosen].any():
            return chosen


def _named(dataset: AnomalyDataset, names: Sequence[str]) -> NDArray[np.int64]:
    index = {name: i for i, name in enumerate(dataset.names)}
    for position, name in enumerate(names):
        if name not in index:
            raise DataError(
                f"{dataset.name}: no image is named {name!r}; names look like {dataset.names[0]!r}"
            )
        if not dataset.has_mask[index[name]]:
            raise DataError(f"{dataset.name}: image {name!r} has no mask; add one or label another image")
        if name in names[:position]:
            raise DataError(f"{dataset.name}: image {name!r} is named twice; name each labelled image once")
    chosen = np.array([index[name] for name in names], dtype=np.int64)
    if not len(chosen) and not len(dataset.good):
        raise DataError(
            f"{dataset.name}: no labelled image is named; name at least one, or add known-good images"
        )
    return chosen
