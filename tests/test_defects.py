"""Defects that are put where there are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from nbs_env.data import AnomalyDataset
from nbs_env.detect.config import DetectorConfig
from nbs_env.detect.defects import MARGIN, cut_out, paste
from nbs_env.detect.teaching import Teacher
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


def masks_of_a_good_image(data: AnomalyDataset, config: DetectorConfig) -> torch.Tensor:
    """Crops' masks from image 3, with defects of image 0 to paste."""
    teacher = Teacher(Views(data, "square"), np.array([0, 3]), config, 0, CPU, torch.float32)
    teacher.pairs, teacher.places = teacher.pairs[1:], teacher.places[1:]
    return teacher.batch()[1].flatten(1).any(dim=1)


def test_good_images_get_defects(dataset: AnomalyDataset, taught: DetectorConfig) -> None:
    config = replace(taught, segmenter_batch=16)
    assert not masks_of_a_good_image(dataset, config).any()
    assert masks_of_a_good_image(dataset, replace(config, paste_share=0.9)).float().mean() > 0.5
