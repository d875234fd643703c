"""Whole images: their scores, the score from which one is called bad, and what that comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

ENOUGH = 10
"""Good images from which on their scores say when an image is called bad; below it the mask does."""
WANTED = 30
"""Good images below which a note says what they allow."""


def image_scores(probabilities: np.ndarray) -> np.ndarray:
    """Image scores (N,) of probabilities (N, H, W): the mean of each image's highest 0.1 %."""
    flat = probabilities.reshape(len(probabilities), -1)
    count = max(1, flat.shape[1] // 1000)
    return np.sort(np.partition(flat, -count, axis=1)[:, -count:], axis=1).mean(axis=1)


def alarm_of(good_scores: np.ndarray, rate: float) -> float | None:
    """The image score from which an image is called bad, so that a share `rate` of the good ones is, at most.

    It lies above the ceil((n + 1)(1 - rate))-th lowest of n scores of good images, which keeps that promise
    on average over draws of them (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005).
    Where n is too small for it, it lies above the highest: a share of 1 / (n + 1).

    Args:
        good_scores: (n,) of good images that nothing was learnt from.
        rate: in (0, 1).

    Returns:
        None where there are fewer than `ENOUGH`.
    """
    if len(good_scores) < ENOUGH:
        return None
    ordered = np.sort(good_scores)
    place = min(len(ordered), math.ceil((len(ordered) + 1) * (1 - rate)))
    return float(np.nextafter(np.float32(ordered[place - 1]), np.float32(np.inf)))


def is_bad(scores: np.ndarray, masks: np.ndarray, alarm: float | None) -> np.ndarray:
    """Whether images with image scores (N,) and masks (N, h, w) are called bad: (N,) bool.

    `alarm` is the score from which one is; None: one is whose mask is not empty.
    """
    return np.asarray(masks.any(axis=(1, 2)) if alarm is None else scores >= np.float32(alarm))


def expectation(expected: Mapping[str, Any]) -> list[str]:
    """What to expect of a detector, in lines: a sentence, and a note where known-good images are too few.

    Args:
        expected: of `good` and of `defective` images that nothing was learnt from, how many are called bad,
            and how many there are; `rate`, the share of false alarms that was asked for. Empty: nothing is
            known.
    """
    if not expected:
        return []
    parts = []
    for kind in ("good", "defective"):
        called, count = expected[kind]
        low, high = interval(called, count) if count else (0.0, 1.0)
        parts.append(
            f"{called} of {count} {kind} ones ({low:.0%} to {high:.0%})"
            if count
            else f"no {kind} one, as none is known"
        )
    lines = [f"Of images that it did not learn from it calls bad {' and '.join(parts)}"]
    count, rate = expected["good"][1], expected["rate"]
    remedy = f"put {WANTED} or more known-good images into good/, better a hundred"
    if count < ENOUGH:
        lines.append(
            f"note: {count} known-good images, so the mask decides which image is bad, and false alarms "
            f"will be many; {remedy}"
        )
    elif count < WANTED and rate * (count + 1) < 1:
        lines.append(
            f"note: {count} known-good images cannot promise {rate:.1%} of false alarms, only "
            f"{1 / (count + 1):.1%}; {remedy}"
        )
    return lines


def interval(called: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of which `called` of `count` were seen (Clopper and Pearson, 1934)."""
    from scipy.stats import binomtest  # here: importing it takes a second, and predicting does without

    found = binomtest(called, count).proportion_ci()
    return float(found.low), float(found.high)
