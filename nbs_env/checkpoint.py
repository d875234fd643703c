"""Files that are whole or absent, and are never unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


class CheckpointError(ValueError):
    """A file that cannot be read back; the message names it and the remedy."""


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in the place of `path` at once."""
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def save_json(value: Any, path: Path) -> None:
    """Write `value` as indented JSON."""
    replace_file(path, lambda part: part.write_text(json.dumps(value, indent=2) + "\n"))


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Write `picture`, uint8 (H, W) or (H, W, 3) or bool (H, W), as PNG; makes the folders it needs."""
    if picture.dtype == bool:
        picture = picture * np.uint8(255)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda part: Image.fromarray(picture).save(part, "PNG"))


def save(state: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers, strings, lists and dictionaries; storages that are shared are written once."""
    replace_file(path, lambda part: torch.save(state, part))


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save` wrote, with `weights_only=True`.

    Raises:
        CheckpointError: the file is absent, truncated, or holds something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; expected a file written by a training run")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds, none of them documented
        raise _unreadable(path) from error
    if not isinstance(state, dict):
        raise _unreadable(path)
    return state


def _unreadable(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is truncated, damaged or of another kind; delete it and repeat the run with --resume"
    )
