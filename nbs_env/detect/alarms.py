"""Whole images: their scores, and the score from which one is called bad."""

from __future__ import annotations

import math

import numpy as np


def image_scores(probabilities: np.ndarray) -> np.ndarray:
    """Image scores (N,) of probabilities (N, H, W): the mean of each image's highest 0.1 %."""
    flat = np.sort(probabilities.reshape(len(probabilities), -1), axis=1)
    return flat[:, -max(1, flat.shape[1] // 1000) :].mean(axis=1)


def alarm_threshold(good_scores: np.ndarray, rate: float) -> tuple[float, float, float]:
    """The image score from which an image is called bad, so that a share `rate` of the good ones is, at most.

    It lies above the ceil((n + 1)(1 - rate))-th lowest of n scores of good images, which keeps that promise
    on average over draws of them (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005).
    Where n is too small for it, it lies above the highest.

    Args:
        good_scores: (n,) of good images that nothing was learnt from; n at least 1.
        rate: in (0, 1).

    Returns:
        The threshold, and the 95 % interval (Clopper and Pearson) of the share of good images that reach it.
    """
    from scipy.stats import binomtest  # here: importing it takes a second, and predicting does without

    ordered = np.sort(good_scores)
    place = min(len(ordered), math.ceil((len(ordered) + 1) * (1 - rate)))
    threshold = float(np.nextafter(ordered[place - 1], np.inf))
    called_bad = int((ordered >= threshold).sum())
    interval = binomtest(called_bad, len(ordered)).proportion_ci()
    return threshold, float(interval.low), float(interval.high)
