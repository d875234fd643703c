"""What the papers print for these methods, beside which our figures stand."""

from __future__ import annotations

from nbs_env.data import cifar10

DIGITS = tuple(map(str, range(10)))
MVTEC = ("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw",
         "tile", "toothbrush", "transistor", "wood", "zipper")  # fmt: skip
COLUMNS = {"cifar10": cifar10.NAMES, "mvtec": MVTEC, "wheel": ("spoke", "hub")}
"""Classes in the order of the tables; digits where there is none here."""

THESIS: dict[str, dict[str, tuple[float, ...]]] = {
    "mnist": {
        "vae": (0.96, 0.73, 0.98, 0.91, 0.79, 0.92, 0.92, 0.76, 0.91, 0.62),
        "f_anogan": (0.80, 0.10, 0.79, 0.64, 0.58, 0.72, 0.71, 0.47, 0.71, 0.45),
        "ocgan": (0.86, 0.46, 0.93, 0.83, 0.83, 0.78, 0.83, 0.73, 0.59, 0.67),
        "egbad": (0.82, 0.43, 0.83, 0.71, 0.72, 0.74, 0.74, 0.48, 0.72, 0.47),
        "ganomaly": (0.78, 0.16, 0.83, 0.68, 0.69, 0.73, 0.82, 0.53, 0.84, 0.56),
    },
    "fashion_mnist": {
        "vae": (0.57, 0.84, 0.61, 0.63, 0.58, 0.83, 0.56, 0.59, 0.94, 0.79),
        "f_anogan": (0.51, 0.61, 0.53, 0.56, 0.53, 0.70, 0.51, 0.68, 0.77, 0.82),
        "ocgan": (0.54, 0.84, 0.52, 0.62, 0.59, 0.84, 0.48, 0.60, 0.48, 0.70),
        "egbad": (0.67, 0.50, 0.59, 0.53, 0.56, 0.65, 0.65, 0.58, 0.83, 0.69),
        "ganomaly": (0.68, 0.85, 0.52, 0.71, 0.49, 0.95, 0.53, 0.67, 0.97, 0.81),
    },
    "wheel": {
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
        "vae": (0.55, 0.10, 0.63, 0.25, 0.35, 0.30, 0.43, 0.18, 0.50, 0.10),
        "egbad": (0.78, 0.29, 0.67, 0.52, 0.45, 0.43, 0.57, 0.40, 0.55, 0.35),
        "ganomaly": (0.89, 0.65, 0.93, 0.80, 0.82, 0.85, 0.84, 0.69, 0.87, 0.55),
    },
    ("cifar10", 1): {
        "vae": (0.59, 0.40, 0.52, 0.44, 0.46, 0.50, 0.38, 0.51, 0.64, 0.49),
        "egbad": (0.58, 0.52, 0.39, 0.45, 0.37, 0.49, 0.36, 0.54, 0.42, 0.55),
        "ganomaly": (0.63, 0.63, 0.51, 0.58, 0.59, 0.62, 0.68, 0.61, 0.62, 0.62),
    },
    ("mvtec", 0): {
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
    ("mnist", 2): {"deep_svdd": 0.948, "ocgan": 0.975, "arae": 0.975, "oled": 0.985},
    ("cifar10", 2): {"deep_svdd": 0.648, "ocgan": 0.733, "arae": 0.717, "oled": 0.671},
    ("plant_village", 0): {"vae": 0.65, "egbad": 0.70, "ganomaly": 0.73, "skip_ganomaly": 0.77},
}
"""AUC of its Tables 2 and 4, which have the mean over all classes alone."""


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
