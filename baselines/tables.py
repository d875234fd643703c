"""Tables of image-level methods: rows of ours, and what the papers print, beside which they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nbs_env.data import cifar10

DIGITS = tuple(map(str, range(10)))
MVTEC = ("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw",
         "tile", "toothbrush", "transistor", "wood", "zipper")  # fmt: skip
COLUMNS = {"cifar10": cifar10.NAMES, "mvtec": MVTEC, "wheel": ("spoke", "hub")}
"""Classes in the order of the tables; digits where there is none here."""

THESIS: dict[str, dict[str, tuple[float, ...]]] = {
    "mnist": {
        "d_anogan": (0.91, 0.91, 0.92, 0.94, 0.91, 0.88, 0.93, 0.91, 0.94, 0.89),
        "vae": (0.96, 0.73, 0.98, 0.91, 0.79, 0.92, 0.92, 0.76, 0.91, 0.62),
        "f_anogan": (0.80, 0.10, 0.79, 0.64, 0.58, 0.72, 0.71, 0.47, 0.71, 0.45),
        "ocgan": (0.86, 0.46, 0.93, 0.83, 0.83, 0.78, 0.83, 0.73, 0.59, 0.67),
        "egbad": (0.82, 0.43, 0.83, 0.71, 0.72, 0.74, 0.74, 0.48, 0.72, 0.47),
        "ganomaly": (0.78, 0.16, 0.83, 0.68, 0.69, 0.73, 0.82, 0.53, 0.84, 0.56),
    },
    "fashion_mnist": {
        "d_anogan": (0.62, 0.82, 0.57, 0.73, 0.53, 0.87, 0.57, 0.64, 0.97, 0.81),
        "vae": (0.57, 0.84, 0.61, 0.63, 0.58, 0.83, 0.56, 0.59, 0.94, 0.79),
        "f_anogan": (0.51, 0.61, 0.53, 0.56, 0.53, 0.70, 0.51, 0.68, 0.77, 0.82),
        "ocgan": (0.54, 0.84, 0.52, 0.62, 0.59, 0.84, 0.48, 0.60, 0.48, 0.70),
        "egbad": (0.67, 0.50, 0.59, 0.53, 0.56, 0.65, 0.65, 0.58, 0.83, 0.69),
        "ganomaly": (0.68, 0.85, 0.52, 0.71, 0.49, 0.95, 0.53, 0.67, 0.97, 0.81),
    },
    "wheel": {
        "d_anogan": (0.88, 0.97),
        "vae": (0.60, 0.52),
        "f_anogan": (0.74, 0.71),
        "ocgan": (0.84, 0.98),
        "egbad": (0.82, 0.66),
        "ganomaly": (0.62, 0.54),
    },
}
"""AUC of the D-AnoGAN thesis's Tables 5.1 to 5.3 (protocol 1); its BiGAN is `egbad` here."""

ALCN: dict[tuple[str, int], dict[str, tuple[float, ...]]] = {
    ("mnist", 1): {
        "none": (0.84, 0.97, 0.79, 0.64, 0.53, 0.61, 0.66, 0.55, 0.71, 0.57),
        "speckle": (0.84, 0.93, 0.66, 0.66, 0.52, 0.62, 0.72, 0.56, 0.75, 0.53),
        "gaussian": (0.88, 0.97, 0.77, 0.66, 0.55, 0.62, 0.75, 0.55, 0.71, 0.57),
        "alcn": (0.97, 0.97, 0.96, 0.89, 0.85, 0.88, 0.92, 0.80, 0.93, 0.76),
        "vae": (0.55, 0.10, 0.63, 0.25, 0.35, 0.30, 0.43, 0.18, 0.50, 0.10),
        "egbad": (0.78, 0.29, 0.67, 0.52, 0.45, 0.43, 0.57, 0.40, 0.55, 0.35),
        "ganomaly": (0.89, 0.65, 0.93, 0.80, 0.82, 0.85, 0.84, 0.69, 0.87, 0.55),
    },
    ("cifar10", 1): {
        "none": (0.50, 0.68, 0.61, 0.55, 0.69, 0.53, 0.62, 0.60, 0.63, 0.71),
        "speckle": (0.63, 0.53, 0.54, 0.54, 0.65, 0.59, 0.64, 0.55, 0.66, 0.63),
        "gaussian": (0.57, 0.68, 0.57, 0.54, 0.65, 0.54, 0.55, 0.52, 0.57, 0.53),
        "vae": (0.59, 0.40, 0.52, 0.44, 0.46, 0.50, 0.38, 0.51, 0.64, 0.49),
        "egbad": (0.58, 0.52, 0.39, 0.45, 0.37, 0.49, 0.36, 0.54, 0.42, 0.55),
        "ganomaly": (0.63, 0.63, 0.51, 0.58, 0.59, 0.62, 0.68, 0.61, 0.62, 0.62),
    },
    ("mvtec", 0): {
        "alcn": (0.94, 0.84, 0.86, 0.84, 0.97, 0.92, 0.62, 0.86, 0.75, 1.0, 0.79, 0.65, 0.73, 0.93, 0.70),
        "vae": (0.66, 0.63, 0.61, 0.51, 0.52, 0.30, 0.41, 0.66, 0.51, 1.0, 0.21, 0.30, 0.65, 0.87, 0.87),
        "egbad": (0.63, 0.68, 0.52, 0.52, 0.54, 0.43, 0.55, 0.47, 0.57, 0.43, 0.79, 0.64, 0.73, 0.91, 0.58),
        "ganomaly": (0.89, 0.76, 0.73, 0.70, 0.71, 0.79, 0.84, 0.70, 0.74, 0.75, 0.79, 0.65, 0.79, 0.83,
                     0.75),
        "skip_ganomaly": (0.93, 0.67, 0.71, 0.79, 0.65, 0.90, 0.90, 0.79, 0.75, 1.0, 0.85, 0.68, 0.81, 0.91,
                          0.66),
    },
}  # fmt: skip
"""AUC of the ALCN paper's Tables 1 and 3, by data set and protocol (0: the data set's own)."""

ALCN_MEANS: dict[tuple[str, int], dict[str, float]] = {
    ("cifar10", 1): {"alcn": 0.67},
    ("mnist", 2): {"alcn": 0.989, "deep_svdd": 0.948, "ocgan": 0.975, "arae": 0.975, "oled": 0.985},
    ("cifar10", 2): {"alcn": 0.742, "deep_svdd": 0.648, "ocgan": 0.733, "arae": 0.717, "oled": 0.671},
    ("plant_village", 0): {"alcn": 0.77, "vae": 0.65, "egbad": 0.70, "ganomaly": 0.73, "skip_ganomaly": 0.77},
}
"""AUC of which it has the mean over all classes alone, as in its Tables 2 and 4."""


def published(dataset: str, protocol: int, method: str) -> list[tuple[str, dict[str, float], float | None]]:
    """Source, AUC by class and, where that is all there is, its mean over all classes; a tuple a source."""
    names = COLUMNS.get(dataset, DIGITS)
    own = dataset in ("mvtec", "plant_village", "wheel")
    found: list[tuple[str, dict[str, float], float | None]] = []
    if (own or protocol == 1) and method in THESIS.get(dataset, {}):
        found.append(("thesis", dict(zip(names, THESIS[dataset][method], strict=True)), None))
    key = (dataset, 0 if own else protocol)
    if method in ALCN.get(key, {}):
        found.append(("ALCN's paper", dict(zip(names, ALCN[key][method], strict=True)), None))
    if method in ALCN_MEANS.get(key, {}):
        found.append(("ALCN's paper", {}, ALCN_MEANS[key][method]))
    return found


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a table in Markdown, a line below the first."""
    lines = ["| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]]
    return "\n".join(lines)


def row(title: str, figures: Mapping[str, float], names: Sequence[str], places: int = 3) -> list[str]:
    """Title, a figure for each of `names`, and their mean; a dash where one is not there."""
    cells = [f"{figures[name]:.{places}f}" if name in figures else "-" for name in names]
    mean = "-" if "-" in cells else f"{np.mean([figures[name] for name in names]):.{places}f}"
    return [title, *cells, mean]


def paper_rows(
    dataset: str, protocol: int, method: str, names: Sequence[str], whole: bool
) -> list[tuple[str, list[str]]]:
    """What papers print for a method: source, and a row as above without its title.

    `whole` says that `names` are all classes, so that means which stand alone in a paper are of the same.
    """
    found = []
    for source, known, mean in published(dataset, protocol, method):
        cells = row("", known, names, 2)[1:]
        if mean is not None and whole:
            cells[-1] = str(mean)
        if set(cells) != {"-"}:
            found.append((source, cells))
    return found
