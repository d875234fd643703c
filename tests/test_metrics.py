"""Each metric against a closed form and against a second, slow and obvious implementation."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from nbs_env.detect import metrics

Case = tuple[np.ndarray, np.ndarray]


def random_case(seed: int) -> Case:
    """Scores with many ties and masks of a few regions: three 9 x 11 images, the last without an anomaly."""
    rng = np.random.default_rng(seed)
    masks = rng.random((3, 9, 11)) < 0.12
    masks[0, 2:5, 3:9] = True
    masks[2] = False
    scores = np.round(rng.normal(0, 0.5, masks.shape) + 0.6 * masks, 1)
    return scores, masks


CASES = [random_case(seed) for seed in range(5)]


def strip(*pixels: float) -> np.ndarray:
    """One image one pixel high."""
    return np.array([[pixels]])


# Precision, recall, F1


def slow_prf(pred: np.ndarray, true: np.ndarray) -> tuple[float, float, float]:
    tp = fp = fn = 0
    for p, t in zip(pred.ravel(), true.ravel(), strict=True):
        tp, fp, fn = tp + (p and t), fp + (p and not t), fn + (t and not p)
    precision = tp / (tp + fp) if tp + fp else 0.0
    recall = tp / (tp + fn) if tp + fn else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if tp else 0.0


def test_pixel_prf_closed_form() -> None:
    true = np.zeros((2, 10, 10), bool)
    true[0, :, :4] = True  # 40 pixels
    pred = np.zeros_like(true)
    pred[0, :, 2:4] = True  # 20 of them
    pred[1, 0, :5] = True  # and 5 elsewhere
    assert metrics.pixel_prf(pred, true) == pytest.approx((20 / 25, 20 / 40, 40 / 65))
    assert metrics.pixel_prf(true, true) == (1.0, 1.0, 1.0)
    assert metrics.pixel_prf(~true, true) == (0.0, 0.0, 0.0)
    assert metrics.pixel_prf(np.zeros_like(true), true) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("scores", "true"), CASES)
def test_pixel_prf_slow_reference(scores: np.ndarray, true: np.ndarray) -> None:
    pred = scores > 0.5
    library = precision_recall_fscore_support(true.ravel(), pred.ravel(), average="binary")[:3]
    assert metrics.pixel_prf(pred, true) == pytest.approx(slow_prf(pred, true))
    assert metrics.pixel_prf(pred, true) == pytest.approx(library)
    rows = [slow_prf(pred[i], true[i]) for i in range(3) if true[i].sum() > 0]
    expected = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    assert metrics.pixel_prf_per_image(pred, true) == pytest.approx(expected)


def test_pixel_prf_per_image_closed_form() -> None:
    true = np.zeros((4, 10, 10), bool)
    true[0, :, :4] = true[1, 0, 0] = true[2, 5, 5] = True
    pred = np.zeros_like(true)
    pred[0, :, 2:4] = True  # precision 1, recall 1/2, F1 2/3
    pred[1, 0, :4] = True  # precision 1/4, recall 1, F1 2/5
    pred[3] = True  # on an image without anomaly: does not count
    assert metrics.pixel_prf_per_image(pred, true) == pytest.approx((1.25 / 3, 1.5 / 3, (2 / 3 + 2 / 5) / 3))
    assert metrics.pixel_prf_per_image(pred[3:], true[3:]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("shift", "right"),
    [((0, 2), True), ((1, 1), True), ((2, 0), True), ((2, 1), False), ((2, 2), False), ((0, 3), False)],
)
def test_tolerance_is_a_euclidean_disc(shift: tuple[int, int], right: bool) -> None:
    true, pred = np.zeros((1, 9, 9), bool), np.zeros((1, 9, 9), bool)
    true[0, 4, 4] = pred[0, 4 + shift[0], 4 + shift[1]] = True
    assert metrics.tolerant_prf(pred, true) == (right, right, right)


def test_tolerance_closed_form() -> None:
    true, pred = np.zeros((2, 20, 20), bool), np.zeros((2, 20, 20), bool)
    true[0, 10, :] = True  # a line of 20
    pred[0, 12, :10] = True  # its left half, two pixels off: right, and finds 10 + 0 beyond its end
    pred[1, 10, :10] = True  # the same in an image where nothing is: wrong
    precision, recall = 10 / 20, 10 / 20
    assert metrics.tolerant_prf(pred, true) == pytest.approx((precision, recall, 0.5))
    assert metrics.tolerant_prf(pred, true, tolerance=1) == (0.0, 0.0, 0.0)
    assert metrics.tolerant_prf(np.zeros_like(true), true) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3])
@pytest.mark.parametrize(("scores", "true"), CASES)
def test_tolerance_slow_reference(scores: np.ndarray, true: np.ndarray, tolerance: int) -> None:
    pred = scores > 0.9

    def share_near(mask: np.ndarray, other: np.ndarray) -> float:
        pixels, others = np.argwhere(mask), np.argwhere(other)
        near = [
            any(i == j and (y - v) ** 2 + (x - u) ** 2 <= tolerance**2 for j, v, u in others)
            for i, y, x in pixels
        ]
        return sum(near) / len(near)

    precision, recall = share_near(pred, true), share_near(true, pred)
    expected = (precision, recall, 2 * precision * recall / (precision + recall))
    assert metrics.tolerant_prf(pred, true, tolerance) == pytest.approx(expected)
    if tolerance == 0:
        assert metrics.tolerant_prf(pred, true, 0) == pytest.approx(metrics.pixel_prf(pred, true))


# Ranking metrics


def test_average_precision_closed_form() -> None:
    true = strip(1, 0, 1, 0) > 0
    assert metrics.pixel_ap(strip(4.0, 3.0, 2.0, 1.0), true) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert metrics.pixel_ap(strip(1.0, 1.0, 1.0, 1.0), true) == pytest.approx(
        0.5
    )  # all tied: the share of anomalies


@pytest.mark.parametrize(("scores", "true"), CASES)
def test_average_precision_slow_reference(scores: np.ndarray, true: np.ndarray) -> None:
    expected, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.ravel()), reverse=True):
        precision, recall, _ = slow_prf(scores >= threshold, true)
        expected, recall_before = expected + (recall - recall_before) * precision, recall
    assert metrics.pixel_ap(scores, true) == pytest.approx(expected)
    assert metrics.pixel_ap(scores, true) == pytest.approx(
        average_precision_score(true.ravel(), scores.ravel())
    )


def test_auroc_closed_form() -> None:
    true = strip(1, 0, 1, 0) > 0
    assert metrics.pixel_auroc(strip(4.0, 3.0, 2.0, 1.0), true) == pytest.approx(0.75)
    assert metrics.pixel_auroc(strip(4.0, 4.0, 4.0, 4.0), true) == pytest.approx(0.5)
    assert metrics.image_auroc(np.array([0.9, 0.2, 0.3]), np.array([True, False, False])) == 1.0
    assert metrics.image_auroc(np.array([0.2, 0.2, 0.3]), np.array([True, False, False])) == pytest.approx(
        0.25
    )


@pytest.mark.parametrize(("scores", "true"), CASES)
def test_auroc_slow_reference(scores: np.ndarray, true: np.ndarray) -> None:
    wins = [(a > b) + 0.5 * (a == b) for a in scores[true] for b in scores[~true]]
    assert metrics.pixel_auroc(scores, true) == pytest.approx(sum(wins) / len(wins))
    assert metrics.pixel_auroc(scores, true) == pytest.approx(roc_auc_score(true.ravel(), scores.ravel()))
    assert metrics.image_auroc(scores.ravel(), true.ravel()) == pytest.approx(sum(wins) / len(wins))


def test_aupro_closed_form() -> None:
    true = strip(1, 1, 1, 1, 0, 1, 0, 0, 0, 0) > 0  # regions of 4 and of 1, five normal pixels
    assert metrics.aupro(np.where(true, 1.0, 0.0), true) == pytest.approx(1.0)
    # the large region is found at once, the small one after one of the five normal pixels (rate 0.2)
    scores = strip(9.0, 9.0, 9.0, 9.0, 8.0, 7.0, 1.0, 2.0, 3.0, 4.0)
    assert metrics.aupro(scores, true) == pytest.approx((0.2 * 0.5 + 0.1 * 1.0) / 0.3)
    assert metrics.aupro(scores, true, max_fpr=0.1) == pytest.approx(0.5)
    # all tied: the curve is the diagonal
    assert metrics.aupro(np.zeros(true.shape), true) == pytest.approx(0.3 / 2)


def test_aupro_regions_touch_at_corners_but_not_across_images() -> None:
    true = np.zeros((2, 4, 4), bool)
    true[0, 0, 0] = true[0, 1, 1] = true[1, 1, 1] = True  # two regions: one of two pixels, one of one
    scores = np.zeros(true.shape)
    scores[0, 0, 0] = 1.0  # half of the first, at rate 0; everything else together at rate 1
    assert metrics.aupro(scores, true, max_fpr=1.0) == pytest.approx((0.25 + 1) / 2)


def slow_regions(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    left, regions = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        todo, region = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        regions.append(region)
    return regions


@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
@pytest.mark.parametrize(("scores", "true"), CASES)
def test_aupro_slow_reference(scores: np.ndarray, true: np.ndarray, max_fpr: float) -> None:
    regions = [(i, region) for i in range(len(true)) for region in slow_regions(true[i])]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores.ravel()), reverse=True):
        above = scores >= threshold
        overlaps = [sum(above[i][pixel] for pixel in region) / len(region) for i, region in regions]
        points.append((above[~true].mean(), sum(overlaps) / len(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 < max_fpr and x1 > x0:
            end = min(x1, max_fpr)
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    assert metrics.aupro(scores, true, max_fpr) == pytest.approx(area / max_fpr)


def test_ranking_metrics_ignore_monotone_changes() -> None:
    scores, true = CASES[0]
    for metric in (metrics.pixel_ap, metrics.pixel_auroc, metrics.aupro):
        assert metric(np.exp(scores * 3), true) == metric(scores, true)


def test_one_class_alone_is_undefined() -> None:
    scores = np.zeros((1, 2, 2))
    none, every = np.zeros((1, 2, 2), bool), np.ones((1, 2, 2), bool)
    assert metrics.pixel_ap(scores, none) is None
    assert metrics.pixel_ap(scores, every) == 1.0
    for labels in (none, every):
        assert metrics.pixel_auroc(scores, labels) is None
        assert metrics.aupro(scores, labels) is None
        assert metrics.image_auroc(scores.ravel(), labels.ravel()) is None


# The threshold


def test_best_threshold_closed_form() -> None:
    true = strip(1, 1, 0, 1, 0, 0, 0) > 0
    scores = strip(0.9, 0.8, 0.7, 0.6, 0.2, 0.1, 0.0)  # F1 is 4/5 after two pixels, 6/7 after four
    assert metrics.best_threshold(scores, true) == pytest.approx(0.4)
    assert metrics.best_threshold(np.full((1, 1, 2), 0.3), np.array([[[True, False]]])) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="No pixel"):
        metrics.best_threshold(scores, np.zeros_like(true))


@pytest.mark.parametrize(("scores", "true"), CASES)
def test_best_threshold_slow_reference(scores: np.ndarray, true: np.ndarray) -> None:
    best = max(slow_prf(scores >= threshold, true)[2] for threshold in set(scores.ravel()))
    found = metrics.best_threshold(scores, true)
    assert metrics.pixel_prf(scores >= found, true)[2] == pytest.approx(best)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_best_threshold_separates_neighbouring_floats(dtype: type) -> None:
    low = dtype(0.7)
    high = np.nextafter(low, dtype(1))
    scores = np.array([[[low, high]]])
    found = metrics.best_threshold(scores, np.array([[[False, True]]]))
    assert (scores >= found).tolist() == [[[False, True]]]


# All together


def test_evaluate_is_the_single_metrics() -> None:
    scores, true = CASES[1]
    pred, image_scores = scores > 0.5, np.array([0.5, 0.1, 0.3])
    figures = metrics.evaluate(scores, pred, image_scores, true)
    names = ("precision", "recall", "f1")
    pooled = dict(zip((f"pixel_{n}" for n in names), metrics.pixel_prf(pred, true), strict=True))
    per_image = metrics.pixel_prf_per_image(pred, true)
    assert figures == {
        **pooled,
        **dict(zip((f"pixel_{n}_per_image" for n in names), per_image, strict=True)),
        "pixel_f1_within_2": metrics.tolerant_prf(pred, true, 2)[2],
        "pixel_f1_within_5": metrics.tolerant_prf(pred, true, 5)[2],
        "pixel_ap": metrics.pixel_ap(scores, true),
        "pixel_auroc": metrics.pixel_auroc(scores, true),
        "pixel_aupro": metrics.aupro(scores, true, 0.3),
        "image_auroc": 0.5,
    }
    assert all(type(value) is float for value in figures.values())


def test_evaluate_without_an_anomaly_or_without_a_normal_image() -> None:
    scores, true = CASES[2]
    pred = scores > 0.5
    assert set(metrics.evaluate(scores, pred, np.zeros(3), np.zeros_like(true)).values()) == {None}
    figures = metrics.evaluate(scores[:2], pred[:2], np.zeros(2), true[:2])
    assert [name for name, value in figures.items() if value is None] == ["image_auroc"]


def test_wrong_input_is_named() -> None:
    scores, true = CASES[0]
    for message, metric, *given in (
        ("bool", metrics.pixel_prf, true.astype(np.uint8), true),
        (r"\(2, 9, 11\)", metrics.pixel_prf, true[:2], true),
        ("tolerance", metrics.tolerant_prf, true, true, -1),
        (r"\(n, H, W\)", metrics.aupro, scores[0], true[0]),
        ("NaN", metrics.pixel_ap, np.full(true.shape, np.nan), true),
        ("max_fpr", metrics.aupro, scores, true, 0.0),
        ("must be equal", metrics.image_auroc, np.zeros(2), np.zeros(3, bool)),
    ):
        with pytest.raises(ValueError, match=message):
            metric(*given)


def test_counts_by_kind() -> None:
    rng = np.random.default_rng(0)
    pred, true = rng.random((4, 5, 6)) < 0.5, rng.random((4, 5, 6)) < 0.5
    counts = metrics.counts_by_kind(pred, true, ["a", "b", "a", "c"])
    assert list(counts) == ["a", "b", "c"]
    for kind, images in (("a", (0, 2)), ("b", (1,)), ("c", (3,))):
        pairs = [(p, t) for i in images for p, t in zip(pred[i].flat, true[i].flat, strict=True)]
        assert counts[kind] == tuple(sum(map(pair.__eq__, pairs)) for pair in ((1, 1), (1, 0), (0, 1)))
