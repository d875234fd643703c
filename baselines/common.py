"""What the image-level baselines share: devices, run directories, and images sorted into classes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from nbs_env import checkpoint, env
from nbs_env.config import ConfigError
from nbs_env.data import DataError
from nbs_env.data.classes import ClassDataset, read_cifar10, read_folder, read_mnist

T = TypeVar("T")


class RunError(ValueError):
    """A run that cannot start; the message names the file or value and the remedy."""


ERRORS = (checkpoint.CheckpointError, ConfigError, DataError, OSError, RunError)
"""What a command reports as one line."""


def pick_device(name: str) -> str:
    """The device called `name`, as `nbs_env.env.pick_device` has it.

    Raises:
        ConfigError: there is no such device.
    """
    return str(env.pick_device(name))


def at_least(least: int, **values: int) -> None:
    """Refuse whatever is smaller than `least`.

    Raises:
        RunError: naming the value.
    """
    for name, value in values.items():
        if value < least:
            raise RunError(f"{name} is {value}; it must be at least {least}")


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


def open_run(directory: Path, resume: bool, settings: str, device: str) -> dict[str, Any] | None:
    """Make the run directory; the state in its checkpoint.pt if there is one to resume.

    Args:
        directory: must be new or empty unless `resume`, but for files that were never completed.
        resume: whether to go on.
        settings: what the checkpoint has to have been made with; it has them as `settings`.
        device: where its tensors go.

    Raises:
        RunError: it holds a run already, or one with other settings.
    """
    file = directory / "checkpoint.pt"
    if resume and file.exists():
        state = checkpoint.load(file, device)
        if state.pop("settings", "") != settings:
            raise RunError(
                f"{file} was made with other settings; resume with those, or choose another --run-dir"
            )
        return state
    if not resume and directory.exists() and any(f.suffix != ".part" for f in directory.iterdir()):
        raise RunError(f"{directory} already holds a run; choose another --run-dir, or --resume it")
    directory.mkdir(parents=True, exist_ok=True)
    return None


def set_generator(generator: torch.Generator, state: torch.Tensor) -> None:
    """Take over the state of a generator, unless that ran on another kind of device and has another form."""
    if len(state) == len(generator.get_state()):
        generator.set_state(state.cpu())


def train_all(train: Callable[..., T], jobs: Sequence[tuple[Any, ...]], workers: int) -> list[T]:
    """`train(*job)` of each job, in order, in so many processes at a time; 1: here, one after the other.

    Raises:
        RunError: fewer than one worker.
    """
    at_least(1, workers=workers)
    if min(workers, len(jobs)) == 1:
        return [train(*job) for job in jobs]
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (threads,)) as pool:
        return [future.result() for future in [pool.submit(train, *job) for job in jobs]]
