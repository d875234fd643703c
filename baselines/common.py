"""What the image-level baselines share: command lines, run directories, and what training changes."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import tyro

from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError, TrainingError
from nbs_env.common.runs import (
    at_least,
    check_data,
    check_names,
    check_new,
    claim,
    digests,
    load_checkpoint,
    plain,
)
from nbs_env.common.settings import check_types
from nbs_env.data.classes import ClassDataset

T = TypeVar("T")


@dataclass(frozen=True)
class ClassesArgs:
    """What to train on, and where to put it."""

    data_root: Path | None = None
    """Its folder, or the one that holds it (torchvision's will do); data made on the fly need none."""
    limit: int = 0
    """Normal images to train on, drawn at random; 0: all."""
    seed: int = 0
    """Of everything."""
    run_dir: Path | None = None
    """Folder for all results; default: a folder in runs/, named after all this."""
    resume: bool = False
    """Go on from the last checkpoint; finished models are only scored again."""
    device: str = "auto"
    """cpu, cuda or auto."""
    workers: int = 1
    """Models that train at the same time."""
    checkpoint_every: int = 10
    """Epochs (ALCN) or steps (D-AnoGAN) between checkpoints."""

    def __post_init__(self) -> None:
        """Check types first, then values."""
        check_types(self, RunError)
        at_least(0, seed=self.seed, limit=self.limit)
        at_least(1, workers=self.workers, checkpoint_every=self.checkpoint_every)


A = TypeVar("A", bound=ClassesArgs)


def parse(cls: type[A], default: Callable[[A], A], description: str | None) -> A:
    """The command line, with the defaults that `default` has for what it chooses."""
    words = sys.argv[1:]
    chosen, _ = tyro.cli(cls, args=[w for w in words if w not in ("-h", "--help")], return_unknown_args=True)
    return tyro.cli(cls, args=words, default=default(chosen), description=description)


@dataclass(frozen=True)
class Kept:
    """The checkpoint of one model.

    Attributes:
        file: it.
        state: what it held to go on from; None: begin.
        marks: settings and digests, which are stored with it.
    """

    file: Path
    state: dict[str, Any] | None
    marks: dict[str, Any]

    def restore(self, model: Any) -> None:
        """Let `model` go on from the state, if there is one.

        Raises:
            CheckpointError: it is no state of such a model.
        """
        if self.state is not None:
            with checkpoint.unpacking(self.file):
                model.load_state_dict(self.state)

    def save(self, model: Any) -> None:
        """Store the state of `model`."""
        checkpoint.save(model.state_dict() | self.marks, self.file)


def open_run(
    args: ClassesArgs,
    left_out: tuple[str, ...],
    data: ClassDataset,
    directory: Path,
    device: str,
    **more: Any,
) -> Kept:
    """Make the directory of one model; its checkpoint, read if there is one and `args.resume`.

    Args:
        args: the command's.
        left_out: settings that are no matter to one model, beside those that never are.
        data: all images; they may lie elsewhere when a run goes on.
        directory: must be new or empty unless `args.resume`.
        device: where tensors go.
        more: further settings.

    Raises:
        RunError: it holds a run already, or one with other settings or data.
    """
    left_out = ("run_dir", "resume", "device", "workers", "checkpoint_every", *left_out)
    settings = plain({k: v for k, v in asdict(args).items() if k not in left_out} | more)
    images = digests(classes=data.names, labels=data.labels, images=data.images)
    state = None
    if args.resume:
        state = load_checkpoint(directory, settings, device)
    else:
        check_new(directory)
    if state is not None:
        check_data(state.get("images"), images, str(args.data_root or "the data"), directory)
    directory.mkdir(parents=True, exist_ok=True)
    marks = {"settings": json.dumps(settings), "images": images}
    return Kept(directory / "checkpoint.pt", state, marks)


@contextmanager
def claim_all(directory: Path, places: Sequence[Path], resumed: bool, known: Sequence[str]) -> Iterator[None]:
    """Claim the folder of several models, each in its place in there.

    Args:
        directory: the folder; it may hold other models already.
        places: those of the models, whose own folders `open_run` sees to.
        resumed: whether to go on.
        known: names of the subfolders that models may have.

    Raises:
        RunError: another process works there, it holds something else, or a place cannot be called so.
    """
    check_names(parent for place in places for parent in (place, place.parent))
    with claim(directory, resumed or directory in places, ("table.md", *known)):
        yield


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def sides(size: int) -> list[int]:
    """Sides of feature maps, from the image's to four pixels or fewer, each half of the last, rounded up.

    Raises:
        RunError: below 16.
    """
    if size < 16:
        raise RunError(f"image size is {size}; the networks take sizes from 16 up")
    values = [size]
    while values[-1] > 4:
        values.append(math.ceil(values[-1] / 2))
    return values


class Trainable(Protocol):
    """What image-level models have in common: everything that a step of training changes is in these."""

    networks: dict[str, Any]
    optimizers: dict[str, torch.optim.Optimizer]
    random: torch.Generator


def training_state(model: Trainable) -> dict[str, Any]:
    """Networks, optimisers and generator of `model`, for a checkpoint."""
    return {
        "networks": {name: network.state_dict() for name, network in model.networks.items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in model.optimizers.items()},
        "random": model.random.get_state(),
    }


def load_training_state(model: Trainable, state: dict[str, Any]) -> None:
    """Take over what `training_state` gave."""
    for name, network in model.networks.items():
        network.load_state_dict(state["networks"][name])
    for name, optimizer in model.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    set_generator(model.random, state["random"])


def finite(figures: Mapping[str, torch.Tensor], when: str, remedy: str) -> dict[str, float]:
    """Read figures from the device.

    Raises:
        TrainingError: one is not finite; it says `when`, and the `remedy`.
    """
    values = {name: float(value) for name, value in figures.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(f"{name} became {value} {when}; {remedy}")
    return values


def image_batches(images: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Parts of `images` (n, C, S, S) that networks take at once: 512 of 32 pixels, fewer of larger ones."""
    return torch.from_numpy(images).split(max(1, 512 * 32**2 // images.shape[-1] ** 2))


def set_generator(generator: torch.Generator, state: torch.Tensor) -> None:
    """Take over the state of a generator, unless that ran on another kind of device and has another form."""
    if len(state) == len(generator.get_state()):
        generator.set_state(state.cpu())


def train_all(train: Callable[..., T], jobs: Sequence[tuple[Any, ...]], workers: int) -> list[T]:
    """`train(*job)` of each job, in order, in so many processes at a time; 1: here, one after the other."""
    if min(workers, len(jobs)) == 1:
        return [train(*job) for job in jobs]
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (threads,)) as pool:
        return [future.result() for future in [pool.submit(train, *job) for job in jobs]]
