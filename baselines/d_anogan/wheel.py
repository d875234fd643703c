"""Wheels, disconnected manifolds to order (thesis 5.1.3).

Eight normal classes, 3 or 5 spokes x closed or forked x 4 or 5 bolts, with continuous diameters of rim and
hub; and two anomalies: `spoke`, forks of low contrast, and `hub`, both bolt patterns at once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

NORMAL = tuple(
    f"{spokes}-{kind}-{bolts}"
    for spokes, kind, bolts in itertools.product((3, 5), ("closed", "forked"), (4, 5))
)
ANOMALIES = ("spoke", "hub")
CLASSES = (*NORMAL, *ANOMALIES)
"""A label is an index into this."""


@dataclass(frozen=True)
class Wheel:
    """One wheel; lengths in units of half the picture's side, shades from 0 (black) to 1 (white)."""

    spokes: int = 5
    """How many."""
    forked: bool = True
    """Whether a wedge is cut out of every spoke."""
    bolts: tuple[int, ...] = (5,)
    """Bolt patterns: each a number of holes, spread evenly on one circle."""
    rim: float = 0.76
    """Inner radius of the rim; the outer one is 0.95."""
    hub: float = 0.36
    """Radius of the hub."""
    fork_shade: float = 0.0
    """Shade inside the forks; that of the spokes is `METAL`."""


METAL = 0.85
OUTER, AXLE, BOLT = 0.95, 0.08, 0.06
SPOKE, FORK = 0.13, 0.085
"""Half the width of a spoke, and of its fork at the rim."""


def draw(wheel: Wheel, size: int) -> np.ndarray:
    """Grey picture (size, size) uint8, its edges anti-aliased by their exact distance."""
    centres = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = centres[None], -centres[:, None]
    radius = np.hypot(x, y)

    def inside(distance: np.ndarray) -> np.ndarray:
        """Coverage of pixels, from the signed distance to an edge, negative within."""
        return np.clip(0.5 - distance * size / 2, 0, 1)

    def paint(shade: float, coverage: np.ndarray) -> None:
        picture[:] = picture * (1 - coverage) + shade * coverage

    picture = np.zeros((size, size))
    paint(METAL, inside(np.maximum(radius - OUTER, wheel.rim - radius)))
    angles = 2 * np.pi * np.arange(wheel.spokes) / wheel.spokes + np.pi / 2
    for angle in angles:
        along, across = x * np.cos(angle) + y * np.sin(angle), np.abs(y * np.cos(angle) - x * np.sin(angle))
        paint(METAL, inside(np.maximum.reduce([across - SPOKE, -along, along - wheel.rim - 0.02])))
        if wheel.forked:  # a wedge from near the hub, as wide as FORK at the rim
            start = wheel.hub + 0.06
            slope = FORK / (wheel.rim - start)
            edge = (across - slope * (along - start)) / np.hypot(1, slope)
            paint(wheel.fork_shade, inside(np.maximum(edge, along - wheel.rim)))
    paint(METAL, inside(radius - wheel.hub))
    paint(0, inside(radius - AXLE))
    for count in wheel.bolts:
        for angle in 2 * np.pi * np.arange(count) / count + np.pi / 2:
            away = np.hypot(x - 0.62 * wheel.hub * np.cos(angle), y - 0.62 * wheel.hub * np.sin(angle))
            paint(0, inside(away - BOLT))
    return np.round(picture * 255).astype(np.uint8)


def sample(label: int, rng: np.random.Generator) -> Wheel:
    """A wheel of class `CLASSES[label]` with random diameters; anomalous ones are of any normal kind else."""
    kind = CLASSES[label]
    rim, hub = rng.uniform(0.72, 0.8), rng.uniform(0.33, 0.4)
    spokes, shape, bolts = (kind if label < len(NORMAL) else NORMAL[rng.integers(len(NORMAL))]).split("-")
    forked, shade = shape == "forked", 0.0
    patterns: tuple[int, ...] = (int(bolts),)
    if kind == "spoke":
        forked, shade = True, float(rng.uniform(0.3, 0.6) * METAL)
    elif kind == "hub":
        patterns = (4, 5)
    return Wheel(int(spokes), forked, patterns, rim, hub, shade)


def make(per_class: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[Wheel]]:
    """Pictures (n, size, size) uint8, their labels (n,) int64, and what was drawn, class by class."""
    wheels, labels = [], []
    for label in range(len(CLASSES)):
        rng = np.random.default_rng([seed, label])
        wheels += [sample(label, rng) for _ in range(per_class)]
        labels += [label] * per_class
    return np.stack([draw(wheel, size) for wheel in wheels]), np.array(labels), wheels
