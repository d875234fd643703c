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

PAPERS: dict[tuple[str, str, int], dict[str, tuple[float, ...]]] = {
    ("thesis", "mnist", 1): {
        "d_anogan": (0.91, 0.91, 0.92, 0.94, 0.91, 0.88, 0.93, 0.91, 0.94, 0.89),
        "vae": (0.96, 0.73, 0.98, 0.91, 0.79, 0.92, 0.92, 0.76, 0.91, 0.62),
        "f_anogan": (0.80, 0.10, 0.79, 0.64, 0.58, 0.72, 0.71, 0.47, 0.71, 0.45),
        "ocgan": (0.86, 0.46, 0.93, 0.83, 0.83, 0.78, 0.83, 0.73, 0.59, 0.67),
        "egbad": (0.82, 0.43, 0.83, 0.71, 0.72, 0.74, 0.74, 0.48, 0.72, 0.47),
        "ganomaly": (0.78, 0.16, 0.83, 0.68, 0.69, 0.73, 0.82, 0.53, 0.84, 0.56),
    },
    ("thesis", "fashion_mnist", 1): {
        "d_anogan": (0.62, 0.82, 0.57, 0.73, 0.53, 0.87, 0.57, 0.64, 0.97, 0.81),
        "vae": (0.57, 0.84, 0.61, 0.63, 0.58, 0.83, 0.56, 0.59, 0.94, 0.79),
        "f_anogan": (0.51, 0.61, 0.53, 0.56, 0.53, 0.70, 0.51, 0.68, 0.77, 0.82),
        "ocgan": (0.54, 0.84, 0.52, 0.62, 0.59, 0.84, 0.48, 0.60, 0.48, 0.70),
        "egbad": (0.67, 0.50, 0.59, 0.53, 0.56, 0.65, 0.65, 0.58, 0.83, 0.69),
        "ganomaly": (0.68, 0.85, 0.52, 0.71, 0.49, 0.95, 0.53, 0.67, 0.97, 0.81),
    },
    ("thesis", "wheel", 0): {
        "d_anogan": (0.88, 0.97),
        "vae": (0.60, 0.52),
        "f_anogan": (0.74, 0.71),
        "ocgan": (0.84, 0.98),
        "egbad": (0.82, 0.66),
        "ganomaly": (0.62, 0.54),
    },
    ("ALCN's paper", "mnist", 1): {
        "none": (0.84, 0.97, 0.79, 0.64, 0.53, 0.61, 0.66, 0.55, 0.71, 0.57),
        "speckle": (0.84, 0.93, 0.66, 0.66, 0.52, 0.62, 0.72, 0.56, 0.75, 0.53),
        "gaussian": (0.88, 0.97, 0.77, 0.66, 0.55, 0.62, 0.75, 0.55, 0.71, 0.57),
        "alcn": (0.97, 0.97, 0.96, 0.89, 0.85, 0.88, 0.92, 0.80, 0.93, 0.76),
        "vae": (0.55, 0.10, 0.63, 0.25, 0.35, 0.30, 0.43, 0.18, 0.50, 0.10),
        "egbad": (0.78, 0.29, 0.67, 0.52, 0.45, 0.43, 0.57, 0.40, 0.55, 0.35),
        "ganomaly": (0.89, 0.65, 0.93, 0.80, 0.82, 0.85, 0.84, 0.69, 0.87, 0.55),
    },
    ("ALCN's paper", "cifar10", 1): {
        "none": (0.50, 0.68, 0.61, 0.55, 0.69, 0.53, 0.62, 0.60, 0.63, 0.71),
        "speckle": (0.63, 0.53, 0.54, 0.54, 0.65, 0.59, 0.64, 0.55, 0.66, 0.63),
        "gaussian": (0.57, 0.68, 0.57, 0.54, 0.65, 0.54, 0.55, 0.52, 0.57, 0.53),
        "vae": (0.59, 0.40, 0.52, 0.44, 0.46, 0.50, 0.38, 0.51, 0.64, 0.49),
        "egbad": (0.58, 0.52, 0.39, 0.45, 0.37, 0.49, 0.36, 0.54, 0.42, 0.55),
        "ganomaly": (0.63, 0.63, 0.51, 0.58, 0.59, 0.62, 0.68, 0.61, 0.62, 0.62),
        "alcn": (0.67,),
    },
    ("ALCN's paper", "mvtec", 0): {
        "alcn": (0.94, 0.84, 0.86, 0.84, 0.97, 0.92, 0.62, 0.86, 0.75, 1.0, 0.79, 0.65, 0.73, 0.93, 0.70),
        "vae": (0.66, 0.63, 0.61, 0.51, 0.52, 0.30, 0.41, 0.66, 0.51, 1.0, 0.21, 0.30, 0.65, 0.87, 0.87),
        "egbad": (0.63, 0.68, 0.52, 0.52, 0.54, 0.43, 0.55, 0.47, 0.57, 0.43, 0.79, 0.64, 0.73, 0.91, 0.58),
        "ganomaly": (0.89, 0.76, 0.73, 0.70, 0.71, 0.79, 0.84, 0.70, 0.74, 0.75, 0.79, 0.65, 0.79, 0.83,
                     0.75),
        "skip_ganomaly": (0.93, 0.67, 0.71, 0.79, 0.65, 0.90, 0.90, 0.79, 0.75, 1.0, 0.85, 0.68, 0.81, 0.91,
                          0.66),
    },
    ("ALCN's paper", "mnist", 2): {
        "alcn": (0.989,), "deep_svdd": (0.948,), "ocgan": (0.975,), "arae": (0.975,), "oled": (0.985,),
    },
    ("ALCN's paper", "cifar10", 2): {
        "alcn": (0.742,), "deep_svdd": (0.648,), "ocgan": (0.733,), "arae": (0.717,), "oled": (0.671,),
    },
    ("ALCN's paper", "plant_village", 0): {
        "alcn": (0.77,), "vae": (0.65,), "egbad": (0.70,), "ganomaly": (0.73,), "skip_ganomaly": (0.77,),
    },
}  # fmt: skip
"""AUC by source, data set and protocol (0: the data set's own), of each class, or the mean of all alone.

The D-AnoGAN thesis's Tables 5.1 to 5.3, whose BiGAN is `egbad` here, and the ALCN paper's Tables 1 to 4.
"""


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
    own, found = dataset in ("mvtec", "plant_village", "wheel"), []
    for source in ("thesis", "ALCN's paper"):
        figures = PAPERS.get((source, dataset, 0 if own else protocol), {}).get(method, ())
        each = zip(COLUMNS.get(dataset, DIGITS), figures, strict=True) if len(figures) > 1 else ()
        cells = row("", dict(each), names, 2)[1:]
        if len(figures) == 1 and whole:
            cells[-1] = str(figures[0])
        if set(cells) != {"-"}:
            found.append((source, cells))
    return found
