"""Pixel and image metrics of anomaly segmentation.

Masks are bools `(n, H, W)`, scores finite floats of the same shape and any range: higher is more anomalous,
and equal scores are taken together, never ordered by chance. Anything else raises a `ValueError`. "Pooled"
means over the pixels of all images together. Every figure is in [0, 1]. A mask metric whose denominator is
empty is 0, as in scikit-learn; a ranking metric without both classes is undefined and `None`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

PRF = tuple[float, float, float]
"""Precision, recall and F1."""


def pixel_prf(masks_pred: np.ndarray, masks_true: np.ndarray) -> PRF:
    """Precision, recall and F1 pooled over all pixels; the masks may have any shape."""
    _check_masks(masks_pred, masks_true)
    hits = int(np.count_nonzero(masks_pred & masks_true))
    predicted, true = int(np.count_nonzero(masks_pred)), int(np.count_nonzero(masks_true))
    return _ratio(hits, predicted), _ratio(hits, true), _ratio(2 * hits, predicted + true)


def pixel_prf_per_image(masks_pred: np.ndarray, masks_true: np.ndarray) -> PRF:
    """Means of every image's own precision, recall and F1, over the images that hold an anomaly.

    Images without an anomalous pixel are left out, so false alarms on them do not count here (they do in
    `pixel_prf`). An anomalous image in which nothing is predicted counts as 0, 0, 0.
    """
    _check_stack(masks_true)
    _check_masks(masks_pred, masks_true)
    rows = [pixel_prf(p, t) for p, t in zip(masks_pred, masks_true, strict=True) if t.any()]
    if not rows:
        return 0.0, 0.0, 0.0
    precision, recall, f1 = np.mean(rows, axis=0).tolist()
    return precision, recall, f1


def tolerant_prf(masks_pred: np.ndarray, masks_true: np.ndarray, tolerance: int = 2) -> PRF:
    """Pooled precision, recall and F1 that forgive small displacements, for thin structures.

    A predicted pixel is right if a true one lies within `tolerance` pixels of it (Euclidean, same image); a
    true pixel is found if a predicted one does. F1 is their harmonic mean. Tolerance 0 is `pixel_prf`.
    """
    _check_stack(masks_true)
    _check_masks(masks_pred, masks_true)
    if tolerance < 0:
        raise ValueError(f"The tolerance is {tolerance}; expected at least 0 pixels.")
    steps = np.arange(-tolerance, tolerance + 1) ** 2
    disc = np.add.outer(steps, steps) <= tolerance**2
    disc = disc[None]  # one image thick, so that neighbours in the stack never meet
    # dilation is exact on the pixel grid and, unlike a distance transform, defined for empty masks
    precision = pixel_prf(masks_pred, ndimage.binary_dilation(masks_true, disc))[0]
    recall = pixel_prf(ndimage.binary_dilation(masks_pred, disc), masks_true)[1]
    return precision, recall, _ratio(2 * precision * recall, precision + recall)


def pixel_ap(scores: np.ndarray, masks_true: np.ndarray) -> float | None:
    """See `Ranking.average_precision`."""
    return Ranking.of(scores, masks_true).average_precision()


def pixel_auroc(scores: np.ndarray, masks_true: np.ndarray) -> float | None:
    """See `Ranking.auroc`."""
    return Ranking.of(scores, masks_true).auroc()


def aupro(scores: np.ndarray, masks_true: np.ndarray, max_fpr: float = 0.3) -> float | None:
    """See `Ranking.aupro`."""
    return Ranking.of(scores, masks_true).aupro(max_fpr)


def best_threshold(scores: np.ndarray, masks_true: np.ndarray) -> float:
    """See `Ranking.best_threshold`; on labelled images, never on those it is scored on."""
    return Ranking.of(scores, masks_true).best_threshold()


def image_auroc(image_scores: np.ndarray, image_labels: np.ndarray) -> float | None:
    """Area under the ROC curve over images.

    Args:
        image_scores: `(n,)` finite floats.
        image_labels: `(n,)` bools, true for an image with an anomaly.

    Returns:
        `None` unless there are anomalous and normal images.
    """
    _check_scores(image_scores, image_labels)
    from sklearn.metrics import roc_auc_score  # here: a second to import, and predicting does without

    both = image_labels.any() and not image_labels.all()
    return float(roc_auc_score(image_labels, image_scores)) if both else None


def counts_by_kind(
    masks_pred: np.ndarray, masks_true: np.ndarray, kinds: Sequence[str]
) -> dict[str, tuple[int, int, int]]:
    """True positives, false positives and false negatives in pixels, pooled over the images of each kind."""
    _check_masks(masks_pred, masks_true)
    counts = {}
    for kind in sorted(set(kinds)):
        rows = np.array([each == kind for each in kinds])
        predicted, true = masks_pred[rows], masks_true[rows]
        pairs = (predicted & true, predicted & ~true, ~predicted & true)
        counts[kind] = (int(pairs[0].sum()), int(pairs[1].sum()), int(pairs[2].sum()))
    return counts


def evaluate(
    probability: np.ndarray, masks_pred: np.ndarray, image_scores: np.ndarray, masks_true: np.ndarray
) -> dict[str, float | None]:
    """All figures of one method on one set of images.

    Args:
        probability: `(n, H, W)` scores; only their order matters.
        masks_pred: `(n, H, W)`.
        image_scores: `(n,)` finite floats.
        masks_true: `(n, H, W)`.

    Returns:
        `pixel_precision`, `pixel_recall`, `pixel_f1` (pooled), the same three with `_per_image`,
        `pixel_f1_within_2` and `_5` (pixels of tolerance), `pixel_ap`, `pixel_auroc`, `pixel_aupro` (to a
        false positive rate of 0.3) and `image_auroc`. All are `None` if no pixel is anomalous; `pixel_auroc`
        and `pixel_aupro` also if none is normal, `image_auroc` also if no image is without anomaly.
    """
    _check_masks(masks_pred, masks_true)
    ranking = Ranking.of(probability, masks_true)
    figures: dict[str, float | None] = {}
    for suffix, prf in (("", pixel_prf), ("_per_image", pixel_prf_per_image)):
        for name, value in zip(("precision", "recall", "f1"), prf(masks_pred, masks_true), strict=True):
            figures[f"pixel_{name}{suffix}"] = value
    for pixels in (2, 5):
        figures[f"pixel_f1_within_{pixels}"] = tolerant_prf(masks_pred, masks_true, pixels)[2]
    figures["pixel_ap"] = ranking.average_precision()
    figures["pixel_auroc"] = ranking.auroc()
    figures["pixel_aupro"] = ranking.aupro()
    figures["image_auroc"] = image_auroc(image_scores, np.asarray(masks_true.any(axis=(1, 2))))
    return figures if masks_true.any() else dict.fromkeys(figures)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _check_masks(masks_pred: np.ndarray, masks_true: np.ndarray) -> None:
    if masks_pred.dtype != bool or masks_true.dtype != bool:
        raise ValueError(f"The masks are {masks_pred.dtype} and {masks_true.dtype}; expected bool.")
    if masks_pred.shape != masks_true.shape:
        raise ValueError(f"The predicted masks are {masks_pred.shape}, the true ones {masks_true.shape}.")


def threshold_levels(threshold: float) -> np.ndarray:
    """Thresholds (255,) float32, ascending, between the levels of 8 bits; `threshold` is one of them."""
    levels = ((np.arange(255) + 0.5) / 255).astype(np.float32)
    levels[np.abs(levels - threshold).argmin()] = threshold
    return levels


def pixel_curve(scores: np.ndarray, truth: np.ndarray, threshold: float) -> dict[str, Any]:
    """How many pixels reach each of `threshold_levels`, pooled over images.

    Args:
        scores: (n, H, W) float32 probabilities.
        truth: (n, H, W) bool.
        threshold: one that has to be among the levels.

    Returns:
        `thresholds`, anomalous (`true`) and normal (`false`) pixels that reach each, and `anomalous` ones.
    """
    levels = threshold_levels(threshold)
    counts = np.zeros((2, len(levels) + 1), np.int64)
    for one, mask in zip(scores, truth, strict=True):
        reached = np.searchsorted(levels, one, side="right")  # how many levels a pixel reaches
        for side in (0, 1):
            counts[side] += np.bincount(reached[mask == side], minlength=len(levels) + 1)
    false, true = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:].tolist()
    anomalous = int(counts[1].sum())
    return {"thresholds": levels.tolist(), "true": true, "false": false, "anomalous": anomalous}


@dataclass(frozen=True)
class Ranking:
    """What lies above each distinct score, from the highest down: one sort serves every ranking metric."""

    scores: np.ndarray  # (k,) the distinct scores
    true: np.ndarray  # (k,) anomalous pixels with at least this score
    false: np.ndarray  # (k,) normal pixels with at least this score
    overlap: np.ndarray  # (k,) mean share of a region with at least this score; zeros without regions

    @classmethod
    def of(cls, scores: np.ndarray, masks_true: np.ndarray) -> Ranking:
        """Rank the pixels of `(n, H, W)` scores and masks."""
        _check_stack(masks_true)
        _check_scores(scores, masks_true)
        order = np.argsort(scores, axis=None)[::-1]
        descending, labels = scores.ravel()[order], masks_true.ravel()[order]
        last = np.ones(descending.size, dtype=bool)  # the last of each run of equal scores
        last[:-1] = descending[:-1] != descending[1:]
        ends = np.flatnonzero(last)
        true = np.cumsum(labels)[ends]
        weights = _region_weights(masks_true)[order]
        return cls(descending[ends], true, ends + 1 - true, np.cumsum(weights)[ends])

    def average_precision(self) -> float | None:
        """Precision summed over the steps of recall, not interpolated; `None` if no pixel is anomalous."""
        if not self._has(self.true):
            return None
        return float(
            np.sum(np.diff(self.true, prepend=0) * self.true / (self.true + self.false)) / self.true[-1]
        )

    def auroc(self) -> float | None:
        """Area under the ROC curve; `None` unless there are anomalous and normal pixels."""
        if not (self._has(self.true) and self._has(self.false)):
            return None
        return _area(_from_zero(self.false / self.false[-1]), _from_zero(self.true / self.true[-1]))

    def aupro(self, max_fpr: float = 0.3) -> float | None:
        """Area under the per-region overlap curve, as MVTec AD defines it (Bergmann et al. 2021).

        The overlap is the share of a region above the threshold, averaged over all regions of all images;
        regions are connected over edges and corners. It is integrated over the false positive rate of the
        normal pixels from 0 to `max_fpr`, in (0, 1], and divided by `max_fpr`.

        Returns:
            `None` unless there are anomalous and normal pixels.
        """
        if not 0 < max_fpr <= 1:
            raise ValueError(f"max_fpr is {max_fpr}; expected a number in (0, 1].")
        if not (self._has(self.true) and self._has(self.false)):
            return None
        fpr, overlap = _from_zero(self.false / self.false[-1]), _from_zero(self.overlap)
        inside = np.count_nonzero(fpr <= max_fpr)
        x = np.append(fpr[:inside], max_fpr)
        y = np.append(overlap[:inside], np.interp(max_fpr, fpr, overlap))
        return float(np.clip(_area(x, y) / max_fpr, 0, 1))  # the sum of the weights may end a hair above 1

    def best_threshold(self) -> float:
        """The threshold with the highest pooled F1: `scores >= threshold` is the mask.

        It lies half way between the lowest score that is in and the highest that is out, and separates them
        in the type of the scores. Of equally good ones the highest is taken.

        Raises:
            ValueError: no pixel is anomalous.
        """
        if not self._has(self.true):
            raise ValueError("No pixel of the masks is anomalous, so no threshold can be chosen on them.")
        f1 = 2 * self.true / (self.true + self.false + self.true[-1])
        best = int(np.argmax(f1))
        lowest_in = self.scores[best]
        if best + 1 == self.scores.size:
            return float(lowest_in)
        highest_out = self.scores[best + 1]
        middle = highest_out + (lowest_in - highest_out) / 2
        return float(middle if middle > highest_out else lowest_in)

    @staticmethod
    def _has(count: np.ndarray) -> bool:
        return count.size > 0 and bool(count[-1] > 0)


def _region_weights(masks_true: np.ndarray) -> np.ndarray:
    """Flat weights that make a sum over pixels the mean over regions of the share of a region."""
    eight = np.zeros((3, 3, 3), dtype=bool)
    eight[1] = True  # edges and corners, but never from one image to the next
    regions, count = ndimage.label(masks_true, eight)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    weights = np.zeros(count + 1)
    weights[1:] = 1 / (sizes[1:] * max(count, 1))
    return weights[regions.ravel()]


def _area(x: np.ndarray, y: np.ndarray) -> float:
    from sklearn.metrics import auc  # here: a second to import, and predicting does without

    return float(auc(x, y))


def _from_zero(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], values])


def _check_stack(masks: np.ndarray) -> None:
    """Raise `ValueError` on masks that are not (n, H, W)."""
    if masks.ndim != 3:
        raise ValueError(f"The masks have shape {masks.shape}; expected (n, H, W).")


def _check_scores(scores: np.ndarray, labels: np.ndarray) -> None:
    """Raise `ValueError` on labels that are not bools, or scores that are not as many finite floats."""
    if labels.dtype != bool or not np.issubdtype(scores.dtype, np.floating):
        raise ValueError(
            f"The labels are {labels.dtype} and the scores {scores.dtype}; expected bool and floats."
        )
    if scores.shape != labels.shape:
        raise ValueError(
            f"The scores have shape {scores.shape}, the labels {labels.shape}; they must be equal."
        )
    if not np.isfinite(scores).all():
        raise ValueError("The scores hold NaN or infinite values.")
