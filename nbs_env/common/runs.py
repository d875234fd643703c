"""Run directories, settings, resuming and errors: one way for every command."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gymnasium.error import InvalidAction, ResetNeeded
from tqdm import tqdm

from nbs_env.common import checkpoint
from nbs_env.common.checkpoint import PART
from nbs_env.common.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DataWarning,
    RunError,
    TrainingError,
)

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""A file in a directory that a process works in; what counts is that process's lock on it."""
NAME_BYTES = 255
"""The longest file name of the usual file systems."""


ERRORS = (
    *(CheckpointError, ConfigError, DataError, OSError, RunError, TrainingError),
    *(InvalidAction, ResetNeeded),  # of an agent that was plugged in
)
"""What a command reports as one line."""


class _Lines:
    """Standard error that knows whether it stands at the beginning of a line, as behind progress bars."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.fresh = stream, True

    def write(self, text: str) -> int:
        self.fresh = text.endswith("\n") if text else self.fresh
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def say(self, line: str) -> None:
        """Write a line of its own."""
        self.write(("" if self.fresh else "\n") + " ".join(line.splitlines()) + "\n")
        self.flush()


@contextmanager
def command(interrupted: str = "") -> Iterator[None]:
    """What surrounds every command.

    Bad input is one line on standard error and exit code 2, an interruption one line (`interrupted`, or what
    the run says) and 130. A `DataWarning` becomes a line that begins with `note:`, once. What the locale
    cannot show is escaped, and where a stream is missing, as in a service, nothing is said.
    """
    for name in ("stdin", "stdout", "stderr"):  # in this order they get the descriptors that were closed
        if getattr(sys, name) is None:
            empty = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(empty, "r" if name == "stdin" else "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    lines, said, show = _Lines(sys.stderr), set(), warnings.showwarning

    def note(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
        if not issubclass(category, DataWarning):
            show(message, category, *rest, **more)
        elif str(message) not in said:
            said.add(str(message))
            lines.say(f"note: {message}")

    def end(line: str, code: int) -> NoReturn:
        for bar in list(getattr(tqdm, "_instances", ())):
            bar.close()  # or it would be drawn again behind the line
        lines.say(line)
        sys.exit(code)

    with warnings.catch_warnings(), redirect_stderr(lines):
        warnings.simplefilter("always", DataWarning)
        warnings.showwarning = note
        try:
            yield
        except ERRORS as error:
            end(f"error: {error}", 2)
        except KeyboardInterrupt as error:
            end(interrupted or str(error) or "interrupted", 130)


def check_names(files: Iterable[Path]) -> None:
    """See that files can be called so, before anything is computed that they are to hold.

    Raises:
        RunError: a name is too long, or cannot be written as UTF-8 or in this locale.
    """
    for file in files:
        try:
            file.name.encode()
            size = len(os.fsencode(file.name + PART))
        except UnicodeEncodeError:
            raise RunError(
                f"{ascii(str(file))[1:-1]}: its name is not UTF-8, or not of this locale; rename the image, "
                "or set a locale of UTF-8"
            ) from None
        if size > NAME_BYTES:
            raise RunError(
                f"{file}: a name of {size} bytes with {PART} behind it; at most {NAME_BYTES} can be written, "
                "so shorten the image's name"
            )


def seen_from(directory: Path, file: Path) -> str:
    """The path of a file from a directory, with `/`; its whole path where it is on another drive."""
    try:
        return Path(os.path.relpath(file, directory)).as_posix()
    except ValueError:
        return file.resolve().as_posix()


# Run directories


@contextmanager
def claim(directory: Path, resumed: bool = False, leftovers: tuple[str, ...] = ()) -> Iterator[None]:
    """Be the only process that works in `directory`, which is made, and goes again if it stays empty.

    The claim ends with the process, however that dies. Where a file system knows no locks there is none.

    Args:
        directory: where to work.
        resumed: whether to go on with what it holds; otherwise it has to be new.
        leftovers: see `check_new`.

    Raises:
        RunError: another process works there, or it is not new.
    """
    made = not directory.exists()
    lock = _lock(directory)
    try:
        if not resumed:
            check_new(directory, leftovers)
        yield
    except KeyboardInterrupt as error:
        if any(directory.rglob("checkpoint.pt")) or (directory / "config.json").exists():
            raise KeyboardInterrupt("interrupted; go on with --resume") from error
        raise
    finally:
        with suppress(OSError):
            (directory / LOCK).unlink()
            if made:
                directory.rmdir()  # fails where there is something
        os.close(lock)


def _lock(directory: Path) -> int:
    """Open and lock the file `LOCK`; its descriptor."""
    file = directory / LOCK
    if directory.exists() and not directory.is_dir():
        raise RunError(f"{directory} is a file; choose another folder")
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise RunError(
                f"{directory} already holds a run, and another process works on it; wait for that, or choose "
                "another folder"
            ) from None
        except OSError:  # a file system without locks
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(file.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # another process ended in between, and took the file away


def held(directory: Path) -> bool:
    """Whether a process works in `directory`; False where a file system knows no locks."""
    try:
        with (directory / LOCK).open("r+b") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def check_new(directory: Path, leftovers: tuple[str, ...] = ()) -> None:
    """See that a run may begin in `directory`.

    Raises:
        RunError: it holds more than files that were never completed, and `leftovers`: names of those that a
            run that was interrupted, and cannot be resumed, may have left.
    """
    if directory.is_dir() and any(
        file.suffix != PART and file.name not in (LOCK, *leftovers) for file in directory.iterdir()
    ):
        raise RunError(f"{directory} already holds a run; choose another --run-dir, or --resume it")


# Settings


def plain(settings: Any) -> Any:
    """`settings` as JSON gives them back."""
    return json.loads(json.dumps(settings, default=str))


def check_settings(before: Any, now: Mapping[str, Any], source: Path) -> None:
    """See that a run goes on with the settings that it was begun with; where the data lie is no matter.

    Args:
        before: settings, perhaps in groups, as the file `source` has them.
        now: those of today, as `plain` has them.
        source: for messages.

    Raises:
        RunError: naming the first that differs.
        CheckpointError: `before` are no settings.
    """
    if not isinstance(before, dict):
        raise checkpoint.unreadable(source)
    for name, value in now.items():
        if isinstance(value, dict) and value:
            check_settings(before.get(name, {}), value, source)
        elif name != "data_root" and before.get(name) != value:
            raise RunError(
                f"{source} was made with {name} = {before.get(name)}, not {value}; go on with the same "
                "settings, or choose another folder"
            )


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"Python": platform.python_version()}
    for package in ("neural-batch-sampling", "torch", "numpy"):
        with suppress(PackageNotFoundError):  # run from a folder that was never installed
            found[package] = version(package)
    return found


def digests(**parts: Any) -> dict[str, str]:
    """The SHA-256 of each part of the data: an array, or what JSON can hold."""
    found = {}
    for name, part in parts.items():
        digest = hashlib.sha256()
        if isinstance(part, np.ndarray):
            for row in part:  # one by one, as they may lie on disc
                digest.update(np.ascontiguousarray(row).data)
        else:
            digest.update(json.dumps(part).encode())
        found[name.replace("_", " ")] = digest.hexdigest()
    return found


def check_data(before: Mapping[str, str], now: Mapping[str, str], data: str, directory: Path) -> None:
    """See that the `digests` of data (its name) are those that a run was begun with, wherever they lie.

    Raises:
        RunError: saying what differs.
    """
    differing = [name for name, digest in now.items() if before.get(name) != digest]
    if differing:
        raise RunError(
            f"{data} no longer holds what {directory} was begun with: other {' and '.join(differing)}; "
            "restore them, or choose another folder"
        )


def load_checkpoint(
    directory: Path, settings: Mapping[str, Any], device: str = "cpu"
) -> dict[str, Any] | None:
    """The state in checkpoint.pt, made with `settings`; None if there is no such file.

    Raises:
        RunError: it was made with others.
        CheckpointError: it cannot be read.
    """
    file = directory / "checkpoint.pt"
    if not file.exists():
        return None
    state = checkpoint.load(file, device)
    with checkpoint.unpacking(file):
        before = json.loads(state.pop("settings"))
    check_settings(before, plain(settings), file)
    return state
