"""The data set's own checks, and the split into labelled and unlabelled images."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from nbs_env.data import READERS, AnomalyDataset, DataError, load, split


def dataset(anomalous: list[bool], has_mask: list[bool] | None = None) -> AnomalyDataset:
    """Black 8x8 images, some with one anomalous pixel, named a, b, c and so on."""
    n = len(anomalous)
    masks = np.zeros((n, 8, 8), dtype=bool)
    masks[anomalous, 3, 4] = True
    known = np.ones(n, dtype=bool) if has_mask is None else np.array(has_mask)
    names = tuple("abcdefghijklmnop"[:n])
    return AnomalyDataset("toy", np.zeros((n, 8, 8, 3), np.uint8), masks, known, names, ("",) * n)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((3, 8, 8), np.uint8)}, r"expected uint8 \(n, H, W, 3\)"),
        ({"images": np.zeros((3, 8, 8, 3), np.float32)}, "images are float32"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "at least 1"),
        ({"masks": np.zeros((3, 8, 7), bool)}, "masks is bool"),
        ({"masks": np.zeros((3, 8, 8), np.uint8)}, "masks is uint8"),
        ({"has_mask": np.ones(2, bool)}, "has_mask is bool"),
        ({"names": ("a", "b")}, "2 names for 3 images"),
        ({"kinds": ("a",)}, "1 kinds for 3 images"),
        ({"names": ("a", "b", "a")}, "two images are named 'a'"),
        ({"has_mask": np.array([False, True, True])}, "unknown truth"),
    ],
)
def test_fields_must_fit(changes: dict[str, Any], message: str) -> None:
    good = dataset([True, False, False])
    assert len(good) == 3
    with pytest.raises(DataError, match=message):
        dataclasses.replace(good, **changes)


def test_split_partitions_and_holds_an_anomaly() -> None:
    data = dataset([True] + [False] * 11, has_mask=[True] * 8 + [False] * 4)
    drawn = set()
    for seed in range(50):
        labeled, unlabeled = split(data, 2, np.random.default_rng(seed))
        assert (labeled == split(data, 2, np.random.default_rng(seed))[0]).all()
        assert labeled.dtype == unlabeled.dtype == np.int64
        assert sorted([*labeled, *unlabeled]) == list(range(12))
        assert list(labeled) == sorted(set(labeled))
        assert list(unlabeled) == sorted(unlabeled)
        assert len(labeled) == 2
        assert data.has_mask[labeled].all()
        assert data.masks[labeled].any()
        drawn.add(tuple(labeled))
    assert drawn == {(0, other) for other in range(1, 8)}


def test_split_by_name() -> None:
    labeled, unlabeled = split(dataset([True, False, False, True]), ("d", "b"), np.random.default_rng(0))
    assert list(labeled) == [1, 3]
    assert list(unlabeled) == [0, 2]


@pytest.mark.parametrize(
    ("labeled", "message"),
    [
        (0, "ask for at least 1"),
        (4, "only 3 of 4 images have a mask"),
        (("a", "z"), "no image is named 'z'"),
        (("a", "d"), "'d' has no mask"),
        (("a", "a"), "'a' is named twice"),
        ((), "no labelled image is named; name at least one"),
    ],
)
def test_split_errors(labeled: int | tuple[str, ...], message: str) -> None:
    data = dataset([True, False, False, False], has_mask=[True, True, True, False])
    with pytest.raises(DataError, match=message):
        split(data, labeled, np.random.default_rng(0))


def test_split_without_any_anomaly() -> None:
    data, rng = dataset([False] * 4, has_mask=[True] * 3 + [False]), np.random.default_rng(0)
    for count in (0, 2, 3):
        with pytest.raises(DataError, match=r"no mask holds an anomalous pixel|ask for at least 1"):
            split(data, count, rng)
    assert split(data, ("c", "a"), rng)[0].tolist() == [0, 2]
    beside = dataclasses.replace(data, good=data.images[:2])
    cases: list[tuple[int | tuple[str, ...], list[int]]]
    cases = [(0, []), (2, [0, 1, 2]), (5, [0, 1, 2]), ((), []), (("b",), [1])]
    for labeled, expected in cases:
        assert split(beside, labeled, rng)[0].tolist() == expected


def test_load_names_the_choices() -> None:
    with pytest.raises(DataError, match=re.escape(", ".join(READERS))):
        load("mvtek")
    with pytest.raises(DataError, match="image_size is 32"):
        load("synthetic", image_size=32)


@pytest.mark.parametrize("name", [name for name in READERS if name != "synthetic"])
def test_readers_of_files_need_a_root(name: str, tmp_path: Any) -> None:
    with pytest.raises(DataError, match=f"{name} is read from files"):
        load(name)
    with pytest.raises(DataError, match=r"nowhere: no such directory"):
        load(name, tmp_path / "nowhere")
    (tmp_path / "all.zip").touch()
    with pytest.raises(DataError, match=r"all\.zip: a file, no directory; expected"):
        load(name, tmp_path / "all.zip")
    with pytest.raises(DataError, match=re.escape(str(tmp_path)) + ".*expected"):
        load(name, tmp_path)


def test_sizes_are_the_images_own_unless_given() -> None:
    data = dataset([True, False])
    assert data.sizes == ((8, 8), (8, 8))
    assert dataclasses.replace(data, sizes=((5, 7), (8, 8))).sizes == ((5, 7), (8, 8))
    with pytest.raises(DataError, match="1 sizes for 2 images"):
        dataclasses.replace(data, sizes=((5, 7),))
