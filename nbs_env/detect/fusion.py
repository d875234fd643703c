"""What segmenter and memory say together: a mean of log-odds, weighted as left-out images say.

The segmenter knows the kinds of defects that were labelled, the memory what normal images look like.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nbs_env.detect.metrics import pixel_ap

METHODS = ("fused", "segmenter", "memory")
"""Both together, or either alone."""
SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the memory to choose from."""
UNKNOWN = 0.5
"""The share where images are known to be good, and no labelled one can be left out to choose it."""
TOLERANCE = 0.02
"""Average precision that the share may fall short of the best by; see `choose_share`."""
TOP = 16.0
"""The highest log-odds: a float32 below 1 has no higher."""


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """The log-odds of probabilities, float32, within `TOP`."""
    p = probabilities.astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.log(p / (1 - p)).clip(-TOP, TOP).astype(np.float32)


def mixed(odds: np.ndarray, distances: np.ndarray, share: float) -> np.ndarray:
    """Probabilities float32: their log-odds are (1 - `share`) x `odds` + `share` x `distances`.

    Args:
        odds: log-odds of the segmenter.
        distances: those of the memory, of the same shape.
        share: the memory's, from 0, the segmenter alone, to 1, the memory alone.
    """
    mean = np.float32(1 - share) * odds + np.float32(share) * distances
    return np.asarray(1 / (1 + np.exp(-mean.clip(-TOP, TOP))), np.float32)


def choose_share(odds: np.ndarray, distances: np.ndarray, truth: np.ndarray) -> float:
    """The smallest of `SHARES` whose average precision is within `TOLERANCE` of the highest.

    The smallest, since the segmenters that left these pixels out knew fewer masks than the one that is to
    be used (as the one-standard-error rule of Breiman et al., Classification and Regression Trees, 1984,
    leans to the simpler model).

    Args:
        odds: (n, H, W) of images that were left out.
        distances: (n, H, W) theirs.
        truth: (n, H, W) bools, one of them true at least.
    """
    found = [pixel_ap(mixed(odds, distances, share), truth) for share in SHARES]
    values = np.array(found, np.float64)
    return SHARES[int(np.argmax(values >= values.max() - TOLERANCE))]


def pooled(maps: Sequence[np.ndarray]) -> np.ndarray:
    """The values of all maps, (1, 1, n)."""
    return np.concatenate([one.ravel() for one in maps])[None, None]
