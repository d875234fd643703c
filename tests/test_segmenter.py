"""The segmenter: pre-trained features, any size, and what it is taught with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SameBits

from nbs_env.common.errors import TrainingError
from nbs_env.data import AnomalyDataset
from nbs_env.detect import teaching
from nbs_env.detect.alarms import ENOUGH, alarm_of, expectation, interval
from nbs_env.detect.config import DetectorConfig
from nbs_env.detect.fusion import SHARES
from nbs_env.detect.metrics import best_threshold, pixel_prf
from nbs_env.detect.recall import Recall
from nbs_env.detect.segmenter import Segmenter, segment_images
from nbs_env.detect.teaching import Teacher, bounded_threshold, folds, teach
from nbs_env.detect.views import Views
from nbs_env.features.encoder import CHANNELS, Convolution, Encoder, pretrained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    encoder = Encoder()
    encoder.load_state_dict(pretrained())
    return encoder


# Features


def test_features_are_those_of_the_published_network(encoder: Encoder) -> None:
    """Means and spreads are of efficientnet-lite-pytorch 0.1.0, which ours agrees with to the last bit."""
    assert sum(p.numel() for p in encoder.parameters()) == 700_768
    x = torch.linspace(0, 1, 3 * 64 * 96).reshape(1, 3, 64, 96)
    with torch.no_grad():
        found = encoder(x)
    assert [tuple(f.shape) for f in found] == [
        (1, c, 64 // s, 96 // s) for c, s in zip(CHANNELS, (2, 4, 8, 16), strict=True)
    ]
    means, spreads = [float(f.mean()) for f in found], [float(f.std()) for f in found]
    assert means == pytest.approx([-0.522128, 1.728924, 0.433157, -0.359008], abs=1e-4)
    assert spreads == pytest.approx([7.058762, 7.837093, 6.808374, 5.777722], abs=1e-4)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (5, 1)])
def test_odd_padding_goes_below_and_to_the_right(kernel: int, stride: int) -> None:
    """As TensorFlow pads: output 0 of a stride of two looks at one pixel less above than below."""
    layer = Convolution(1, 1, kernel, stride, bias=False)
    torch.nn.init.ones_(layer.weight)
    x = torch.zeros(1, 1, 16, 16)
    before = (kernel - stride) // 2
    x[..., kernel - 1 - before, 0] = 1  # the last row that output 0 sees
    assert layer(x)[0, 0, 0, 0] == 1
    x = torch.zeros(1, 1, 16, 16)
    x[..., kernel - before, 0] = 1
    assert layer(x)[0, 0, 0, 0] == 0


def test_the_encoder_begins_pre_trained_and_learns_slower(
    dataset: AnomalyDataset, taught: DetectorConfig, encoder: Encoder
) -> None:
    teacher = Teacher(Views(dataset, "square"), np.array([0, 1]), taught, 0, CPU, torch.float32)
    found = teacher.segmenter.encoder
    assert torch.equal(found._conv_stem.weight, encoder._conv_stem.weight)
    rate, slow = (group["lr"] for group in teacher.optimizer.param_groups)
    assert slow == rate / 10
    before = found._bn0.running_mean.clone()
    teacher.step()
    assert torch.equal(found._bn0.running_mean, before)  # ImageNet's statistics stay


# Teaching


def test_crops_are_of_labelled_images_alone(dataset: AnomalyDataset, taught: DetectorConfig) -> None:
    """Every image has a colour of its own, so a crop tells where it is from, and its mask goes with it."""
    images = np.stack([np.full((128, 128, 3), 20 * number, np.uint8) for number in range(5)])
    masks = np.zeros((5, 128, 128), bool)
    masks[:, 40:60, 30:90] = True
    images[masks] += 10
    good = np.full((2, 128, 128, 3), 200, np.uint8)
    data = replace(dataset, images=images, masks=masks, has_mask=np.ones(5, bool), good=good)
    config = replace(taught, segmenter_batch=200)
    teacher = Teacher(Views(data, "square"), np.array([1, 3]), config, 0, CPU, torch.float32)
    teacher.rng = Steady(0)
    crops, truth = teacher.batch()
    assert crops.shape == (200, 3, 64, 64)
    levels = (crops[:, 0] * 255).round().int()
    assert set(levels.unique().tolist()) == {20, 30, 60, 70}
    torch.testing.assert_close(truth > 0, (levels == 30) | (levels == 70))
    assert float((truth > 0).any(dim=2).any(dim=1).float().mean()) > 0.5


class Steady:
    """A generator that changes neither brightness nor contrast."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rng, name)

    def uniform(self, low: float, high: float) -> float:
        return 1.0 if low > 0 else 0.0


def test_what_is_left_out_leaves_a_defect_to_learn() -> None:
    masks = np.zeros((5, 4, 4), bool)
    masks[[0, 3], 0, 0] = True
    assert [part.tolist() for part in folds(masks, 2)] == [[0, 1, 4], [2, 3]]
    assert [part.tolist() for part in folds(masks, 5)] == [[0], [3], [1], [2], [4]]
    masks[3] = False
    assert [part.tolist() for part in folds(masks, 2)] == [[1, 3]]
    assert folds(masks[:1], 3) == []


def test_a_segmenter_is_judged_where_its_teacher_did_not_look(
    dataset: AnomalyDataset, taught: DetectorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fold by fold: what each teacher gets, what is looked at then, and whose masks choose the threshold."""
    labeled, learnt, looked, chosen = np.array([0, 1, 3, 4]), [], [], []

    class Watched(Teacher):
        def __init__(self, views: Views, labeled: np.ndarray, *rest: Any) -> None:
            super().__init__(views, labeled, *rest)
            learnt.append(labeled.tolist())
            looked.append([])

    def look(_: Segmenter, images: np.ndarray, **rest: Any) -> np.ndarray:
        (number,) = np.flatnonzero((dataset.images == images).all(axis=(1, 2, 3)))
        looked[-1].append(int(number))
        return np.full(images.shape[:3], (number + 1) / 10, np.float32)

    def choose(probabilities: np.ndarray, truth: np.ndarray, weight: float) -> float:
        chosen.append((probabilities, truth, weight))
        return 0.5

    for name, watching in (("Teacher", Watched), ("segment_images", look), ("bounded_threshold", choose)):
        monkeypatch.setattr(teaching, name, watching)
    teach(dataset, labeled, replace(taught, segmenter_steps=1), 0, CPU, torch.float32)
    assert (learnt, looked) == ([[1, 3], [0, 4], [0, 1, 3, 4]], [[0, 4], [1, 3], []])
    (probabilities, truth, weight), _ = chosen
    np.testing.assert_array_equal(truth.ravel(), dataset.masks[[0, 4, 1, 3]].ravel())
    np.testing.assert_allclose(probabilities.ravel(), np.repeat([0.1, 0.5, 0.2, 0.4], 128**2), rtol=1e-6)
    share = dataset.masks[labeled].mean()
    assert weight == pytest.approx(((1 - share) / share) ** 0.5)


def test_killed_between_parts_it_ends_with_the_same_bits(
    dataset: AnomalyDataset, taught: DetectorConfig, same_bits: SameBits
) -> None:
    labeled, kept = np.array([0, 1, 2]), {}
    recall = Recall(dataset, labeled, 50, 0, CPU)
    whole = teach(dataset, labeled, taught, 0, CPU, torch.float32, recall)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(dataset, labeled, taught, 0, CPU, torch.float32, recall, kept, on_part=stop)
    assert list(kept) == ["square/0"]
    losses: list[float] = []
    recall = Recall(dataset, labeled, 50, 0, CPU)
    again = teach(dataset, labeled, taught, 0, CPU, torch.float32, recall, kept, on_step=losses.append)
    assert len(losses) == 2 * taught.segmenter_steps
    same_bits(vars(whole), vars(again))


def test_nothing_can_be_left_out_of_one(dataset: AnomalyDataset, taught: DetectorConfig) -> None:
    found = teach(dataset, np.array([0]), taught, 0, CPU, torch.float32)
    assert (found.thresholds["segmenter"], found.f1) == (0.5, None)


def test_good_images_are_looked_at_where_nothing_was_learnt(
    dataset: AnomalyDataset, taught: DetectorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by the segmenters of one part, and as many of their pixels as of labelled images."""
    good = np.stack([np.full((128, 128, 3), 40 + number, np.uint8) for number in range(7)])
    scored: list[list[int]] = []

    def watch(segmenter: Segmenter, images: np.ndarray, **rest: Any) -> np.ndarray:
        if int(images[0, 0, 0, 0]) - 40 in range(7) and np.ptp(images) == 0:
            scored[-1].append(int(images[0, 0, 0, 0]) - 40)
        elif not scored or scored[-1]:
            scored.append([])
        return segment_images(segmenter, images, **rest)

    monkeypatch.setattr(teaching, "segment_images", watch)
    parts: dict[str, Any] = {}
    config, labeled = replace(taught, segmenter_steps=1), np.array([0, 1, 3])
    teach(replace(dataset, good=good), labeled, config, 0, CPU, torch.float32, None, parts)
    assert sorted(number for part in scored for number in part) == list(range(7))
    for part in (parts["square/0"], parts["square/1"]):
        pixels, count = part["good_pixels"].shape[1], sum(one.numel() for one in part["labeled"])
        assert count - 7 < pixels <= count
        assert part["good_scores"].shape == (len(scored.pop(0)), len(SHARES))


# Alarms


@pytest.mark.parametrize(
    ("count", "rate", "above"), [(99, 0.01, 99), (999, 0.01, 990), (20, 0.25, 16), (10, 0.05, 10)]
)
def test_alarm_lies_above_a_place_in_the_good_scores(count: int, rate: float, above: int) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1, count + 1) / 1000)
    alarm = alarm_of(scores, rate)
    assert alarm is not None
    assert (scores < alarm).sum() == above
    assert alarm - above / 1000 < 1e-6
    low, high = interval(count - above, count)
    assert low <= (count - above) / count <= high
    assert alarm_of(scores[: ENOUGH - 1], rate) is None


def test_what_to_expect_is_said_with_a_note_where_good_images_are_few() -> None:
    def lines(good: int) -> list[str]:
        return expectation({"good": (good // 20, good), "defective": (4, 5), "rate": 0.01})

    (line,) = lines(100)
    assert "calls bad 5 of 100 good ones (2% to 11%) and 4 of 5 defective ones (28% to 99%)" in line
    assert lines(12)[1] == (
        "note: 12 known-good images cannot promise 1.0% of false alarms, only 7.7%; put 30 or more "
        "known-good images into good/, better a hundred"
    )
    assert "no good one, as none is known" in lines(0)[0]
    assert "the mask decides which image is bad, and false alarms will be many; put 30" in lines(0)[1]
    assert expectation({}) == []


def test_alarm_keeps_its_promise_on_average() -> None:
    """Forty good scores, then one more, many times: it is called bad in a tenth of them at most."""
    draws = np.random.default_rng(0).normal(size=(400, 41))
    called = [draw[-1] >= alarm_of(draw[:-1], 0.1) for draw in draws]
    assert 0.07 < np.mean(called) < 0.12


def test_good_images_say_which_threshold_is_too_low(
    dataset: AnomalyDataset, taught: DetectorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of each defect is seen with 0.9, half with 0.6: 0.6 is best, unless good images have as much."""

    def seen(_: Segmenter, images: np.ndarray, **options: object) -> np.ndarray:
        if not images.any():
            return np.full(images.shape[:3], 0.7, np.float32)
        (where,) = np.flatnonzero((dataset.images == images).all(axis=(1, 2, 3)))
        mask = dataset.masks[where].astype(np.float32)
        mask[1::2] *= 2 / 3
        return 0.9 * mask[None]

    monkeypatch.setattr(teaching, "segment_images", seen)
    config, labeled = replace(taught, segmenter_steps=1), np.flatnonzero(dataset.masks.any(axis=(1, 2)))[:2]
    alone = teach(replace(dataset, good=dataset.good[:0]), labeled, config, 0, CPU, torch.float32)
    assert alone.thresholds["segmenter"] <= 0.6
    assert alone.f1 == 1
    black = replace(dataset, good=np.zeros((4, *dataset.images.shape[1:]), np.uint8))
    assert 0.7 < teach(black, labeled, config, 0, CPU, torch.float32).thresholds["segmenter"] <= 0.9


def test_threshold_stays_where_the_best_one_of_true_probabilities_can_lie() -> None:
    rng = np.random.default_rng(0)
    true = rng.beta(0.05, 1, (1, 500, 600))
    truth, weight = rng.random(true.shape) < true, 4.0
    learnt = weight * true / (weight * true + 1 - true)
    found = bounded_threshold(learnt, truth, weight)
    half = pixel_prf(learnt >= found, truth)[2] / 2
    assert found == best_threshold(learnt, truth)
    assert abs(found - weight * half / (weight * half + 1 - half)) < 0.02
    few = np.array([[[0.2, 0.97, 0.99]]])
    assert bounded_threshold(few, few > 0.98, weight) == 0.8
    assert bounded_threshold(few, few > 0.1, weight) == 0.5
    assert bounded_threshold(few, few > 0.98, 0.1) == 0.5


def test_nan_names_its_setting(dataset: AnomalyDataset, taught: DetectorConfig) -> None:
    teacher = Teacher(Views(dataset, "square"), np.array([0, 1]), taught, 0, CPU, torch.float32)
    with torch.no_grad():
        teacher.segmenter.output.bias.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"nan; lower segmenter_lr \(0\.001\)"):
        teacher.step()


def test_a_plain_defect_is_learnt(blobs: AnomalyDataset, taught: DetectorConfig) -> None:
    """Darker discs of varying place: forty steps on four images find those of the others."""
    settings = replace(taught, segmenter_steps=40, segmenter_batch=4, segmenter_lr=3e-3)
    found = teach(blobs, np.arange(4), settings, 0, CPU, torch.float32)
    segmenter = Segmenter()
    segmenter.load_state_dict(found.weights)
    masks = segment_images(segmenter, blobs.images[4:]) >= found.thresholds["segmenter"]
    assert pixel_prf(masks, blobs.masks[4:])[2] > 0.8
    assert found.f1 is not None
    assert found.f1 > 0.7
