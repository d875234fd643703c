"""Figures of a comparison: interquartile means, stratified bootstrap, probability of improvement.

Those of Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats

REPS = 10_000
INTERVALS = "Brackets are 95 % bootstrap intervals; of two or three runs on one data set they are the range."


def estimate(
    samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray]
) -> tuple[float, float, float]:
    """A statistic and its 95 % interval by the percentile bootstrap, each sample redrawn on its own.

    Args:
        samples: (runs,) each: the scores on one data set, say.
        statistic: of arrays (..., runs), along their last axis.

    Returns:
        The statistic and the interval's ends; those are NaN where a sample has fewer than two runs.
    """
    middle = float(statistic(*samples))
    if min(map(len, samples)) < 2:
        return middle, math.nan, math.nan
    interval = scipy.stats.bootstrap(
        samples,
        lambda *drawn, axis: statistic(*drawn),
        n_resamples=REPS,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return middle, float(interval.low), float(interval.high)


def shown(samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], sign: str = "") -> str:
    """A statistic and its interval, if there is one, as a cell of a table; `sign` is "+" for differences."""
    middle, low, high = estimate(samples, statistic)
    return f"{middle:{sign}.3f}" + ("" if math.isnan(low) else f" [{low:{sign}.3f}, {high:{sign}.3f}]")


def interquartile_mean(*samples: np.ndarray) -> np.ndarray:
    """Mean of the middle half of all runs on all data sets, arrays (..., runs) each."""
    return scipy.stats.trim_mean(np.concatenate(samples, axis=-1), 0.25, axis=-1)


def mean(*samples: np.ndarray) -> np.ndarray:
    """Mean over the data sets of the mean over the runs, arrays (..., runs) each."""
    return np.mean([sample.mean(axis=-1) for sample in samples], axis=0)


def probability_of_improvement(*samples: np.ndarray) -> np.ndarray:
    """Mean over the data sets of P(x > y), ties half; all the xs, then all the ys, (..., runs) each."""
    half = len(samples) // 2
    shares = []
    for x, y in zip(samples[:half], samples[half:], strict=True):
        above = np.sign(x[..., :, None] - y[..., None, :])
        shares.append((above.mean(axis=(-2, -1)) + 1) / 2)
    return np.mean(shares, axis=0)
