"""The autoencoder on normal images: its errors, the threshold, and what it finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch

from baselines.reconstruction import (
    Args,
    Autoencoder,
    Reconstruction,
    ReconstructionConfig,
    fit,
    normal_images,
    normal_threshold,
)
from baselines.segmentation import Problem
from nbs_env.common.errors import RunError
from nbs_env.data import AnomalyDataset

TINY = ReconstructionConfig(latent=4, steps=40, batch_size=4, learning_rate=2e-3, smallest_region=4)


def test_shape() -> None:
    assert Autoencoder(7)(torch.zeros(2, 3, 128, 128)).shape == (2, 3, 128, 128)


def test_errors_are_means_over_the_patches_of_a_pixel() -> None:
    """With a network that returns zeros the error of a pixel is its square, however many patches hold it."""
    model = Reconstruction(TINY, 0, "cpu")
    model.network = lambda patches: torch.zeros_like(patches)  # type: ignore[assignment]
    images = np.random.default_rng(0).integers(256, size=(2, 200, 200, 3), dtype=np.uint8)
    expected = ((images / 255) ** 2).mean(axis=3)
    np.testing.assert_allclose(model.errors(images), expected, rtol=1e-5)


def test_threshold_is_the_lowest_that_leaves_small_regions() -> None:
    errors = np.random.default_rng(0).random((2, 12, 12)).astype(np.float32)

    def largest(threshold: float) -> int:
        sizes = []
        for each in errors >= threshold:
            regions, count = scipy.ndimage.label(each, np.ones((3, 3)))
            sizes += [int((regions == k).sum()) for k in range(1, count + 1)]
        return max(sizes, default=0)

    allowed = [float(value) for value in np.unique(errors) if largest(float(value)) <= 5]
    assert normal_threshold(errors, 5) == allowed[0]
    assert largest(normal_threshold(errors, 0)) == 0


def test_finds_what_normal_images_do_not_have(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(120, 130, size=(8, 128, 128, 1)).repeat(3, axis=3).astype(np.uint8)
    masks = np.zeros((4, 128, 128), bool)
    scored = grey[4:].copy()
    for k in range(4):
        masks[k, 20 * k : 20 * k + 24, 40:64] = True
    scored[masks] = 250
    data = AnomalyDataset("x", scored, masks, np.ones(4, bool), tuple("0123"), ("square",) * 4)
    problem = Problem(data, np.arange(1), np.arange(1, 4), tmp_path, "cpu")
    metrics = fit(problem, grey[:4], TINY, 0)
    assert metrics["methods"]["reconstruction"]["pixel_ap"] > 0.9
    assert metrics["scored_images"] == 3


def test_data_without_normal_images_of_their_own(tmp_path: Path, dataset: AnomalyDataset) -> None:
    with pytest.raises(RunError, match="crackforest has no normal images of its own"):
        normal_images(Args(dataset="crackforest", data_root=tmp_path), dataset)
    assert len(normal_images(Args(), dataset)) > 10
    known = replace(dataset, good=dataset.images[:2])
    assert normal_images(Args(dataset="folder"), known) is known.good
