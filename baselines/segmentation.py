"""What the pixel-level rivals of the thesis's tables share: the split, the scoring, the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import tyro
from tqdm import tqdm

from nbs_env.common import checkpoint, runs
from nbs_env.common.errors import RunError
from nbs_env.common.networks import pick_device
from nbs_env.common.pictures import overlay_sheet
from nbs_env.common.runs import claim, digests, plain
from nbs_env.common.settings import AtLeast, check_types
from nbs_env.data import AnomalyDataset
from nbs_env.desk.run import DataArgs, read_images
from nbs_env.detect.alarms import image_scores
from nbs_env.detect.metrics import counts_by_kind, evaluate
from nbs_env.detect.teaching import folds

FOLDS = 5
"""Parts that the labelled images are divided into; where there are no more, each is left out by itself."""


@dataclass(frozen=True)
class SegmentationArgs(DataArgs):
    """What to train on, and where to put it; the split is that of `train.py` with the same seed."""

    image_size: int = 256
    """Side that images are resized to, a multiple of 64."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Of everything."""
    run_dir: Path | None = None
    """Folder for metrics.json and overlays.png; default: runs/METHOD-DATASET-SEED."""
    device: str = "auto"
    """cpu, cuda or auto."""

    def __post_init__(self) -> None:
        check_types(self, RunError)
        if self.image_size < 64 or self.image_size % 64:
            raise RunError(f"image_size is {self.image_size}; choose a multiple of 64")


@dataclass(frozen=True)
class Problem:
    """One split of one data set, where its results go, and where to compute."""

    data: AnomalyDataset
    labeled: np.ndarray
    """Indices of the images whose masks may be learnt from."""
    unlabeled: np.ndarray
    """All others; their masks serve for the figures alone."""
    directory: Path
    device: str
    settings: dict[str, Any] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    """Digests of the data."""
    start: float = field(default_factory=time.perf_counter)


def settings(args: SegmentationArgs) -> dict[str, Any]:
    """What makes a run what it is: two runs with equal settings give equal figures."""
    left_out = ("run_dir", "device")
    root = args.data_root and args.data_root.resolve()
    return plain({k: v for k, v in asdict(args).items() if k not in left_out} | {"data_root": root})


@contextmanager
def prepare(args: SegmentationArgs, method: str) -> Iterator[Problem]:
    """Claim the run directory, read the data and draw the labelled images.

    Raises:
        RunError: the run directory holds more than an interrupted run leaves, or nothing can be scored.
    """
    name = args.dataset + (f"-{args.category}" if args.category else "")
    directory = args.run_dir or Path("runs") / f"{method}-{name}-{args.seed}"
    device = str(pick_device(args.device))
    with claim(directory, leftovers=("overlays.png",)):
        yield read(args, directory, device)


def read(args: SegmentationArgs, directory: Path, device: str) -> Problem:
    """Read the data and draw the labelled images; `prepare` says what can go wrong."""
    data, labeled = read_images(args, args.image_size, args.seed)
    unlabeled = np.setdiff1d(np.arange(len(data)), labeled)
    if not data.has_mask[unlabeled].any():
        raise RunError(
            f"no image of {data.name} but the {len(labeled)} labelled ones has a mask, so there is "
            "nothing to score; label fewer or add masks"
        )
    if not data.masks[labeled].any():
        raise RunError(f"no labelled image of {data.name} has a defect to learn from; label one that has")
    images = digests(names=data.names, images=data.images, masks=data.masks)
    return Problem(data, labeled, unlabeled, directory, device, settings(args), images)


def score(
    problem: Problem, method: str, predict: Callable[[np.ndarray], np.ndarray], threshold: float, **more: Any
) -> dict[str, Any]:
    """Score a method on the unlabelled images whose masks are known; write metrics.json and overlays.png.

    `predict` gives scores (n, S, S) of images (n, S, S, 3) uint8; a pixel is anomalous from `threshold` up.
    `more` goes into metrics.json, whose content is returned.
    """
    data = problem.data
    known = problem.unlabeled[data.has_mask[problem.unlabeled]]
    scores = predict(data.images[known])
    masks = scores >= threshold
    shown = np.unique(np.linspace(0, len(known) - 1, 12).round().astype(int))
    rows = known[shown]
    heat = np.clip(scores[shown] / max(2 * threshold, 1e-12), 0, 1)  # the threshold is half-way up
    names = [data.names[i] for i in rows]
    sheet = overlay_sheet(data.images[rows], heat, masks[shown], data.masks[rows], names)
    checkpoint.save_picture(np.asarray(sheet), problem.directory / "overlays.png")
    figures = evaluate(scores, masks, image_scores(scores), data.masks[known])
    metrics = {
        "settings": problem.settings,
        "images": problem.images,
        "dataset": data.name,
        "labeled": [data.names[i] for i in problem.labeled],
        "labeled_kinds": sorted({data.kinds[i] for i in problem.labeled}),
        "scored_images": len(known),
        "threshold": threshold,
        "seconds": time.perf_counter() - problem.start,
        "methods": {method: figures},
        "kinds": {method: counts_by_kind(masks, data.masks[known], [data.kinds[i] for i in known])},
    } | more
    checkpoint.save_json(metrics, problem.directory / "metrics.json")
    print("  ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None))
    return metrics


T = TypeVar("T")


def leave_some_out(
    masks: np.ndarray, learn: Callable[[np.ndarray, np.ndarray], T]
) -> tuple[list[T], np.ndarray]:
    """Learn from labelled images, of whose masks (n, S, S) some are left out, a fold after the other.

    `learn` learns from the first indices, and scores the second ones. Comes back what it gave for each fold,
    and the masks of all that was left out in that order, perhaps none.
    """
    parts = folds(masks, FOLDS)
    bar = tqdm(parts, desc="leave some out", unit="fold")
    found = [learn(np.delete(np.arange(len(masks)), part), part) for part in bar]
    return found, np.concatenate([masks[part] for part in parts] or [masks[:0]])


A = TypeVar("A", bound=SegmentationArgs)


@runs.command()
def command(
    cls: type[A], run: Callable[[A], Any], description: str | None, argv: Sequence[str] | None
) -> None:
    """Run what the command line says."""
    run(tyro.cli(cls, args=argv, description=description))
