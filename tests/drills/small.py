"""What the drills run: every command in its smallest form, its data, and what it has left on disc."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nbs_env.common.errors import RunError

from .forks import Outcome, command

RIVAL = "--dataset folder --data-root data --labeled 1 --image-size 128 --device cpu --run-dir run"
TEACH = "--segmenter-steps 2 --segmenter-crop 64 --segmenter-batch 2"
TRAIN = (
    f"{RIVAL} {TEACH} --updates 8 --episode-length 2 --cloning-length 2 --beta-horizon 8 --warmup-updates 2"
    " --autoencoder-width 4 --bottleneck-channels 4 --minibatch-size 2 --reinit-period 4 --profile-length 3"
    " --buffer-updates 4 --predictor-crop 64 --predictor-updates 1 --snapshot-cycles 1 --checkpoint-every 2"
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
UNET = "--model.width 2 --model.steps 2 --model.check-every 1 --model.crop 64"
CIFAR10 = "--dataset cifar10 --data-root cifar10 --model.size 16 --device cpu --run-dir run"


@dataclass(frozen=True)
class Command:
    """A command in its smallest form; it works in the folder that `furnish` has filled, on `run` in there."""

    title: str
    module: str
    start: str
    """Its options."""
    resume: str = ""
    """Its options when it goes on; empty: it begins again."""


RESUME = "--resume --run-dir run"
PREDICT = Command(
    "nbs_env.detect.predict", "nbs_env.detect.predict", "--run done --images new --out run --device cpu"
)
COMMANDS = {
    "teach": Command("train.py", "train", f"{RIVAL} {TEACH}", RESUME),
    "train": Command("train.py --agent reinforce", "train", f"--agent reinforce {TRAIN}", RESUME),
    "ppo": Command("train.py --agent ppo", "train", f"--agent ppo --batch-size 4 {TRAIN}", RESUME),
    "resumed": Command("train.py --resume", "train", "--resume --run-dir done --data-root data"),
    "d_anogan": Command("baselines.d_anogan", "baselines.d_anogan", D_ANOGAN, f"{D_ANOGAN} --resume"),
    "alcn": Command("baselines.alcn", "baselines.alcn", ALCN, f"{ALCN} --resume"),
    "cifar10": Command("baselines.alcn --dataset cifar10", "baselines.alcn", CIFAR10),
    "unet": Command("baselines.unet", "baselines.unet", f"{RIVAL} {UNET}"),
    "forest": Command("baselines.forest", "baselines.forest", RIVAL),
    "reconstruction": Command("baselines.reconstruction", "baselines.reconstruction", RIVAL),
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


def complete(each: Command, folder: Path) -> Outcome:
    """Run a command to its end; nothing can be tried where that fails."""
    outcome = command(each.module, each.start, folder)
    if outcome.code:
        raise RunError(f"{each.title} ended with {outcome.code} without a drill: {outcome.err[-500:]}")
    return outcome


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda file: lasting(json.loads(file.read_bytes())),
    ".pt": lambda file: lasting(torch.load(file)),
    ".png": lambda file: np.asarray(Image.open(file)),
    ".md": Path.read_bytes,
    ".csv": Path.read_bytes,
}


def content(folder: Path) -> dict[str, Any]:
    """Every finished file below `folder`, but what differs from run to run; {} if there is no such folder.

    Raises:
        ValueError: a file is not whole.
    """
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix in READERS:
            name = str(file.relative_to(folder))
            try:
                found[name] = READERS[file.suffix](file)
            except Exception as error:
                raise ValueError(f"{name} is not whole: {error}") from error
    return found


def lasting(value: Any) -> Any:
    """`value` without the entries that say how long something took, and where the data lie."""
    if not isinstance(value, dict):
        return value
    passing = ("seconds", "settings", "data_root")  # a checkpoint's settings have the data's folder in them
    return {name: lasting(each) for name, each in value.items() if not str(name).endswith(passing)}


def difference(a: Any, b: Any) -> str:
    """Where two nested structures differ in a bit; empty if nowhere."""
    mine, other = dict(_leaves(a)), dict(_leaves(b))
    for where in mine | other:
        if where not in mine or where not in other:
            return f"only one has {where}"
        if not _same(mine[where], other[where]):
            return f"{where}: {mine[where]!r} and {other[where]!r}"[:200]
    return ""


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(each, f"{where}/{name}")
    else:
        yield where, value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return type(a) is type(b) and a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and bool(np.array_equal(a, b))
