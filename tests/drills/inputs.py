"""Bad input of every kind that a command can be handed, and what its error line has to name.

Bounds of settings stand in the annotations of their fields, and what files may hold is tried in tests/data:
here each command shows that it says so.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nbs_env.common import checkpoint

from .forks import command
from .small import COMMANDS, Row, furnished

Spoil = Callable[[Path], object]
Cases = Mapping[str, tuple[tuple[Any, ...], ...]]
"""By a command's name in COMMANDS, or its module: options, or what is done to the furnished folder first in
words; what the error line must hold; and what is done."""
SECONDS = 60
"""A command that is still at work then has not refused."""
LONG = "n" * 250
"""A file may be called so with `.png` behind it, but not with `.png.part`."""


def cut(name: str) -> Spoil:
    """Keep the first half of a file."""
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def save(name: str, size: tuple[int, int] = (128, 128), classes: int = 2) -> Spoil:
    """Put a picture of (width, height) there, with vertical stripes."""
    stripes = np.arange(size[0]) // 8 % classes
    image = Image.fromarray(np.broadcast_to(stripes, size[::-1]).astype(np.uint8).copy())
    return lambda folder: image.save(folder / name)


def remove(*names: str) -> Spoil:
    """Delete files."""
    return lambda folder: [(folder / name).unlink() for name in names]


def move(name: str, to: str) -> Spoil:
    """Put a file or folder in another's place."""
    return lambda folder: os.replace(folder / name, folder / to)


def changed(name: str, **entries: Any) -> Spoil:
    """Change entries of a checkpoint, a detector or config.json."""

    def spoil(folder: Path) -> None:
        file = folder / name
        if file.suffix == ".json":
            checkpoint.save_json(json.loads(file.read_bytes()) | entries, file)
        else:
            checkpoint.save(checkpoint.load(file) | entries, file)

    return spoil


IMAGE, MASK = "data/images/1.png", "data/masks/1.png"
CHECKPOINT, CONFIG, TEACHING = "done/checkpoint.pt", "done/config.json", "done/teaching.pt"
DETECTOR, NBS = "done/detector.pt", "done/nbs.pt"
GAME = {"agent": "reinforce", "config": {"shift": "far"}, "options": {}}
TAKEN = (
    ("--run-dir done", "done"),
    (f"--run-dir {IMAGE}", "1.png"),
    (f"--run-dir {IMAGE}/run", "1.png"),
    ("--run-dir /proc/nothing", "/proc/nothing"),
)
"""Run directories that no command takes."""
CASES: Cases = {
    "teach": (
        *TAKEN,
        ("an image cut short", "1.png", cut(IMAGE)),
        ("an image smaller than a patch", "9.png", save("data/images/9.png", (63, 128))),
        ("two images of one stem", "1.jpg", save("data/images/1.jpg")),
        ("a name too long", "nnn", save(f"data/images/{LONG}.png")),
        ("a mask cut short", "1.png", cut(MASK)),
        ("a mask without its image", "9.png", save("data/masks/9.png")),
        ("a mask of another size", "1.png", save(MASK, (128, 127))),
        ("a mask of four classes", "1.png", save(MASK, classes=4)),
        ("a mask of an unknown type", "3.xcf", lambda folder: (folder / "data/masks/3.xcf").touch()),
        ("a dangling link", "3.png", lambda folder: (folder / "data/masks/3.png").symlink_to("nowhere")),
        ("no anomaly", "data", *(save(f"data/masks/{n}.png", classes=1) for n in range(3))),
        ("no masks", "data", remove(*(f"data/masks/{n}.png" for n in range(3)))),
        ("no images", "images", remove(*(f"data/images/{n}.png" for n in range(4)))),
        ("--labeled 3", "labelled", remove("data/images/3.png")),
        ("--labeled 9", "9"),
        ("--data-root nowhere", "nowhere"),
        (f"--data-root {IMAGE}", "1.png"),
        ("--data-root classes", "classes"),
        ("--dataset mvtek", "mvtek"),
        ("--dataset mvtec", "category"),
        ("--dataset mvtec --category grid", "data"),
        *((f"--dataset {name}", "data") for name in ("nanotwice", "magnetic_tile", "crackforest")),
        ("--mask-values 7", "7"),
        ("--device cuda:99", "cuda"),
        ("--segmenter-steps 0", "segmenter_steps"),
        (f"--run-dir {'r' * 300}", "rrr"),
        ("--resume", "run"),
    ),
    "train": (
        ("--updates 2", "updates"),
        ("--agent nobody", "nobody"),
        ("--agent pathlib:Path", "pathlib:Path"),
        ("--agent nosuch:Agent", "nosuch"),
    ),
    "ppo": (("--epochs 0", "epochs"),),
    "resumed": (
        *((f"{file} cut short", Path(file).name, cut(file)) for file in (CHECKPOINT, CONFIG, TEACHING)),
        ("a detector as checkpoint", "checkpoint.pt", move(DETECTOR, CHECKPOINT)),
        ("a checkpoint as teaching", "teaching.pt", move(CHECKPOINT, TEACHING)),
        ("a number as learner", "checkpoint.pt", changed(CHECKPOINT, learner=3)),
        ("an empty agent", "checkpoint.pt", changed(CHECKPOINT, agent={})),
        ("a damaged history", "checkpoint.pt", changed(CHECKPOINT, history="[")),
        ("damaged settings", "checkpoint.pt", changed(CHECKPOINT, settings="{")),
        ("an empty segmenter", "teaching.pt", changed(TEACHING, all={})),
        ("an unknown setting", "config.json", changed(CONFIG, run={"drift": 3})),
        ("a list as seed", "config.json", changed(CONFIG, run={"seed": [1]})),
        ("a word as shift", "config.json", changed(CONFIG, game=GAME)),
        ("another image", "data", save("data/images/3.png")),
        ("no data", "data", move("data", "elsewhere")),
        ("--updates 9", "updates"),
        ("--segmenter-steps 9", "segmenter_steps"),
        ("--seed 3", "seed"),
        ("--agent random", "agent"),
        ("--data-root classes", "classes"),
    ),
    "predict": (
        ("a detector cut short", "detector.pt", cut(DETECTOR)),
        ("a checkpoint as detector", "detector.pt", move(CHECKPOINT, DETECTOR)),
        ("an empty segmenter", "detector.pt", changed(DETECTOR, segmenter={})),
        ("no segmenter", "detector.pt", changed(DETECTOR, segmenter=None)),
        ("something else", "detector.pt", changed(DETECTOR, colour="blue")),
        ("a word as size", "detector.pt", changed(DETECTOR, image_size="big")),
        ("an image cut short", "1.png", cut("new/1.png")),
        ("an image smaller than a patch", "9.png", save("new/9.png", (200, 63))),
        ("two images of one stem", "1.jpg", save("new/1.jpg")),
        ("a name too long", "nnn", save(f"new/{LONG}.png")),
        ("--run nowhere", "nowhere"),
        ("--images nowhere", "nowhere"),
        ("--images data", "data"),
        ("--out done", "masks"),
        ("--out new/1.png", "1.png"),
        ("--out /proc/nothing", "/proc/nothing"),
    ),
    "nbs": (
        ("a detector cut short", "nbs.pt", cut(NBS)),
        ("no rings", "nbs.pt", changed(NBS, rings=[])),
        ("an empty predictor", "nbs.pt", changed(NBS, predictors=[{}])),
        ("a damaged CRF", "nbs.pt", changed(NBS, crf="{")),
    ),
    "d_anogan": (
        *TAKEN,
        ("--dataset mnist --data-root data", "data"),
        ("--model.batch-size 1000", "batch_size"),
        ("--dataset folder --data-root classes --model.channels 1 --anomalous-class zebra", "zebra"),
    ),
    "cifar10": (("--data-root data", "data"),),
    "alcn": (
        *TAKEN,
        ("an empty class", "c", lambda folder: (folder / "classes/c").mkdir()),
        ("a damaged image of a class", "1.png", cut("classes/a/1.png")),
        ("--dataset plant_village --data-root data", "data"),
        ("--model.alpha-low 0.95", "alpha_low"),
        ("--classes zebra", "zebra"),
    ),
    "unet": (*TAKEN, ("--labeled 9", "9"), ("--model.crop 65", "crop")),
    "forest": (("--model.trees 0", "trees"),),
    "reconstruction": (("no normal images", "folder"),),
    "nbs_env.desk.label": (("--images nowhere", "nowhere"),),
    "nbs_env.desk.report": (("--data-root data nowhere", "nowhere"),),
    "benchmarks.policies": (("--out b --agents nobody", "nobody"), (f"--out {IMAGE}", "1.png")),
    "benchmarks.ablations": (("--out b --shift 0", "shift"),),
    "benchmarks.tables": (("--out b --labeled 2 --image-size 100", "image_size"),),
}


def inputs(place: Path, model: Path, cases: Cases = CASES) -> Iterator[Row]:
    """Hand each command what it has to refuse."""
    tried, broken = 0, []
    for name, rows in cases.items():
        each = COMMANDS.get(name)
        module, words = (each.module, each.start) if each else (name, "")
        for what, named, *spoils in rows:
            folder = furnished(place / "case", model)
            for spoil in spoils:
                spoil(folder)
            options = what if what.startswith("--") else ""
            outcome = command(module, f"{words} {options}", folder, kill_after=SECONDS)
            wrong = outcome.complaint(named)
            broken += [f"{name}, {what}: {wrong}"] if wrong else []
            tried += 1
            shutil.rmtree(folder)
    yield Row("inputs", "one error line that names the file or value, exit code 2", tried, broken)
