"""Draws `docs/images/masks.webp`: image, probability, mask and truth of one unlabelled image of each run.

    python docs/picture.py --runs RUN RUN RUN --out docs/images/masks.webp

Shown is the image with a defect whose F1 is the median of its run's, so neither the best nor the worst.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.networks import pick_device
from nbs_env.common.pictures import overlay_sheet
from nbs_env.common.runs import command
from nbs_env.desk.run import read_images, stored_run
from nbs_env.detect.detector import Detector
from nbs_env.detect.metrics import pixel_prf

Row = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]
"""Image (S, S, 3), probability, mask and truth (S, S), and what is written above."""


@dataclass(frozen=True)
class PictureArgs:
    """What to draw."""

    runs: tuple[Path, ...]
    """Finished runs of nbs train; a number of labelled images was drawn in each."""
    out: Path
    """The file to write, .webp or .png."""
    tile: int = 190
    """Width in pixels of a picture."""


def row(directory: Path) -> Row:
    """The median image of a run."""
    found = stored_run(directory)
    if found is None:
        raise RunError(f"{directory} holds no run; name the folders of finished ones")
    run, config, _ = found
    data, labeled = read_images(run, config.image_size, run.seed)
    shown = [i for i in range(len(data)) if data.anomalous[i] and i not in labeled]
    with checkpoint.unpacking(directory / "detector.pt"):
        detector = Detector.load(directory / "detector.pt", pick_device("auto"))
    predictions = list(detector.predict(data.images[shown]))
    scores = [pixel_prf(p.mask, data.masks[i])[2] for p, i in zip(predictions, shown, strict=True)]
    place = int(np.argsort(scores, kind="stable")[len(scores) // 2])
    image, prediction = shown[place], predictions[place]
    title = f"{data.name}, {data.names[image]}: F1 {scores[place]:.2f}, the median of {len(scores)} images"
    return data.images[image], prediction.probability, prediction.mask, data.masks[image], title


@command()
def main() -> None:
    """Draw what the command line says."""
    args = tyro.cli(PictureArgs, description=__doc__)
    images, probabilities, masks, truths, titles = zip(*map(row, args.runs), strict=True)
    sheet = overlay_sheet(images, probabilities, masks, truths, titles, args.tile)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.replace_file(args.out, lambda part: sheet.save(part, args.out.suffix[1:], quality=85))


if __name__ == "__main__":
    main()
