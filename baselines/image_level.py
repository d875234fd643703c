"""What the image-level commands share: arguments, run directories, training, checks and the table.

`baselines.alcn` and `baselines.classes` train a model for each method and each class, see `run_methods`;
`baselines.d_anogan` has classes alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
import tyro
from tqdm import tqdm

from baselines.models import Model, Trainable, sides
from baselines.tasks import class_tasks
from nbs_env.common import checkpoint, runs
from nbs_env.common.curves import Curves
from nbs_env.common.errors import RunError
from nbs_env.common.options import parse_first
from nbs_env.common.settings import AtLeast, Count, check_types
from nbs_env.data.classes import ClassDataset

Figures = dict[str, Any]
"""What the training of one model ends with."""


@dataclass(frozen=True)
class ImageLevelArgs:
    """What to train on, and where to put it."""

    data_root: Path | None = None
    """Its folder, or the one that holds it (torchvision's will do); data made on the fly need none."""
    limit: Annotated[int, AtLeast(0)] = 0
    """Normal images to train on, drawn at random; 0: all."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Of everything."""
    run_dir: Path | None = None
    """Folder for all results; default: a folder in runs/, named after all this."""
    resume: bool = False
    """Go on from the last checkpoint; finished models are only scored again."""
    device: str = "auto"
    """cpu, cuda or auto."""
    workers: Count = 1
    """Models that train at the same time."""
    checkpoint_every: Count = 10
    """Epochs (ALCN) or steps (all others) between checkpoints."""

    CHOICES: ClassVar[tuple[str, ...]] = ()
    """Options that choose models, and so are no matter to one model."""

    def __post_init__(self) -> None:
        check_types(self, RunError)


@dataclass(frozen=True)
class MethodsArgs(ImageLevelArgs):
    """What to train on, and where to put it."""

    protocol: Literal[1, 2] = 2
    """1: the class is anomalous and all others are normal; 2: it is normal and all others are anomalous.
    wheel, mvtec and plant_village say themselves what is normal."""
    classes: str = "3-closed-4,5-forked-5"
    """`all`, or classes (categories of mvtec, species of plant_village), separated by commas."""
    test_limit: Annotated[int, AtLeast(0)] = 0
    """Images of each kind, normal and anomalous, to test on, drawn at random; 0: all."""


A = TypeVar("A", bound=ImageLevelArgs)


def parse(cls: type[A], default: Callable[[A], A], description: str | None, argv: Sequence[str] | None) -> A:
    """The command line, with the defaults that `default` has for what it chooses."""
    words = sys.argv[1:] if argv is None else argv
    return tyro.cli(cls, args=words, default=default(parse_first(cls, words)), description=description)


def names_in(text: str, known: Collection[str], what: str) -> list[str]:
    """The names in `text`, separated by commas, or all; RunError if one is not known."""
    names = list(known) if text == "all" else list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in known:
            raise RunError(f"there is no {what} {name!r}; choose from {', '.join(known)}")
    return names


def open_run(
    args: ImageLevelArgs, model: Trainable, data: ClassDataset, directory: Path, **more: Any
) -> Callable[[], None]:
    """Make the directory of one model, which goes on from the checkpoint there if `args.resume`.

    `data` may lie elsewhere when a run goes on; `more` are further settings. What comes back stores the
    model's state, and settings and digests with it.

    Raises:
        RunError: it holds a run already, or one with other settings or data.
    """
    left_out = ("run_dir", "resume", "device", "workers", "checkpoint_every", *args.CHOICES)
    settings = runs.plain({k: v for k, v in asdict(args).items() if k not in left_out} | more)
    images = runs.digests(classes=data.names, labels=data.labels, images=data.images)
    file, state = directory / "checkpoint.pt", None
    if args.resume:
        state = runs.load_checkpoint(directory, settings, str(model.device))
    else:
        runs.check_new(directory)
    if state is not None:
        with checkpoint.unpacking(file):
            before = dict(state["images"])
        runs.check_data(before, images, str(args.data_root or "the data"), directory)
        with checkpoint.unpacking(file):
            model.load_state_dict(state)
    directory.mkdir(parents=True, exist_ok=True)
    marks = {"settings": json.dumps(settings), "images": images}
    return lambda: checkpoint.save(model.state_dict() | marks, file)


def train(
    model: Model, images: torch.Tensor, directory: Path, save: Callable[[], None], every: int, title: str
) -> float:
    """Train on `images` (n, C, S, S) uint8 to the end; seconds, those of an interrupted run included."""
    timing = directory / "timing.json"  # not in the checkpoint: equal runs have equal bits there
    before = 0.0
    if model.done and timing.is_file():
        with checkpoint.unpacking(timing):
            before = float(json.loads(timing.read_text(encoding="utf-8"))["seconds"])
    if model.finished:
        return before
    start = time.perf_counter()
    with Curves(directory, model.done + 1) as writer:
        bar = tqdm(desc=title, unit=model.UNIT, initial=model.done, total=model.steps)
        while not model.finished:
            figures = model.advance(images)
            bar.update()
            stored = model.done % every == 0 or model.finished
            if stored or model.done % model.LOG_EVERY == 0:
                values = model.check(figures)
                bar.set_postfix({key: f"{value:.4f}" for key, value in values.items()})
                for key, value in values.items():
                    writer.add_scalar(key, value, model.done)
            if stored:
                save()
                seconds = before + time.perf_counter() - start
                checkpoint.save_json({"seconds": seconds}, timing)
        bar.close()
    return seconds


def run_all(
    args: ImageLevelArgs,
    directory: Path,
    work: Callable[..., Figures],
    jobs: Mapping[Path, tuple[Any, ...]],
    known: Iterable[str],
    table: Callable[[list[Figures]], str],
) -> None:
    """Train models, `work(*job, place)` each, and write and print the `table` of what that gave.

    `directory`, of the table, may hold other models already, in subfolders of `known` names. Jobs are by the
    place of their model, whose own folder `open_run` sees to.

    Raises:
        RunError: another process works there, it holds something else, or a place cannot be called so.
    """
    runs.check_names(parent for place in jobs for parent in (place, place.parent))
    with runs.claim(directory, args.resume or directory in jobs, ("table.md", *known)):
        workers = min(args.workers, len(jobs))
        if workers == 1:
            results = [work(*job, place) for place, job in jobs.items()]
        else:
            threads = max(1, (os.cpu_count() or 1) // args.workers)
            context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
            with ProcessPoolExecutor(workers, context, torch.set_num_threads, (threads,)) as pool:
                futures = [pool.submit(work, *job, place) for place, job in jobs.items()]
                results = [future.result() for future in futures]
        text = table(results)
        checkpoint.save_text(text + "\n", directory / "table.md")
    print(text)


def run_methods(
    args: MethodsArgs,
    title: str,
    methods: Sequence[str],
    known: Iterable[str],
    work: Callable[..., Figures],
    table: Callable[[Any, dict[str, dict[str, Figures]]], str],
) -> None:
    """Train a model for each of `methods` and each class, and write the `table` by method and class.

    `work(args, method, task, class, directory)` trains one. RunError and DataError come before any training.
    """
    dataset, config = args.dataset, args.model  # type: ignore[attr-defined]
    sides(config.size)
    tasks = class_tasks(dataset, args.data_root, config.size, config.channels, args.protocol, args.seed)
    names = names_in(args.classes, tasks, "class")
    directory = args.run_dir or Path("runs") / f"{title}-{dataset}-{args.protocol}-{args.seed}"
    jobs = {directory / m / name: (args, m, tasks[name], name) for m in methods for name in names}

    def write(results: Sequence[Figures]) -> str:
        found = iter(results)
        return table(args, {method: {name: next(found) for name in names} for method in methods})

    run_all(args, directory, work, jobs, known, write)
