"""What the image-level baselines share: devices, run directories, and images sorted into classes."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import tyro

from baselines.d_anogan import wheel
from nbs_env import checkpoint
from nbs_env.config import check_types
from nbs_env.data import GOOD
from nbs_env.data.classes import (
    ClassDataset,
    read_cifar10,
    read_folder,
    read_mnist,
    read_mvtec,
    read_plant_village,
)
from nbs_env.runs import (
    RunError,
    at_least,
    check_data,
    check_names,
    check_new,
    claim,
    digests,
    load_checkpoint,
    plain,
)

T = TypeVar("T")


@dataclass(frozen=True)
class ClassesArgs:
    """What to train on, and where to put it."""

    data_root: Path | None = None
    """Its folder, or the one that holds it; data that are made on the fly need none."""
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


def read_classes(dataset: str, root: Path | None, size: int, channels: int) -> ClassDataset:
    """Read `mnist`, `fashion_mnist`, `cifar10` or `folder`.

    Args:
        dataset: one of the four.
        root: its folder, or the one that holds it.
        size: side of the square images; 28 for the first two.
        channels: 1 (grey) or 3 (RGB); 1 for the first two.

    Raises:
        RunError: no root, or a size that the data do not have.
        DataError: something in the data is wrong.
    """
    root = home(dataset, root)
    if dataset == "folder":
        return read_folder(root, size, channels)
    if dataset == "cifar10":
        return read_cifar10(root, size, channels)
    if (size, channels) != (28, 1):
        raise RunError(f"{dataset} is 28 pixels and grey; give --model.size 28 --model.channels 1")
    return read_mnist(root)


def home(dataset: str, root: Path | None) -> Path:
    """The folder of `dataset`: `root`, or the one in it that has the data set's name.

    Raises:
        RunError: no root.
    """
    if root is None:
        raise RunError(f"{dataset} is read from files; give its folder with --data-root")
    return root / dataset if (root / dataset).is_dir() else root


class Task(NamedTuple):
    """What one model is trained for.

    Attributes:
        data: all images.
        anomalous: the classes that are.
        share: of each other class, for training.
        apart: whether each anomalous class is scored by itself against the normal images.
    """

    data: ClassDataset
    anomalous: tuple[str, ...]
    share: float
    apart: bool = False

    def draw(
        self, limit: int, test_limit: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Indices for training and for testing, and which of the latter are anomalous.

        Args:
            limit: images to train on, at most; 0: all.
            test_limit: images to test on, at most; 0: all.
            rng: draws them.

        Returns:
            Two arrays of indices, (n,) and (m,), and by anomalous class (by "" unless `apart`) what the test
            images are, (m,): 1 anomalous, 0 normal, -1 of another anomalous class.

        Raises:
            RunError: only one kind of test images is left.
        """
        train, test = self.data.split(self.anomalous, self.share, rng)
        if limit:
            train = rng.permutation(train)[:limit]
        if test_limit:
            test = np.sort(rng.permutation(test)[:test_limit])
        labels = self.data.labels[test]
        every = np.isin(labels, [self.data.names.index(name) for name in self.anomalous])
        found = {"": every.astype(int)}
        if self.apart:
            wanted = {name: labels == self.data.names.index(name) for name in self.anomalous}
            found = {name: np.where(every & ~rows, -1, rows) for name, rows in wanted.items()}
        for truth in found.values():
            if not {0, 1} <= set(truth.tolist()):
                raise RunError(f"test_limit is {test_limit}: all images drawn are of one kind; raise it")
        return train, test, found


def class_tasks(
    dataset: str, root: Path | None, size: int, channels: int, protocol: int, seed: int
) -> dict[str, Task]:
    """What can be trained for, by the name that `--classes` takes.

    Args:
        dataset: `synthetic` (200 wheels a class), `wheel` (250 a class, with the anomalies of the D-AnoGAN
            thesis), `mvtec`, `plant_village`, or one that `read_classes` knows.
        root: its folder, or the one that holds it; no matter for wheels.
        size: side of the square images.
        channels: 1 (grey) or 3 (RGB).
        protocol: 1: the class is anomalous; 2: all others are. No matter for the three that have their own.
        seed: of wheels.

    Raises:
        RunError: as `read_classes` does.
        DataError: something in the data is wrong.
    """
    if dataset == "mvtec":
        found = read_mvtec(home(dataset, root), size, channels)
        return {name: Task(data, data.names[1:], 0.7) for name, data in found.items()}
    if dataset == "plant_village":
        found = read_plant_village(home(dataset, root), size, channels)
        return {n: Task(data, tuple(k for k in data.names if k != GOOD), 0.8) for n, data in found.items()}
    if dataset in ("synthetic", "wheel"):
        images, labels, _ = wheel.make(200 if dataset == "synthetic" else 250, size, seed)
        pool = ClassDataset(images[:, None].repeat(channels, 1), labels, wheel.CLASSES)
        if dataset == "wheel":
            return {"wheel": Task(pool, wheel.ANOMALIES, 0.8, apart=True)}
    else:
        pool = read_classes(dataset, root, size, channels)
    others = {name: tuple(other for other in pool.names if other != name) for name in pool.names}
    return {name: Task(pool, (name,) if protocol == 1 else others[name], 0.8) for name in pool.names}


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
