"""What the drills run: every command in its smallest form, its data, and what it has left on disc."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

TRAIN = (
    "--dataset folder --data-root data --labeled 1 --device cpu --updates 8 --image-size 128"
    " --episode-length 2 --cloning-length 2 --beta-horizon 8 --warmup-updates 2 --autoencoder-width 4"
    " --bottleneck-channels 4 --minibatch-size 2 --reinit-period 4 --profile-length 3 --buffer-updates 4"
    " --predictor-crop 64 --segmenter-steps 2 --segmenter-crop 64 --segmenter-batch 2 --predictor-updates 1"
    " --snapshot-cycles 1 --checkpoint-every 2 --run-dir run"
)
D_ANOGAN = (
    "--per-class 6 --model.size 28 --model.width 0.25 --model.clusters 3 --model.latent 4"
    " --model.batch-size 8 --model.generator-steps 12 --model.xzx-steps 6 --checkpoint-every 3 --device cpu"
    " --run-dir run"
)
ALCN = (
    "--dataset folder --data-root classes --classes a --noise alcn --model.size 16 --model.channels 1"
    " --model.test-draws 1 --model.noise-width 0.1 --model.epochs 8 --model.batch-size 8"
    " --checkpoint-every 2 --device cpu --run-dir run"
)
CIFAR10 = "--dataset cifar10 --data-root cifar10 --model.size 16 --device cpu --run-dir run"
RIVAL = "--dataset folder --data-root data --labeled 1 --image-size 128 --device cpu --run-dir run"


@dataclass(frozen=True)
class Command:
    """A command in its smallest form; it works in the folder that `furnish` has filled, on `run` in there."""

    title: str
    module: str
    start: str
    """Its options."""
    resume: str = ""
    """Its options when it goes on; empty: it begins again."""


REINFORCE = Command(
    "train.py --agent reinforce", "train", f"--agent reinforce {TRAIN}", "--resume --run-dir run"
)
PPO = Command(
    "train.py --agent ppo", "train", f"--agent ppo --batch-size 4 {TRAIN}", "--resume --run-dir run"
)
PREDICT = Command(
    "nbs_env.detect.predict", "nbs_env.detect.predict", "--run done --images new --out run --device cpu"
)
COMMANDS = {
    "train": REINFORCE,
    "ppo": PPO,
    "d_anogan": Command("baselines.d_anogan", "baselines.d_anogan", D_ANOGAN, f"{D_ANOGAN} --resume"),
    "alcn": Command("baselines.alcn", "baselines.alcn", ALCN, f"{ALCN} --resume"),
    "cifar10": Command("baselines.alcn --dataset cifar10", "baselines.alcn", CIFAR10),
    "unet": Command(
        "baselines.unet",
        "baselines.unet",
        f"{RIVAL} --model.width 2 --model.steps 2 --model.check-every 1 --model.crop 64",
    ),
    "predict": PREDICT,
    "nbs": replace(PREDICT, start=f"{PREDICT.start} --method nbs"),
}


@dataclass
class Row:
    """A row of the table: something promised, how often it was tried, and each time that it was not kept."""

    group: str
    promise: str
    tried: int
    broken: list[str]
    remark: str = ""


def picture(rng: np.random.Generator, side: int = 128) -> np.ndarray:
    """Noise (side, side, 3) uint8 with a bright square."""
    image = rng.normal(120, 12, (side, side, 3))
    image[side // 4 : side // 2, side // 4 : side // 2] += 90
    return image.clip(0, 255).astype(np.uint8)


def furnish(folder: Path) -> Path:
    """Fill `folder`: `data` (4 images, 3 of them with a mask), `classes` (a and b), `new` (2 images)."""
    rng = np.random.default_rng(0)
    for name in ("data/images", "data/masks", "classes/a", "classes/b", "new"):
        (folder / name).mkdir(parents=True)
    for number in range(4):
        Image.fromarray(picture(rng)).save(folder / f"data/images/{number}.png")
        mask = np.zeros((128, 128), np.uint8)
        mask[32:64, 32:64] = 255
        if number < 3:
            Image.fromarray(mask).save(folder / f"data/masks/{number}.png")
        if number < 2:
            Image.fromarray(picture(rng, 64)).save(folder / f"new/{number}.png")
    for number in range(20):
        kind, high = ("a", 200) if number % 2 else ("b", 250)
        Image.fromarray(rng.integers(0, high, (28, 28), dtype=np.uint8)).save(
            folder / f"classes/{kind}/{number}.png"
        )
    return folder


def furnished(folder: Path, model: Path) -> Path:
    """A copy of the furnished folder `model`."""
    return Path(shutil.copytree(model, folder, symlinks=True))


def content(folder: Path) -> dict[str, Any]:
    """Every finished file below `folder`, but what differs from run to run; {} if there is no such folder.

    Raises:
        Exception: of many kinds, where a file is not whole.
    """
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        try:
            match file.suffix:
                case ".json":
                    found[name] = lasting(json.loads(file.read_text(encoding="utf-8")))
                case ".pt":
                    found[name] = lasting(torch.load(file, weights_only=True))
                case ".png":
                    with Image.open(file) as image:
                        found[name] = np.asarray(image)
                case ".md" | ".csv":
                    found[name] = file.read_bytes()
        except Exception as error:
            raise ValueError(f"{name} is not whole: {error}") from error
    return found


def lasting(value: Any) -> Any:
    """`value` without the entries that say how long something took, and where the data lie."""
    if not isinstance(value, dict):
        return value
    passing = ("seconds", "settings", "data_root")  # a checkpoint's settings have the data's folder in them
    return {name: lasting(each) for name, each in value.items() if not str(name).endswith(passing)}


def difference(a: Any, b: Any, where: str = "") -> str:
    """Where two nested structures differ in a bit; empty if nowhere."""
    if type(a) is not type(b):
        return f"{where}: {type(a).__name__} and {type(b).__name__}"
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return f"{where}: only one has {', '.join(sorted(map(str, a.keys() ^ b.keys())))}"
        pairs: list[tuple[Any, Any, Any]] = [(a[name], b[name], name) for name in a]
    elif isinstance(a, list | tuple):
        if len(a) != len(b):
            return f"{where}: {len(a)} and {len(b)} elements"
        pairs = [(x, y, number) for number, (x, y) in enumerate(zip(a, b, strict=True))]
    elif isinstance(a, torch.Tensor):
        return "" if a.dtype == b.dtype and torch.equal(a, b) else f"{where}: other values"
    elif isinstance(a, np.ndarray):
        return "" if np.array_equal(a, b) else f"{where}: other pixels"
    else:
        return "" if a == b else f"{where}: {a!r} and {b!r}"[:200]
    return next(filter(None, (difference(x, y, f"{where}/{name}") for x, y, name in pairs)), "")
