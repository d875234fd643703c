"""MNIST's files, and how images in classes are split."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from nbs_env.data import DataError
from nbs_env.data.classes import MNIST_FILES, ClassDataset, read_idx, read_mnist


def test_split_keeps_the_anomalous_out_of_training() -> None:
    labels = np.repeat(np.arange(3), 10)
    data = ClassDataset(np.zeros((30, 1, 28, 28), np.uint8), labels, ("a", "b", "c"))
    train, test = data.split(("b",), 0.8, np.random.default_rng(0))
    assert np.bincount(labels[train], minlength=3).tolist() == [8, 0, 8]
    assert np.bincount(labels[test]).tolist() == [2, 10, 2]
    assert not np.intersect1d(train, test).size
    with pytest.raises(DataError, match="there is no class 'd'; choose from a, b, c"):
        data.split(("d",), 0.8, np.random.default_rng(0))
    with pytest.raises(DataError, match="none is left to train on"):
        data.split(("a", "b", "c"), 0.8, np.random.default_rng(0))


def write_idx(file: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    content = header + array.tobytes()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def test_idx_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(10, size=shape, dtype=np.uint8) for shape in ((5, 28, 28), 5, (3, 28, 28), 3)]
    for number, (name, array) in enumerate(zip(MNIST_FILES, arrays, strict=True)):
        write_idx(tmp_path / (name + (".gz" if number % 2 else "")), array)
    data = read_mnist(tmp_path)
    np.testing.assert_array_equal(data.images[:, 0], np.concatenate(arrays[::2]))
    np.testing.assert_array_equal(data.labels, np.concatenate(arrays[1::2]))
    bad = tmp_path / f"{MNIST_FILES[1]}.gz"
    bad.write_bytes(bad.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: not a readable idx file"):
        read_mnist(tmp_path)
    (tmp_path / "x").write_bytes(b"\0\0\x08\x01\0\0\0\x09abc")
    with pytest.raises(DataError, match="not an idx file of bytes"):
        read_idx(tmp_path / "x")
    bad.unlink()
    with pytest.raises(DataError, match=r"lacks train-labels-idx1-ubyte\.gz"):
        read_mnist(tmp_path)


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    images, labels = np.zeros((3, 28, 28), np.uint8), np.arange(3, dtype=np.uint8)
    for name in MNIST_FILES:
        write_idx(tmp_path / name, images if "images" in name else labels)
    assert read_mnist(tmp_path).images.shape == (6, 1, 28, 28)
    for name, array in (
        ("t10k-images-idx3-ubyte", np.zeros((3, 14, 56), np.uint8)),
        ("t10k-labels-idx1-ubyte", labels[None]),
        ("t10k-labels-idx1-ubyte", labels + np.uint8(9)),
        ("train-labels-idx1-ubyte", labels[:2]),
    ):
        before = (tmp_path / name).read_bytes()
        write_idx(tmp_path / name, array)
        with pytest.raises(DataError, match="download"):
            read_mnist(tmp_path)
        (tmp_path / name).write_bytes(before)
