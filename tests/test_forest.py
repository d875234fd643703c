"""The forest: learning a plain defect, no leak of test masks, and what it says where it cannot run."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines import forest
from baselines.segmentation import FOLDS, Problem
from nbs_env.common.errors import RunError
from nbs_env.data import AnomalyDataset
from nbs_env.detect.teaching import folds

SMALL = forest.ForestConfig(largest_scale=4.0, trees=10)


def fit(data: AnomalyDataset, out: Path) -> dict[str, Any]:
    return forest.fit(Problem(data, np.arange(3), np.arange(3, 12), out, "cpu"), SMALL, 0)


def test_learns_a_plain_defect_and_reads_no_test_mask(blobs: AnomalyDataset, tmp_path: Path) -> None:
    honest = fit(blobs, tmp_path / "a")
    assert honest["methods"]["forest"]["pixel_f1"] > 0.9
    masks = blobs.masks.copy()
    masks[3:] = np.random.default_rng(1).random((9, 64, 64)) < 0.5
    garbage = fit(replace(blobs, masks=masks), tmp_path / "b")
    assert honest["threshold"] == garbage["threshold"]
    assert honest["methods"] != garbage["methods"]


def test_an_image_with_the_only_anomaly_is_never_left_out(blobs: AnomalyDataset) -> None:
    masks = np.zeros((3, 64, 64), bool)
    masks[1, :8] = True
    assert [part.tolist() for part in folds(masks, FOLDS)] == [[0], [2]]
    features = [forest.features(image, SMALL) for image in blobs.images[:3]]
    assert forest.left_out_threshold(features, masks, SMALL, 0) == 0.5  # nothing to find on 0 and 2


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"needs scikit-image; python -m pip install -e '.\[forest\]'"):
        forest.run(forest.Args())
