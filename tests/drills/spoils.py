"""Ways to spoil the furnished folder before a command is given it."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

Spoil = Callable[[Path], object]


def write(name: str, data: bytes) -> Spoil:
    """Put a file there, and the folders it needs."""

    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return spoil


def cut(name: str, share: float = 0.5) -> Spoil:
    """Keep the beginning of a file."""
    return lambda folder: os.truncate(folder / name, int(share * (folder / name).stat().st_size))


def save(name: str, size: tuple[int, int] = (128, 128), *levels: int, pages: int = 1, **more: Any) -> Spoil:
    """Put a picture of (width, height) there, with vertical stripes of `levels`."""

    def spoil(folder: Path) -> None:
        stripes = np.resize(np.repeat(levels or (0, 255), 8), size[0])
        image = Image.fromarray(np.broadcast_to(stripes, size[::-1]).astype(np.uint8).copy())
        rest: dict[str, Any] = {"save_all": True, "append_images": [image] * (pages - 1)} if pages > 1 else {}
        image.save(folder / name, **rest, **more)

    return spoil


def deep(name: str, highest: int) -> Spoil:
    """Put a picture of 16 bits there."""
    levels = np.linspace(0, highest, 128 * 128).reshape(128, 128).astype(np.uint16)
    return lambda folder: Image.fromarray(levels).save(folder / name)


def turned(name: str, size: tuple[int, int]) -> Spoil:
    """Put a photograph there that a camera has turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(name, size, exif=exif)


def remove(*names: str) -> Spoil:
    """Delete files."""

    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


def state(name: str, value: Any) -> Spoil:
    """Put something there that `torch.save` has written."""
    return lambda folder: torch.save(value, folder / name)


def changed(name: str, change: Callable[[Any], Any]) -> Spoil:
    """Change what `torch.save` has written."""

    def spoil(folder: Path) -> None:
        value = torch.load(folder / name, weights_only=True)
        change(value)
        torch.save(value, folder / name)

    return spoil


def settings(change: Callable[[Any], Any]) -> Spoil:
    """Change the settings of the finished run."""

    def spoil(folder: Path) -> None:
        file = folder / "done/config.json"
        value = json.loads(file.read_text(encoding="utf-8"))
        change(value)
        file.write_text(json.dumps(value), encoding="utf-8")

    return spoil


def all_of(*spoils: Spoil) -> Spoil:
    """One after the other."""
    return lambda folder: [spoil(folder) for spoil in spoils]


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


BOMB = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(10_000)))
    + chunk(b"IEND", b"")
)
"""A PNG of a few bytes that unpacks to gigabytes."""
