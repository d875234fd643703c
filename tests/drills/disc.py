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
from .small import COMMANDS, Row, content, difference, furnished

PLACES = (
    ("train", "config.json"), ("train", "events.out"), ("train", "checkpoint.pt"), ("train", "detector.pt"),
    ("train", "teaching.pt"), ("train", "nbs.pt"), ("train", "predictions.csv"),
    ("train", "1.png"), ("train", "3.png"), ("train", "overlays.png"), ("train", "timing.json"),
    ("train", "metrics.json"), ("ppo", "checkpoint.pt"), ("ppo", "metrics.json"),
    ("d_anogan", "events.out"), ("d_anogan", "checkpoint.pt"), ("d_anogan", "detector.pt"),
    ("d_anogan", "queries.png"), ("d_anogan", "samples.png"), ("d_anogan", "metrics.json"),
    ("d_anogan", "curves.png"), ("d_anogan", "table.md"),
    ("alcn", "events.out"), ("alcn", "checkpoint.pt"), ("alcn", "pictures.png"), ("alcn", "metrics.json"),
    ("alcn", "table.md"), ("unet", "overlays.png"), ("unet", "metrics.json"),
    ("predict", "masks/0.png"), ("predict", "probabilities/0.png"), ("predict", "overlays/1.png"),
    ("predict", "predictions.csv"), ("predict", "settings.json"),
)  # fmt: skip
"""Command, and how the file is called that there is no space for."""
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


def disc(place: Path, model: Path, count: int = len(PLACES)) -> Iterator[Row]:
    """Fill the disc at the first `count` places; small file systems, where they can be mounted."""
    expected: dict[str, dict[str, Any]] = {}
    sizes: dict[str, dict[str, int]] = {}
    broken = []
    for number, (name, file) in enumerate(PLACES[:count]):
        each = COMMANDS[name]
        if name not in expected:
            folder = furnished(place / f"{name}-whole", model)
            outcome = command(each.module, *each.start.split(), cwd=folder)
            assert outcome.code == 0, outcome.err
            expected[name] = content(folder / "run")
            files = (path for path in (folder / "run").rglob("*") if path.is_file())
            sizes[name] = {str(path): path.stat().st_size for path in files}
        size = next(size for path, size in sizes[name].items() if f"/{file}" in path)
        # Half of the file finds space, or none: the file of events grows while larger ones are written.
        space = 0 if number % 2 or file == "events.out" else size // 2
        folder = furnished(place / f"{name}-{number}", model)
        before = partial(no_space_for, file, space)
        wrong = _full_then_space(name, folder, file, before, expected[name])
        broken += [f"{each.title}, no space for {file}: {wrong}"] if wrong else []
    yield Row(
        "disc",
        "a file that finds no space (RLIMIT_FSIZE): one error line that names it, no half file, and the same "
        "bits once there is space",
        min(count, len(PLACES)),
        broken,
    )
    yield tmpfs(place, model, expected)


def _full_then_space(
    name: str, folder: Path, file: str, before: Callable[[], object], expected: dict[str, Any]
) -> str:
    """Run a command without space, then with it; what is wrong, or an empty string."""
    each = COMMANDS[name]
    outcome = command(each.module, *each.start.split(), cwd=folder, before=before)
    if wrong := outcome.complaint(file):
        return wrong
    try:
        content(folder / "run")
    except ValueError as error:
        return str(error)
    if name == "predict":  # it never goes on with predictions
        shutil.rmtree(folder / "run", ignore_errors=True)
    words = each.resume if each.resume and any((folder / "run").rglob("*.*")) else each.start
    outcome = command(each.module, *words.split(), cwd=folder)
    if outcome.code:
        return f"with space again: {outcome.err[-300:]}"
    return difference(content(folder / "run"), expected)


def tmpfs(place: Path, model: Path, expected: dict[str, dict[str, Any]]) -> Row:
    """`train.py` on small file systems that fill up, then grow."""
    promise = "a full file system (ENOSPC): one error line, and the same bits once it has grown"
    broken = []
    for size in TMPFS_KIB:
        folder = furnished(place / f"tmpfs-{size}", model)
        (folder / "run").mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder / "run")]
        try:
            answer = subprocess.run(mount, capture_output=True, text=True)
        except OSError as error:
            return Row("disc", promise, 0, [], f"not tried: {error}")
        if answer.returncode:
            return Row("disc", promise, 0, [], f"not tried: {answer.stderr.strip()}")
        try:
            each = COMMANDS["train"]
            outcome = command(each.module, *each.start.split(), cwd=folder)
            wrong = outcome.complaint("run/")
            if not wrong:
                subprocess.run(["mount", "-o", "remount,size=64m", str(folder / "run")], check=True)
                words = each.resume if (folder / "run/config.json").exists() else each.start
                outcome = command(each.module, *words.split(), cwd=folder)
                wrong = (
                    outcome.err[-300:]
                    if outcome.code
                    else difference(content(folder / "run"), expected["train"])
                )
        except ValueError as error:
            wrong = str(error)
        finally:
            subprocess.run(["umount", str(folder / "run")], check=True)
        broken += [f"{size} KiB: {wrong}"] if wrong else []
    return Row("disc", promise, len(TMPFS_KIB), broken)
