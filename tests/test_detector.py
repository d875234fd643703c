"""The detector: what is saved comes back, any size goes in, labelled images choose the threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import untrained_rings

from nbs_env.common import checkpoint
from nbs_env.common.errors import ConfigError
from nbs_env.common.networks import initialize
from nbs_env.data import AnomalyDataset, DataError
from nbs_env.detect.alarms import image_scores
from nbs_env.detect.crf import CRFParams
from nbs_env.detect.detector import CRF_CANDIDATES, Detector, Prediction
from nbs_env.detect.metrics import pixel_prf
from nbs_env.detect.segmenter import Segmenter
from nbs_env.predictor import Predictor, mean_probabilities
from nbs_env.profiles import Weights

pytestmark = pytest.mark.usefixtures("all_kernels")

CPU = torch.device("cpu")
T = 3


@pytest.fixture
def rings() -> list[list[Weights]]:
    return untrained_rings()


@pytest.fixture
def detector(rings: list[list[Weights]], dataset: AnomalyDataset) -> Detector:
    """Its predictor is untrained, its threshold the median of its probabilities."""
    predictor = Predictor(T, 1)
    initialize(predictor, torch.Generator().manual_seed(1))
    crf = CRFParams(smooth_compat=0.7, appearance_compat=0.2)
    made = Detector(rings, [predictor.state_dict()] * 2, 128, "float32", CPU, crf=crf)
    made.thresholds["nbs"] = float(np.median(made.probabilities(dataset.images)))
    made.crf_threshold = made.thresholds["nbs"] * 0.999
    return made


def images_of_sizes(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def equal(a: Prediction, b: Prediction) -> bool:
    same = np.array_equal(a.probability, b.probability) and np.array_equal(a.mask, b.mask)
    return same and a.score == b.score


@pytest.mark.parametrize("named", [Path, str])
def test_saved_and_loaded_it_predicts_the_same(
    named: type[Path | str], detector: Detector, tmp_path: Path
) -> None:
    file = named(tmp_path / "detector.pt")
    detector.save(file)
    loaded = Detector.load(file)
    for name in ("thresholds", "crf", "crf_threshold"):
        assert getattr(loaded, name) == getattr(detector, name)
    images = images_of_sizes((128, 128), (90, 150))
    for before, after in zip(detector.predict(images), loaded.predict(images), strict=True):
        assert equal(before, after)
        assert before.mask.any()
        assert not before.mask.all()


@pytest.mark.parametrize("both", [True, False])
def test_segmenter_is_the_first_method(
    both: bool, detector: Detector, rings: list[list[Weights]], dataset: AnomalyDataset, tmp_path: Path
) -> None:
    weights = Segmenter(torch.Generator().manual_seed(2)).state_dict()
    predictors = [predictor.state_dict() for predictor in detector.predictors]
    more: dict[str, Any] = {"segmenter": weights, "thresholds": {"segmenter": 0.54}, "crf": detector.crf}
    if both:
        more["thresholds"] |= detector.thresholds
        more["crf_threshold"] = detector.crf_threshold
    parts = (rings, predictors) if both else ([], [])
    Detector(*parts, 128, "float32", CPU, **more).save(tmp_path / "detector.pt")
    found = Detector.load(tmp_path / "detector.pt")
    assert found.methods == (("segmenter", "nbs") if both else ("segmenter",))
    image = dataset.images[4]
    (first,), (named,) = found.predict(image), found.predict(image, "segmenter")
    assert equal(first, named)
    expected = found.probabilities(image[None], "segmenter")[0]
    np.testing.assert_array_equal(first.probability, expected)
    np.testing.assert_array_equal(first.mask, expected >= 0.54)
    assert 0.05 < first.mask.mean() < 0.95, "masks that are all alike would prove nothing"
    if both:
        assert equal(*found.predict(image, "nbs"), *detector.predict(image))
    else:
        with pytest.raises(ConfigError, match="method is 'nbs'; this detector has segmenter"):
            next(found.predict(image, "nbs"))


def test_images_of_other_sizes_keep_them(detector: Detector) -> None:
    sizes = [(64, 64), (64, 300), (257, 131), (128, 128)]
    for size, prediction in zip(sizes, detector.predict(images_of_sizes(*sizes)), strict=True):
        assert prediction.probability.shape == prediction.mask.shape == size
        assert prediction.probability.dtype == np.float32
        assert prediction.mask.dtype == bool
        assert 0 <= prediction.probability.min() <= prediction.score <= 1
        assert prediction.probability.max() <= 1


def test_image_of_the_training_size_is_left_as_it_is(detector: Detector, dataset: AnomalyDataset) -> None:
    probabilities = detector.probabilities(dataset.images)
    masks = detector.masks(probabilities, dataset.images)
    for i, prediction in enumerate(detector.predict(list(dataset.images))):
        np.testing.assert_allclose(prediction.probability, probabilities[i], atol=1e-6)
        np.testing.assert_array_equal(prediction.mask, masks[i])
        assert prediction.score == image_scores(probabilities)[i]


def test_larger_copy_of_an_image_has_the_larger_mask(detector: Detector, dataset: AnomalyDataset) -> None:
    image = dataset.images[0]
    small, large = detector.predict([image, image.repeat(2, axis=0).repeat(2, axis=1)])
    assert (small.mask.repeat(2, axis=0).repeat(2, axis=1) == large.mask).mean() > 0.9


def test_prediction_of_an_image_does_not_depend_on_the_others(detector: Detector) -> None:
    images = images_of_sizes((128, 128), (70, 80), (128, 128))
    together = list(detector.predict(images))
    alone = [next(iter(detector.predict([image]))) for image in images]
    assert all(equal(a, b) for a, b in zip(together, alone, strict=True))


def test_probability_is_the_mean_over_snapshots(
    detector: Detector, rings: list[list[Weights]], dataset: AnomalyDataset
) -> None:
    tensor = torch.from_numpy(dataset.images[2:]).permute(0, 3, 1, 2)
    profiles = [detector.meter.measure(ring, tensor) for ring in rings]
    parts = [
        mean_probabilities(detector.predictors[0], p, torch.float32, symmetries=True).numpy()
        for p in profiles
    ]
    assert not np.allclose(parts[0], parts[1])
    expected = (parts[0] + parts[1]) / 2
    np.testing.assert_allclose(detector.from_profiles(profiles), expected, rtol=1e-5)
    np.testing.assert_array_equal(
        detector.probabilities(dataset.images[2:]), detector.from_profiles(profiles)
    )


def test_image_score_is_the_mean_of_the_highest_thousandth() -> None:
    probabilities = np.zeros((2, 50, 40))
    probabilities[0, 3, 4], probabilities[0, 9, 9], probabilities[0, 7, 7] = 0.9, 0.5, 0.3
    assert image_scores(probabilities).tolist() == pytest.approx([0.7, 0.0])
    assert image_scores(np.array([[[0.2, 0.4]]])).tolist() == [0.4]  # at least one pixel


# Images of other kinds


def test_one_array_or_many(detector: Detector) -> None:
    images = np.stack(images_of_sizes((70, 80), (70, 80)))
    alone = [next(detector.predict(image)) for image in images]
    for many in (images, list(images), iter(images), tuple(images)):
        assert all(equal(a, b) for a, b in zip(alone, detector.predict(many), strict=True))
    assert len(list(detector.predict(images[0, :, :, 0]))) == 1
    assert not list(detector.predict([]))


def test_channels_and_layouts_that_say_the_same(detector: Detector) -> None:
    rgb = images_of_sizes((90, 100))[0]
    grey = rgb[..., 0].copy()
    three = np.stack([grey] * 3, axis=-1)
    alpha = np.random.default_rng(0).integers(0, 256, (90, 100, 1), dtype=np.uint8)
    expected_rgb, expected_grey = detector.predict([rgb, three])
    for same in (np.asfortranarray(rgb), np.concatenate([rgb, alpha], axis=2), rgb[::-1][::-1]):
        assert equal(next(detector.predict(same)), expected_rgb)
    flipped = rgb[:, ::-1]
    assert equal(next(detector.predict(flipped)), next(detector.predict(flipped.copy())))
    for same in (grey, grey[..., None], grey.astype(np.uint16) * 257):
        assert equal(next(detector.predict(same)), expected_grey)


@pytest.mark.parametrize("white", [4095, 65535])
def test_white_of_the_training_is_white_in_16_bit(white: int, detector: Detector, tmp_path: Path) -> None:
    grey = images_of_sizes((90, 100))[0][..., 0]
    detector.white = white
    detector.save(tmp_path / "detector.pt")
    loaded = Detector.load(tmp_path / "detector.pt")
    deep = np.round(grey * (white / 255)).astype(np.uint16)
    a, b = loaded.predict([grey, deep])
    assert loaded.white == white
    assert equal(a, b)


def test_levels_above_white_are_refused(detector: Detector) -> None:
    detector.white = 4095
    image = images_of_sizes((90, 100))[0]
    with pytest.raises(DataError, match=r"^image 1: levels up to 5000, above 4095"):
        list(detector.predict([image, np.full((90, 100), 5000, np.uint16)]))


WRONG: list[tuple[Any, str]] = [
    (np.zeros((90, 90, 3)), r"float64 \(90, 90, 3\)"),
    (np.zeros((90, 90), bool), r"bool \(90, 90\)"),
    (np.zeros((3, 90, 90), np.uint8), r"uint8 \(3, 90, 90\)"),
    (np.zeros((90, 90, 2), np.uint8), r"uint8 \(90, 90, 2\)"),
    (np.zeros(90, np.uint8), r"uint8 \(90,\)"),
    (np.zeros((63, 90, 3), np.uint8), r"uint8 \(63, 90, 3\)"),
    (np.zeros((90, 0), np.uint8), r"uint8 \(90, 0\)"),
    (Path("crack.png"), "a PosixPath"),
    (None, "a NoneType"),
]


@pytest.mark.parametrize(("wrong", "what"), WRONG)
def test_what_is_no_image_is_named(wrong: Any, what: str, detector: Detector) -> None:
    image = images_of_sizes((64, 64))[0]
    with pytest.raises(DataError, match=f"^image 0 is {what}; expected uint8 or uint16") as caught:
        list(detector.predict(wrong))
    assert "\n" not in str(caught.value)
    predictions = detector.predict([*[image] * 9, wrong])
    assert len([next(predictions) for _ in range(8)]) == 8
    with pytest.raises(DataError, match=f"^image 9 is {what}; expected .* from 64x64 pixels"):
        next(predictions)


# Calibration


@pytest.mark.parametrize(("low", "high"), [(0.03, 0.06), (0.0, 1.0)])
def test_threshold_separates_the_labelled_pixels(
    low: float, high: float, detector: Detector, dataset: AnomalyDataset
) -> None:
    """Certainty as well: a sigmoid rounds to 1, whose odds are infinite."""
    images, masks = dataset.images[[0, 1, 4]], dataset.masks[[0, 1, 4]]
    probabilities = np.where(masks, high, low).astype(np.float32)
    detector.calibrate(probabilities, images, masks)
    assert low < detector.threshold_of("nbs") <= high
    assert pixel_prf(detector.masks(probabilities, images), masks)[2] > 0.97


def test_kernel_that_removes_specks_is_chosen_where_there_are_specks(
    detector: Detector, dataset: AnomalyDataset
) -> None:
    rng = np.random.default_rng(3)
    images, masks = dataset.images[[0, 1, 4]], dataset.masks[[0, 1, 4]]
    flipped = masks ^ (rng.random(masks.shape) < 0.05)
    probabilities = np.where(flipped, 0.7, 0.3).astype(np.float32)
    detector.calibrate(probabilities, images, masks)
    plain = pixel_prf(probabilities >= detector.threshold_of("nbs"), masks)[2]
    assert pixel_prf(detector.masks(probabilities, images), masks)[2] > plain + 0.1
    assert detector.crf in CRF_CANDIDATES


def test_gentle_kernel_is_chosen_where_truth_is_thin(detector: Detector) -> None:
    """A heavy kernel wipes single lines out, which costs more than it cleans."""
    images = np.full((3, 128, 128, 3), 120, np.uint8)
    masks = np.zeros((3, 128, 128), bool)
    masks[:, 10::23] = True
    probabilities = np.where(masks, 0.6, 0.4).astype(np.float32)
    detector.calibrate(probabilities, images, masks)
    assert pixel_prf(detector.masks(probabilities, images), masks)[2] == 1


# Files that are none


def test_file_that_holds_no_detector_is_named(tmp_path: Path) -> None:
    checkpoint.save({"learner": {}}, tmp_path / "a.pt")
    with pytest.raises(checkpoint.CheckpointError, match=r"a\.pt") as caught:
        Detector.load(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)
