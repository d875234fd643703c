"""Defects that are put where there are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.detect import teaching
from nbs_env.detect.defects import MARGIN, SEEN, cut_out, make_up, paste
from nbs_env.detect.teaching import Teacher, teach
from nbs_env.detect.views import Views

CPU = torch.device("cpu")


def grey(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_each_connected_defect_is_cut_out_with_a_margin() -> None:
    image, mask = (
        np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype=np.uint8),
        np.zeros((40, 50), bool),
    )
    mask[10:14, 20:26] = True
    mask[14, 26] = True  # touches by a corner
    mask[0, 0] = True
    found = cut_out(image, mask)
    assert [shape.sum() for _, shape in found] == [1, 25]
    (corner, _), (shown, shape) = found
    np.testing.assert_array_equal(corner, image[: MARGIN + 1, : MARGIN + 1])
    np.testing.assert_array_equal(shown, image[10 - MARGIN : 15 + MARGIN, 20 - MARGIN : 27 + MARGIN])
    assert shape[MARGIN, MARGIN]


def test_a_pasted_defect_differs_by_as_much_as_it_did() -> None:
    """On an even ground of another grey: the same step of grey, in as many pixels, and nothing elsewhere."""
    image, mask = grey(40, 40, 100), np.zeros((40, 40), bool)
    mask[10:18, 20:23] = True
    image[mask] = 60
    (defect,) = cut_out(image, mask)
    for seed in range(20):
        ground = grey(48, 32, 180), np.zeros((48, 32), bool)
        shown, found = paste(ground, defect, np.random.default_rng(seed))
        assert found.sum() == mask.sum()
        rows, columns = np.nonzero(found)
        lengths = sorted((np.ptp(rows) + 1, np.ptp(columns) + 1))
        assert lengths == [3, 8]
        assert np.all(shown[rows, columns].min(axis=0) >= 138)
        assert np.abs(shown[found].astype(int).mean() - 140) < 12
        far = np.ones_like(found)
        far[max(0, rows.min() - 8) : rows.max() + 9, max(0, columns.min() - 8) : columns.max() + 9] = False
        assert (shown[far] == 180).all()
        assert not ground[1].any()  # a copy
        assert (ground[0] == 180).all()


def test_a_defect_larger_than_the_crop_is_cut_off() -> None:
    defect = grey(90, 20, 0), np.ones((90, 20), bool)
    shown, found = paste((grey(32, 32, 200), np.zeros((32, 32), bool)), defect, np.random.default_rng(0))
    assert found.sum() == 32 * 20
    assert shown.shape == (32, 32, 3)


def test_made_up_is_what_has_changed() -> None:
    rng = np.random.default_rng(0)
    source = rng.integers(256, size=(64, 64, 3), dtype=np.uint8)
    shares = []
    for _ in range(30):
        shown, found = make_up((grey(64, 64, 128), np.zeros((64, 64), bool)), source, rng)
        change = np.abs(shown.astype(int) - 128).max(axis=2)
        assert not found.any() or change[found].mean() > SEEN
        plain = gaussian_filter(change.astype(float), 2) > 60
        assert (plain & ~found).sum() <= 0.1 * plain.sum()  # an edge, no more
        shares.append(found.mean())
    assert 0.001 < np.mean(shares) < 0.2
    same = make_up((grey(64, 64, 128), np.zeros((64, 64), bool)), grey(64, 64, 128), rng)
    assert not same[1].any()  # what nobody sees is no defect


def masks_of_a_good_image(data: AnomalyDataset, config: Config) -> torch.Tensor:
    """Crops' masks from image 3, with defects of image 0 to paste."""
    none = np.zeros(0, int)
    teacher = Teacher(Views(data, "square"), np.array([0, 3]), none, config, 0, CPU, torch.float32)
    teacher.pairs, teacher.places = teacher.pairs[1:], teacher.places[1:]
    return teacher.batch()[1].flatten(1).any(dim=1)


def test_good_images_get_defects(dataset: AnomalyDataset, taught: Config) -> None:
    config = replace(taught, segmenter_batch=16)
    assert not masks_of_a_good_image(dataset, config).any()
    for share in ("paste_share", "synthetic_share"):
        assert masks_of_a_good_image(dataset, replace(config, **{share: 0.9})).float().mean() > 0.5


def test_the_second_round_has_the_first_ones_targets(
    dataset: AnomalyDataset, taught: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many steps again, each with crops of the images that nobody labelled."""
    config = replace(taught, soft_targets=True, segmenter_folds=1)
    steps: list[int] = []
    step = Teacher.step

    def record(self: Teacher, patches: list[np.ndarray] = [], targets: list[np.ndarray] = []) -> float:  # noqa: B006
        steps.append(len(patches))
        for patch, target in zip(patches, targets, strict=True):
            assert any(
                (np.lib.stride_tricks.sliding_window_view(image, patch.shape) == patch)
                .all(axis=(-3, -2, -1))
                .any()
                for image in dataset.images[2:]
            )
            assert 0 <= target.min() <= target.max() <= 1
        return step(self, patches, targets)

    monkeypatch.setattr(teaching.Teacher, "step", record)
    found = teach(dataset, np.array([0, 1]), config, 0, CPU, torch.float32)
    assert steps == [0] * config.segmenter_steps + [config.segmenter_batch] * config.segmenter_steps
    once = teach(dataset, np.array([0, 1]), replace(config, soft_targets=False), 0, CPU, torch.float32)
    assert any(not torch.equal(value, once.weights[name]) for name, value in found.weights.items())


def test_the_first_round_has_batch_samplings_targets(
    dataset: AnomalyDataset, taught: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said of an image is what its crops are to show; a second round asks the first instead."""
    config = replace(taught, soft_targets=True, segmenter_folds=1)
    said = np.linspace(0.1, 0.9, len(dataset), dtype=np.float32)
    constant: list[bool] = []
    step = Teacher.step

    def record(self: Teacher, patches: list[np.ndarray], targets: list[np.ndarray]) -> float:
        constant.extend(np.ptp(target) == 0 and bool(np.isin(target[0, 0], said)) for target in targets)
        return step(self, patches, targets)

    def sampled(indices: np.ndarray) -> np.ndarray:
        assert not np.isin([0, 1], indices).any()
        return np.stack([np.full(dataset.images.shape[1:3], said[i]) for i in indices])

    monkeypatch.setattr(teaching.Teacher, "step", record)
    parts: dict[str, Any] = {}
    teach(dataset, np.array([0, 1]), config, 0, CPU, torch.float32, parts, sampled)
    half = config.segmenter_steps * config.segmenter_batch
    assert constant == [True] * half + [False] * half
    teach(
        dataset,
        np.array([0, 1]),
        config,
        0,
        CPU,
        torch.float32,
        parts,
        lambda _: pytest.fail("asked in vain"),
    )
