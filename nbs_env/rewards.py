"""What a step is paid for: the terms of the reward, their schedule, and the records they come in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbs_env.config import Config


@dataclass(frozen=True)
class Update:
    """What one update of the internal learner did; a learner adds figures of its own.

    Attributes:
        update: updates done so far, this one included.
        R_pred: what the patches are paid, one of `REWARDS` (Eq. 3.1: `prediction`); 0 in a warm-up.
        reinitialized: whether what learns on the patches was thrown away afterwards.
    """

    update: int
    R_pred: float
    reinitialized: bool


@dataclass(frozen=True)
class Step:
    """What one step of a walker is paid for (Eq. 3.3).

    Attributes:
        segment: "cloning" or "training".
        image: index of the image that the patch lies on.
        beta: weight of the cloning terms, in [0, 1].
        warmup: whether the episode pays no R_pred.
        R_clone: see `clone_reward`.
        R_cover: see `cover_reward`.
        R_shape: what the patch changes in the potential; None where `Config.reward` has none.
        update: what the learner did, on the last step.
        R_clone_mean: mean of the episode's cloning segment, on the last step.
        R_cover_mean: mean of the episode's cloning segment, on the last step.
    """

    segment: str
    image: int
    beta: float
    warmup: bool
    R_clone: float = 0.0
    R_cover: float = 0.0
    R_shape: float | None = None
    update: Update | None = None
    R_clone_mean: float = 0.0
    R_cover_mean: float = 0.0

    @property
    def R_pred(self) -> float:
        """What the update was worth; 0 on all steps but the last."""
        return self.update.R_pred if self.update else 0.0

    @property
    def reward(self) -> float:
        """`beta (R_clone + R_cover) + (1 - beta) (R_pred + R_shape)`."""
        paid = self.R_pred + (self.R_shape or 0.0)
        return float(self.beta * (self.R_clone + self.R_cover) + (1 - self.beta) * paid)

    def info(self) -> dict[str, Any]:
        """The `info` of Gymnasium."""
        names = ("segment", "image", "R_clone", "R_cover", "R_pred", "beta", "warmup")
        info = {name: getattr(self, name) for name in names}
        if self.R_shape is not None:
            info["R_shape"] = self.R_shape
        if self.update is not None:
            info |= vars(self.update)
            info |= {"R_clone_mean": self.R_clone_mean, "R_cover_mean": self.R_cover_mean}
        return info


def beta(update: int, horizon: int) -> float:
    """Weight of the cloning terms after `update` updates: max(0, 1 - update / horizon) (Eq. 3.3)."""
    return max(0.0, 1.0 - update / horizon)


def clone_reward(patch_mask: np.ndarray, config: Config) -> float:
    """R_clone: `clone_reward` for a patch (P, P) bool without an anomalous pixel, else its negative."""
    return -config.clone_reward if patch_mask.any() else config.clone_reward


def cover_reward(new_share: float, config: Config) -> float:
    """R_cover: `cover_weight` times the share of the patch's pixels that are new, in [0, 1]."""
    return config.cover_weight * new_share


@dataclass(frozen=True)
class Outcome:
    """What an update has led to, and what that is compared with; NaN where the reward does not ask for it.

    Attributes:
        prediction_loss: l_pred after the update.
        twin_loss: l_pred of a twin that was in the same state and got random patches.
        separation_before: `separation` of the labelled images before the update.
        separation: the same after it.
    """

    prediction_loss: float = math.nan
    twin_loss: float = math.nan
    separation_before: float = math.nan
    separation: float = math.nan


def pred_reward(outcome: Outcome) -> float:
    """R_pred = -l_pred, paid on the last step of an episode (Eq. 3.1)."""
    return -outcome.prediction_loss


def difference_reward(outcome: Outcome) -> float:
    """What the chosen patches lower l_pred by, more than random ones would have."""
    return outcome.twin_loss - outcome.prediction_loss


def separation_reward(outcome: Outcome) -> float:
    """What the update adds to the separation of the labelled images, in [-1, 1]."""
    return outcome.separation - outcome.separation_before


REWARDS: dict[str, Callable[[Outcome], float]] = {
    "prediction": pred_reward,
    "difference": difference_reward,
    "separation": separation_reward,
    "shaped_separation": separation_reward,  # and `expected_gain` as potential, step by step
}
"""What an update is paid for, by the names of `Config.reward`."""


def auc(losses: np.ndarray, mask: np.ndarray) -> float:
    """Share of pairs in which the anomalous pixel has the higher loss, ties half; 1/2 if there is no pair.

    Args:
        losses: any shape.
        mask: the same shape, bool.
    """
    anomalous, normal = losses[mask], np.sort(losses[~mask])
    if not len(anomalous) or not len(normal):
        return 0.5
    below = np.searchsorted(normal, anomalous, "left") + np.searchsorted(normal, anomalous, "right")
    return float(below.mean() / (2 * len(normal)))


def separation(losses: np.ndarray, masks: np.ndarray) -> float:
    """Mean over images of each one's `auc`, losses (n, H, W) and masks (n, H, W) bool.

    An image counts by itself, for losses of different images are of different sizes.
    """
    return float(np.mean([auc(loss, mask) for loss, mask in zip(losses, masks, strict=True)]))


LEARNT = 0.1
"""Share of its loss that a sampled pixel is expected to lose in the update."""


def expected_gain(loss: np.ndarray, mask: np.ndarray, sampled: np.ndarray) -> float:
    """What one image's `auc` gains if sampled pixels lose `LEARNT` of their loss: the potential of shaping.

    Args:
        loss: (H, W), before the update.
        mask: (H, W) bool.
        sampled: (H, W) bool, the sampling history.
    """
    return auc(np.where(sampled, (1 - LEARNT) * loss, loss), mask) - auc(loss, mask)
