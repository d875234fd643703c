"""Files that are whole or absent, and are never unpickled."""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from nbs_env.common.errors import CheckpointError, WriteError

if TYPE_CHECKING:
    import torch

PART = ".part"
"""Suffix of a file that is being written."""


def unwritable(path: Path, reason: Exception) -> WriteError:
    """The error of a file that cannot be written."""
    full = "the disc may be full"  # PyTorch's own words say nothing of use
    why = (getattr(reason, "strerror", None) or str(reason)) if isinstance(reason, OSError) else full
    return WriteError(f"{path} cannot be written ({why}); make room there, or choose another folder")


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in the place of `path` at once.

    Raises:
        WriteError: that failed; `path` is as it was.
    """
    temporary = path.with_name(path.name + PART)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, WriteError):
            raise unwritable(path, error) from error
        raise


def save_text(text: str, path: Path) -> None:
    """Write `text` in UTF-8, its line ends as they are."""
    replace_file(path, lambda part: part.write_text(text, encoding="utf-8", newline=""))


def save_json(value: Any, path: Path) -> None:
    """Write `value` as indented JSON."""
    save_text(json.dumps(value, indent=2) + "\n", path)


def save_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows as CSV; their keys become the header, and a row may lack some."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    save_text(text.getvalue(), path)


def save_figure(figure: Any, path: Path, dpi: int) -> None:
    """Write a `matplotlib.figure.Figure` as PNG; made without pyplot, it needs no backend."""
    replace_file(path, lambda part: figure.savefig(part, format="png", dpi=dpi))


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Write `picture`, uint8 (H, W) or (H, W, 3) or bool (H, W), as PNG; makes the folders it needs."""
    if picture.dtype == bool:
        picture = picture * np.uint8(255)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda part: Image.fromarray(picture).save(part, "PNG"))


def save(state: dict[str, Any], path: Path | str) -> None:
    """Write tensors, numbers, strings, lists and dictionaries; storages that are shared are written once."""
    import torch

    path = Path(path)

    def write(part: Path) -> None:
        try:
            torch.save(state, part)
        except RuntimeError as error:  # what PyTorch makes of a full disc
            raise unwritable(path, error) from error

    replace_file(path, write)


def load(path: Path | str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save` wrote, with `weights_only=True`.

    Raises:
        CheckpointError: the file is absent, truncated, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; expected a file written by a training run")
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's remarks on pickle protocols
            state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds, none of them documented
        raise unreadable(path) from error
    if not isinstance(state, dict):
        raise unreadable(path)
    return state


@contextmanager
def unpacking(path: Path) -> Iterator[None]:
    """Answer with `CheckpointError` whatever goes wrong while what `path` holds is taken apart."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # of as many kinds as there are ways to be damaged
        raise unreadable(path) from error


def unreadable(path: Path) -> CheckpointError:
    """The error of a file that is not what it should be."""
    return CheckpointError(
        f"{path} is truncated, damaged or of another kind; delete it and repeat the run with --resume"
    )
