"""The dense CRF against brute-force mean field."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nbs_env.detect.crf import CRFParams, dense_crf, shift_threshold

SMOOTH = CRFParams(smooth_sxy=2.0, smooth_compat=1.5, appearance_compat=0.0)
APPEARANCE = CRFParams(smooth_compat=0.0, appearance_sxy=4.0, appearance_srgb=15.0, appearance_compat=2.0)
BOTH = CRFParams(
    smooth_sxy=2.0, smooth_compat=1.0, appearance_sxy=4.0, appearance_srgb=15.0, appearance_compat=1.0
)


def slow_crf(probability: np.ndarray, image: np.ndarray, params: CRFParams) -> np.ndarray:
    """Mean field over all pairs, a pixel with itself among them; each kernel is normalised symmetrically."""
    height, width = probability.shape
    positions = np.array([(y, x) for y in range(height) for x in range(width)], dtype=float)
    colours = image.reshape(-1, 3) / params.appearance_srgb
    kernel = params.smooth_compat * normalised_kernel(positions / params.smooth_sxy)
    kernel += params.appearance_compat * normalised_kernel(
        np.concatenate([positions / params.appearance_sxy, colours], axis=1)
    )
    unary = np.log(np.stack([1 - probability.ravel(), probability.ravel()]))
    q = np.exp(unary)
    for _ in range(params.iterations):
        q = np.exp(unary + q @ kernel)
        q /= q.sum(axis=0)
    return q[1].reshape(height, width)


def normalised_kernel(features: np.ndarray) -> np.ndarray:
    kernel = np.exp(-0.5 * np.square(features[:, None] - features[None]).sum(axis=-1))
    scale = 1 / np.sqrt(kernel.sum(axis=1))
    return scale[:, None] * kernel * scale[None]


def two_colours(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose right part is lighter and redder, and a noisy probability, a little higher there."""
    rng = np.random.default_rng(seed)
    image = np.full((14, 18, 3), 90)
    image[:, 7:] = (150, 120, 110)
    image = (image + rng.integers(-8, 9, image.shape)).astype(np.uint8)
    logit = rng.normal(-0.3, 0.8, (14, 18))
    logit[:, 7:] += 0.6
    return 1 / (1 + np.exp(-logit)), image


# The library approximates the kernels on a lattice: here it is off by 0.0015 to 0.0045 on average. Each wrong
# implementation listed is off by more than the tolerance, so it would fail.
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("params", "wrong"),
    [
        (SMOOTH, [{"smooth_sxy": 3.0}, {"smooth_compat": 1.8}, {"smooth_compat": 0.0}, {"iterations": 3}]),
        (
            APPEARANCE,
            [
                {"appearance_sxy": 12.0},
                {"appearance_srgb": 30.0},
                {"appearance_compat": 2.4},
                {"appearance_compat": 0.0},
                {"iterations": 3},
            ],
        ),
        (
            BOTH,
            [
                {"smooth_compat": 0.0},
                {"appearance_compat": 0.0},
                {"appearance_srgb": 60.0},
                {"iterations": 3},
            ],
        ),
    ],
)
def test_equals_brute_force_mean_field(seed: int, params: CRFParams, wrong: list[dict[str, Any]]) -> None:
    probability, image = two_colours(seed)
    posterior = dense_crf(probability, image, params)
    assert np.abs(posterior - slow_crf(probability, image, params)).mean() < 0.006
    for changes in wrong:
        other = slow_crf(probability, image, replace(params, **changes))
        assert np.abs(posterior - other).mean() > 0.006, changes


def test_without_kernels_nothing_changes_but_the_extremes_are_clipped() -> None:
    probability, image = two_colours(0)
    probability[0, :2] = 0, 1
    posterior = dense_crf(probability, image, CRFParams(smooth_compat=0.0, appearance_compat=0.0))
    assert posterior.dtype == np.float32
    np.testing.assert_allclose(posterior, np.clip(probability, 1e-5, 1 - 1e-5), atol=1e-6)


def test_read_only_and_strided_arrays_are_as_good() -> None:
    probability, image = two_colours(1)
    expected = dense_crf(probability, image, BOTH)
    wide = np.repeat(image, 2, axis=1)
    wide.flags.writeable = probability.flags.writeable = False
    np.testing.assert_array_equal(dense_crf(probability, wide[:, ::2], BOTH), expected)


def test_several_maps_are_as_one_by_one() -> None:
    probability, image = two_colours(1)
    several = np.stack([probability, 1 - probability, probability / 2])
    expected = [dense_crf(each, image, BOTH) for each in several]
    np.testing.assert_array_equal(dense_crf(several, image, BOTH), expected)


def test_shifted_threshold_is_one_half() -> None:
    rng = np.random.default_rng(2)
    probability = rng.uniform(0.001, 0.999, (5, 6, 7))
    shifted = shift_threshold(probability, 0.2)
    logit = np.log(probability / (1 - probability)) - np.log(0.2 / 0.8)
    np.testing.assert_allclose(shifted, 1 / (1 + np.exp(-logit)), rtol=1e-12)
    np.testing.assert_allclose(shift_threshold(probability, 0.5), probability, rtol=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 2e-5, 0.037, 0.5, 0.9, 1.0])
def test_shift_keeps_the_mask_of_the_threshold(threshold: float) -> None:
    probability = np.random.default_rng(3).random(1000).astype(np.float32)
    probability[:2] = 0, 1
    probability[2] = threshold
    expected = probability >= np.float32(threshold)
    threshold = float(np.float32(threshold))
    np.testing.assert_array_equal(shift_threshold(probability, threshold) >= 0.5, expected)


GOOD = np.full((4, 5), 0.5)
IMAGE = np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("probability", "image", "message"),
    [
        (np.full((4, 5), np.nan), IMAGE, "NaN"),
        (GOOD + 1, IMAGE, r"outside \[0, 1\]"),
        (np.ones((4, 5), bool), IMAGE, "bool"),
        (GOOD[0], IMAGE, r"\(5,\)"),
        (GOOD[None, None], IMAGE, r"\(1, 1, 4, 5\)"),
        (GOOD, IMAGE.astype(np.float32), "float32"),
        (GOOD, IMAGE[:, :, 0], r"\(4, 5\)"),
        (GOOD, IMAGE.transpose(1, 0, 2), r"\(5, 4, 3\)"),
    ],
)
def test_wrong_input_is_named(probability: np.ndarray, image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dense_crf(probability, image, BOTH)


@pytest.mark.parametrize(
    "changes",
    [{"smooth_sxy": 0.0}, {"appearance_srgb": -1.0}, {"appearance_compat": -0.1}, {"iterations": 0}],
)
def test_wrong_parameters_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(BOTH, **changes)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_wrong_threshold_is_named(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        shift_threshold(GOOD, threshold)
