"""Masks for a folder of new images: `nbs predict --run RUN_DIR --images DIR --out DIR`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from nbs_env.common import checkpoint
from nbs_env.common.errors import ConfigError, RunError
from nbs_env.common.networks import keep_freed_memory, pick_device
from nbs_env.common.pictures import overlay_sheet
from nbs_env.common.runs import check_names, claim, command, seen_from
from nbs_env.common.settings import Between, check_types
from nbs_env.config import PATCH
from nbs_env.data import DataError, image_files
from nbs_env.data.reading import by_stem, read_large
from nbs_env.detect.alarms import expectation
from nbs_env.detect.detector import Detector

Row = tuple[str, float, float, float, bool]
"""File name, image score, highest probability, share of anomalous pixels, whether it is called bad."""
PAUSE, PATIENCE = 1.0, 10.0
"""Seconds between looks at a folder that is watched, and for which an unreadable file may stay as it is."""
OUTPUTS = ("masks", "probabilities", "overlays", "predictions.csv", "settings.json")
MIN_TILE, MAX_TILE = 256, 1024
"""Width in pixels of an overlay's pictures: the image's own within these bounds."""


@dataclass(frozen=True)
class PredictArgs:
    """What to predict with which detector."""

    run: Path
    """Directory of a finished run, or its detector.pt."""
    images: Path
    """Folder of images, of any sizes from 64x64 pixels up."""
    out: Path
    """Folder for masks/, probabilities/, overlays/, predictions.csv and settings.json."""
    device: str = "auto"
    """cpu, cuda or auto."""
    method: Literal["fused", "segmenter", "memory", "nbs"] | None = None
    """Segmenter and memory together, either alone, or batch sampling's loss profiles; None: what the run's
    masks are of."""
    threshold: Annotated[float, Between(0, 1)] | None = None
    """Probability from which a pixel is anomalous; None: the run's. Verdicts on images stay."""
    overlays: bool = True
    """Write overlays/."""
    watch: bool = False
    """Go on with files that come into the folder, until interrupted; the table grows with them."""


def predict_folder(args: PredictArgs) -> list[Row]:
    """Write masks, probabilities, overlays and tables; a few images are in memory at a time.

    All images are checked before the first is predicted, and the table is written last.

    Args:
        args: what to predict.

    Returns:
        A row for each image.

    Raises:
        CheckpointError: the run holds no detector that can be read.
        ConfigError: there is no such device, or the detector has no such method.
        DataError: an image cannot be read, is smaller than a patch, or shares its stem with another.
        RunError: the output folder holds predictions already, or one could not be called as its image.
        WriteError: a file cannot be written.
    """
    check_types(args, ConfigError)
    state, device = Detector.file_of(args.run, args.method), pick_device(args.device)
    with checkpoint.unpacking(state):
        detector = Detector.load(state, device)
        size = detector.image_size
        for method in detector.methods:  # do its parts fit together?
            detector.probabilities(np.zeros((1, size, size, 3), np.uint8), method)
    method = detector.check(args.method)
    if args.threshold is not None:
        detector.thresholds[method] = detector.crf_threshold = args.threshold
    files = by_stem(image_files(args.images))
    check_names(args.out / folder / f"{stem}.png" for folder in OUTPUTS[:3] for stem in files)
    with claim(args.out, resumed=True):
        for output in OUTPUTS:
            if (args.out / output).exists():
                raise RunError(f"{args.out / output} is there already; choose another --out or remove it")
        for file in tqdm(files.values(), desc="check", unit="image", leave=False):
            read_large(file, PATCH, detector.white)
        checkpoint.save_json(_settings(args, detector, method), args.out / "settings.json")
        for line in expectation(detector.expected if method == detector.methods[0] else {}):
            print(line, flush=True)
        rows = _predict(detector, files, args, method)
        _save_table(rows, args.out)
        for more in _arrivals(args.images, set(files), detector.white) if args.watch else ():
            check_names(args.out / folder / f"{stem}.png" for folder in OUTPUTS[:3] for stem in more)
            rows += _predict(detector, more, args, method)
            _save_table(rows, args.out)
    return rows


def _save_table(rows: list[Row], out: Path) -> None:
    names = ("file", "image_score", "highest_probability", "anomalous_share", "bad")
    cells = ((file, *(f"{value:.9g}" for value in values), int(bad)) for file, *values, bad in rows)
    checkpoint.save_csv([dict(zip(names, row, strict=True)) for row in cells], out / "predictions.csv")


def _settings(args: PredictArgs, detector: Detector, method: str) -> dict[str, Any]:
    """What was predicted with what, for `nbs report`."""
    return {
        "run": seen_from(args.out, args.run),
        "images": seen_from(args.out, args.images),
        "method": method,
        "threshold": detector.threshold_of(method),
        "image_threshold": detector.alarms.get(method),
        "expected": detector.expected if method == detector.methods[0] else {},
        "white": detector.white,
    }


def _arrivals(folder: Path, known: set[str], white: int) -> Iterator[dict[str, Path]]:
    """Files by stem that come into `folder`, each once, when it is complete; never ends.

    One that cannot be read may still be being written. It is tried again, and left out with a note when it
    has not changed for `PATIENCE` seconds.
    """
    while True:
        time.sleep(PAUSE)
        found = {}
        for file in image_files(folder):
            if file.stem in known:
                continue
            try:
                read_large(file, PATCH, white)
            except DataError as error:
                if time.time() - file.stat().st_mtime > PATIENCE:
                    print(f"note: left out: {error}", flush=True)
                    known.add(file.stem)
                continue
            found[file.stem] = file
            known.add(file.stem)
        if found:
            yield found


def _predict(detector: Detector, files: dict[str, Path], args: PredictArgs, method: str) -> list[Row]:
    """Write the pictures of `files`, by stem; the rows of the table."""
    rows = []
    waiting: deque[np.ndarray] = deque()  # read, and not yet pictured

    def read() -> Iterator[np.ndarray]:
        for file in files.values():
            waiting.append(read_large(file, PATCH, detector.white))
            yield waiting[-1]

    predictions = zip(files.items(), detector.predict(read(), method), strict=True)
    for (stem, file), prediction in tqdm(predictions, "predict", len(files), unit="image"):
        image, probability, mask = waiting.popleft(), prediction.probability, prediction.mask
        levels = (probability.clip(0, 1) * 255).round().astype(np.uint8)
        pictures = {"masks": mask, "probabilities": levels}
        if args.overlays:
            tile = max(MIN_TILE, min(image.shape[1], MAX_TILE))
            sheet = overlay_sheet([image], [probability], [mask], None, [file.name], tile)
            pictures["overlays"] = np.asarray(sheet)
        for folder, picture in pictures.items():
            checkpoint.save_picture(picture, args.out / folder / f"{stem}.png")
        highest, share = float(probability.max()), float(mask.mean())
        rows.append((file.name, prediction.score, highest, share, prediction.bad))
    return rows


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Predict what the command line says."""
    args = tyro.cli(PredictArgs, args=argv, description=__doc__)
    keep_freed_memory()
    rows = predict_folder(args)
    print(f"{len(rows)} images, {sum(bad for *_, bad in rows)} called bad; see {args.out}")


if __name__ == "__main__":
    main()
