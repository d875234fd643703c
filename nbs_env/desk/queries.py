"""Which image to label next, by what is known of all images without their masks.

Each function answers with the numbers of at most `count` images that are not labelled, the most useful first.
Ties go to the lower number.

Settles, Active Learning Literature Survey, 2009, compares the kinds of queries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.int64]
"""Numbers of images, from 0."""


def uncertainty(probabilities: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """How unsure a detector is of whole images: the mean over each one's least certain 1 % of pixels.

    A pixel's is 1 where its probability is the threshold, and falls to 0 towards 0 and 1 (the distance to the
    decision of Lewis and Gale, A Sequential Algorithm for Training Text Classifiers, 1994).

    Args:
        probabilities: (n, H, W) in [0, 1].
        threshold: in (0, 1), from which on a pixel is anomalous.

    Returns:
        (n,) in [0, 1].
    """
    unsure = np.minimum(probabilities / threshold, (1 - probabilities) / (1 - threshold))
    return _highest_percent(unsure)


def disagreement(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How much two detectors differ on whole images: the mean over each one's 1 % of pixels that differ most.

    Two members of the committee of Seung, Opper and Sompolinsky, Query by Committee, 1992. Of probabilities
    (n, H, W) of both, (n,) in [0, 1].
    """
    return _highest_percent(np.abs(after - before))


def _highest_percent(values: np.ndarray) -> np.ndarray:
    flat = np.sort(values.reshape(len(values), -1), axis=1)
    return flat[:, -max(1, flat.shape[1] // 100) :].mean(axis=1)


def random(n: int, labeled: ArrayLike, count: int, rng: np.random.Generator) -> Numbers:
    """Any of `n` images, uniformly; what every other query has to beat."""
    return rng.permutation(unlabeled(n, labeled))[:count]


def most_uncertain(unsure: np.ndarray, labeled: ArrayLike, count: int) -> Numbers:
    """Those with the highest `uncertainty` (n,), or `disagreement`."""
    rest = unlabeled(len(unsure), labeled)
    return rest[np.argsort(-unsure[rest], kind="stable")][:count]


def most_anomalous(scores: np.ndarray, labeled: ArrayLike, count: int) -> Numbers:
    """Those with the highest image scores (n,): defects, as far as the detector knows them."""
    return most_uncertain(scores, labeled, count)


def farthest(features: np.ndarray, labeled: ArrayLike, count: int) -> Numbers:
    """Those that differ most, one after the other, from all that is labelled or was taken before.

    The greedy algorithm for k centres: Sener and Savarese, Active Learning for Convolutional Neural Networks:
    A Core-Set Approach, 2018. Where nothing is labelled, the first is the farthest from the mean.

    Args:
        features: (n, d), finite.
        labeled: the numbers of the labelled images.
        count: how many to take.
    """
    points = np.asarray(features, np.float64)
    rest, taken = unlabeled(len(points), labeled), np.zeros(0, np.int64)
    centres = points[np.asarray(labeled, np.int64)]
    if not len(centres) and len(rest):
        taken = rest[[np.argmax(_squares(points, points.mean(axis=0)))]][:count]
        centres = points[taken]
    nearest = np.full(len(points), np.inf)
    for centre in centres:
        nearest = np.minimum(nearest, _squares(points, centre))
    nearest[np.setdiff1d(np.arange(len(points)), rest)] = -1  # behind copies of what is labelled
    nearest[taken] = -1
    while len(taken) < min(count, len(rest)):
        best = int(np.argmax(nearest))
        taken = np.append(taken, best)
        nearest = np.minimum(nearest, _squares(points, points[best]))
        nearest[best] = -1
    return taken


def uncertain_among_diverse(
    features: np.ndarray, unsure: np.ndarray, labeled: ArrayLike, count: int, times: int = 5
) -> Numbers:
    """The most uncertain of those that differ most: `times` as many as wanted are taken by `farthest`.

    Uncertainty alone asks for many images of one kind, and distance alone for odd ones that teach nothing
    (Zhdanov, Diverse Mini-Batch Active Learning, 2019, has the same two steps the other way round).
    """
    diverse = np.sort(farthest(features, labeled, count * times))
    return diverse[np.argsort(-unsure[diverse], kind="stable")][:count]


def unlabeled(n: int, labeled: ArrayLike) -> Numbers:
    """The numbers below `n` that are not among `labeled`, sorted."""
    return np.setdiff1d(np.arange(n), np.asarray(labeled, np.int64)).astype(np.int64)


def _squares(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Squared distances (n,) of points (n, d) from one."""
    return np.square(points - centre).sum(axis=1)
