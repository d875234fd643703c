"""Damaged files: an array or one `DataError` with the file's name in one line, never another exception."""

from __future__ import annotations

import gzip
import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import save_labels

from nbs_env.data import DataError, cifar10, read_image, read_mask
from nbs_env.data.classes import read_idx
from nbs_env.data.published import read_labels

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def pictures() -> list[tuple[str, bytes]]:
    """Suffix and content of a file of each format, some with EXIF data."""
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = 6, "a camera"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    grey, palette = PIXELS[..., 0], Image.fromarray(PIXELS).quantize(16)
    indexed = io.BytesIO()
    palette.save(indexed, "png", transparency=3)
    return [
        (".png", encoded(PIXELS, "png", exif=exif)),
        (".png", encoded(grey.astype(np.uint16), "png")),
        (".png", indexed.getvalue()),
        (".jpg", encoded(PIXELS, "jpeg", exif=exif)),
        (".jpg", encoded(PIXELS, "jpeg", progressive=True)),
        (".jpg", encoded(PIXELS, "mpo", save_all=True, append_images=[Image.fromarray(PIXELS)])),
        (".tif", encoded(PIXELS, "tiff", exif=exif)),
        (".tif", encoded(grey.astype(np.uint16), "tiff")),
        (".tif", encoded(PIXELS, "tiff", compression="tiff_lzw")),
        (".tif", encoded(PIXELS, "tiff", compression="jpeg")),
        (".bmp", encoded(PIXELS, "bmp")),
        (".webp", encoded(PIXELS, "webp", exif=exif)),
        (".webp", encoded(PIXELS, "webp", lossless=True)),
        (".pgm", encoded(grey, "ppm")),
        (".gif", encoded(grey, "gif")),
    ]


def damaged(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Bits flipped (at the beginning rather than later), cut off, spliced, a gap, or noise."""
    data = bytearray(content)
    kind = rng.integers(6)
    if kind <= 1:
        for _ in range(rng.integers(1, 12)):
            reach = min(len(data), 300) if rng.random() < 0.7 else len(data)
            data[rng.integers(reach)] ^= 1 << rng.integers(8)
    elif kind == 2:
        del data[rng.integers(len(data)) :]
    elif kind == 3:
        data[rng.integers(len(data)) :] = other[rng.integers(len(other)) :]
    elif kind == 4:
        start = rng.integers(len(data))
        data[start : start + rng.integers(1, 40)] = rng.bytes(rng.integers(0, 40))
    else:
        keep = rng.integers(0, 24)
        data[keep:] = rng.bytes(rng.integers(0, 400))
    return bytes(data)


def check(read: Callable[[Path], object], path: Path) -> bool:
    """Whether it was refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(path)
        except DataError as error:
            message = str(error)
            assert path.name in message
            assert "\n" not in message
            return True
    return False


@pytest.mark.slow
def test_damaged_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    good = pictures()
    refused = 0
    for number in range(2400):
        suffix, content = good[number % len(good)]
        other = good[rng.integers(len(good))][1]
        path = tmp_path / f"damaged{suffix}"
        path.write_bytes(damaged(content, other, rng))
        refused += check(read_image, path)
        check(lambda file: read_mask(file, (3,) if number % 2 else ()), path)  # noqa: B023  called at once
    assert 600 < refused < 2400  # the damage is neither none nor all there is


@pytest.mark.slow
def test_damaged_exif_data_leaves_the_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    block = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    for number in range(600):
        data = bytearray(block)
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(6, len(data))] = rng.integers(256)
        path = tmp_path / f"photo.{('jpg', 'png', 'webp')[number % 3]}"
        Image.fromarray(PIXELS).save(path, exif=bytes(data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert set(read_image(path).shape) == {40, 50, 3}


@pytest.mark.slow
def test_other_damaged_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    idx = tmp_path / "train-images-idx3-ubyte.gz"
    plain = b"\0\0\x08\x03" + np.array([5, 8, 8], ">u4").tobytes() + rng.bytes(320)
    save_labels(tmp_path / "001.mat", np.ones((20, 20)))
    batch = {b"data": PIXELS[:2].reshape(1, -1)[:, :3072].repeat(2, 0), b"labels": [1, 2]}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("train/cat/1.png", encoded(PIXELS[:32, :32], "png"))
    for content, path, read in (
        (gzip.compress(plain), idx, read_idx),
        (plain, tmp_path / "idx", read_idx),
        ((tmp_path / "001.mat").read_bytes(), tmp_path / "001.mat", read_labels),
        (archive.getvalue(), tmp_path / "zip" / "x.zip", lambda path: cifar10.read(path.parent)),
        *(
            (pickle.dumps(batch, protocol=p), tmp_path / "batch" / "data_batch_1", cifar10._read_python)
            for p in (2, 4)
        ),
    ):
        path.parent.mkdir(exist_ok=True)
        refused = 0
        for _ in range(100):
            path.write_bytes(damaged(content, plain, rng))
            refused += check(read, path)
        assert refused > 25, path
