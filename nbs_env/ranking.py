"""Metrics of how scores rank pixels, for `nbs_env.metrics`, which says what each of them is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Ranking:
    """What lies above each distinct score, from the highest down: one sort serves every ranking metric."""

    scores: np.ndarray  # (k,) the distinct scores
    true: np.ndarray  # (k,) anomalous pixels with at least this score
    false: np.ndarray  # (k,) normal pixels with at least this score
    overlap: np.ndarray  # (k,) mean share of a region with at least this score; zeros without regions

    @classmethod
    def of(cls, scores: np.ndarray, masks_true: np.ndarray) -> Ranking:
        """Rank the pixels of `(n, H, W)` finite floats and bools; `ValueError` if they are anything else."""
        check_stack(masks_true)
        check_scores(scores, masks_true)
        order = np.argsort(scores, axis=None)[::-1]
        descending, labels = scores.ravel()[order], masks_true.ravel()[order]
        last = np.ones(descending.size, dtype=bool)  # the last of each run of equal scores
        last[:-1] = descending[:-1] != descending[1:]
        ends = np.flatnonzero(last)
        true = np.cumsum(labels)[ends]
        weights = _region_weights(masks_true)[order]
        return cls(descending[ends], true, ends + 1 - true, np.cumsum(weights)[ends])

    def average_precision(self) -> float | None:
        """As `nbs_env.metrics.pixel_ap`."""
        if not self._has(self.true):
            return None
        return float(
            np.sum(np.diff(self.true, prepend=0) * self.true / (self.true + self.false)) / self.true[-1]
        )

    def auroc(self) -> float | None:
        """As `nbs_env.metrics.pixel_auroc`."""
        if not (self._has(self.true) and self._has(self.false)):
            return None
        return _area(_from_zero(self.false / self.false[-1]), _from_zero(self.true / self.true[-1]))

    def aupro(self, max_fpr: float) -> float | None:
        """As `nbs_env.metrics.aupro`."""
        if not (self._has(self.true) and self._has(self.false)):
            return None
        fpr, overlap = _from_zero(self.false / self.false[-1]), _from_zero(self.overlap)
        inside = np.count_nonzero(fpr <= max_fpr)
        x = np.append(fpr[:inside], max_fpr)
        y = np.append(overlap[:inside], np.interp(max_fpr, fpr, overlap))
        return float(np.clip(_area(x, y) / max_fpr, 0, 1))  # the sum of the weights may end a hair above 1

    def best_threshold(self) -> float:
        """As `nbs_env.metrics.best_threshold`."""
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


def check_stack(masks: np.ndarray) -> None:
    """Raise `ValueError` on masks that are not (n, H, W)."""
    if masks.ndim != 3:
        raise ValueError(f"The masks have shape {masks.shape}; expected (n, H, W).")


def check_scores(scores: np.ndarray, labels: np.ndarray) -> None:
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
