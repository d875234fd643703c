"""A full disc at every kind of file that the commands write, then space again."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .forks import command
from .small import COMMANDS, Row, complete, content, difference, furnished

PLACES = {
    "train": "config.json events.out checkpoint.pt detector.pt teaching.pt nbs.pt predictions.csv 1.png 3.png"
    " overlays.png timing.json metrics.json",
    "ppo": "checkpoint.pt metrics.json",
    "d_anogan": "events.out checkpoint.pt detector.pt queries.png samples.png metrics.json curves.png"
    " table.md",
    "alcn": "events.out checkpoint.pt pictures.png metrics.json table.md",
    "unet": "overlays.png metrics.json",
    "predict": "masks/0.png probabilities/0.png overlays/1.png predictions.csv settings.json",
}
"""Command, and how the files are called that there is no space for, one at a time."""
TMPFS_KIB = (4, 64, 512, 1500, 5300, 5700)
"""Sizes of the small file systems."""


def no_space_for(name: str, space: int) -> None:
    """From the moment that a file called `name` is opened for writing, no file grows beyond `space` bytes.

    It is the file under its final name that counts, and the one with `.part` that comes before it. Writing
    then fails with EFBIG: Python ignores the signal SIGXFSZ.
    """

    def fill(file: object) -> None:
        if isinstance(file, str | Path) and f"/{name}" in f"/{Path(file).absolute()}":
            resource.setrlimit(resource.RLIMIT_FSIZE, (space, resource.RLIM_INFINITY))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and set(str(arguments[1])) & set("wax+"):
            fill(arguments[0])

    sys.addaudithook(hook)  # for Python's own files
    save = torch.save

    def save_full(state: object, file: Any, *rest: Any, **more: Any) -> None:
        fill(file)
        save(state, file, *rest, **more)

    torch.save = save_full  # type: ignore[assignment]


def disc(place: Path, model: Path) -> Iterator[Row]:
    """Fill the disc at every place; then small file systems, where they can be mounted."""
    expected: dict[str, dict[str, Any]] = {}
    broken, tried = [], 0
    for name, files in PLACES.items():
        whole = furnished(place / f"{name}-whole", model)
        complete(COMMANDS[name], whole)
        expected[name] = content(whole / "run")
        for file in files.split():
            size = next(path for path in (whole / "run").rglob("*") if f"/{file}" in str(path)).stat().st_size
            # Half of the file finds space, or none: the file of events grows while larger ones are written.
            space = 0 if tried % 2 or file == "events.out" else size // 2
            folder = furnished(place / f"{name}-{tried}", model)
            before = partial(no_space_for, file, space)
            wrong = _full_then_space(name, folder, file, expected[name], before=before)
            broken += [f"{COMMANDS[name].title}, no space for {file}: {wrong}"] if wrong else []
            tried += 1
    yield Row(
        "disc",
        "a file that finds no space (RLIMIT_FSIZE): one error line that names it, no half file, and the same "
        "bits once there is space",
        tried,
        broken,
    )
    yield tmpfs(place, model, expected["train"])


def _full_then_space(
    name: str,
    folder: Path,
    file: str,
    expected: dict[str, Any],
    before: Callable[[], object] = lambda: None,
    grow: Callable[[], object] = lambda: None,
) -> str:
    """Run a command without space, as `before` has it, and with it after `grow`; what is wrong, or ""."""
    each, run = COMMANDS[name], folder / "run"
    outcome = command(each.module, each.start, folder, before=before)
    if wrong := outcome.complaint(file):
        return wrong
    try:
        content(run)
    except ValueError as error:
        return str(error)
    grow()
    if name == "predict":  # it never goes on with predictions
        shutil.rmtree(run, ignore_errors=True)
    words = each.resume if each.resume and any(run.rglob("*.*")) else each.start
    outcome = command(each.module, words, folder)
    if outcome.code:
        return f"with space again: {outcome.err[-300:]}"
    return difference(content(run), expected)


def tmpfs(place: Path, model: Path, expected: dict[str, Any]) -> Row:
    """`train.py` on small file systems that fill up, then grow."""
    promise = "a full file system (ENOSPC): one error line, and the same bits once it has grown"
    broken = []
    for size in TMPFS_KIB:
        folder = furnished(place / f"tmpfs-{size}", model)
        run = folder / "run"
        run.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(run)]
        answer = subprocess.run(mount, capture_output=True, text=True)
        if answer.returncode:
            return Row("disc", promise, 0, [], f"not tried: {answer.stderr.strip()}")
        grow = partial(subprocess.run, ["mount", "-o", "remount,size=64m", str(run)], check=True)
        try:
            wrong = _full_then_space("train", folder, "run/", expected, grow=grow)
        finally:
            subprocess.run(["umount", str(run)], check=True)
        broken += [f"{size} KiB: {wrong}"] if wrong else []
    return Row("disc", promise, len(TMPFS_KIB), broken)
