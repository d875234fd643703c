"""What a step is paid for: the terms of the reward, their schedule, and the records they come in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nbs_env.config import Config


@dataclass(frozen=True)
class Update:
    """What one update of the internal learner did; a learner adds figures of its own.

    Attributes:
        update: updates done so far, this one included.
        R_pred: what the patches are paid (Eq. 3.1: `pred_reward`); 0 in a warm-up.
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
    update: Update | None = None
    R_clone_mean: float = 0.0
    R_cover_mean: float = 0.0

    @property
    def R_pred(self) -> float:
        """What the update was worth; 0 on all steps but the last."""
        return self.update.R_pred if self.update else 0.0

    @property
    def reward(self) -> float:
        """`beta (R_clone + R_cover) + (1 - beta) R_pred`."""
        return float(self.beta * (self.R_clone + self.R_cover) + (1 - self.beta) * self.R_pred)

    def info(self) -> dict[str, Any]:
        """The `info` of Gymnasium."""
        names = ("segment", "image", "R_clone", "R_cover", "R_pred", "beta", "warmup")
        info = {name: getattr(self, name) for name in names}
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
    """What an update has led to, on the n labelled images; rewards of one's own are made of it.

    Attributes:
        loss: l_pred of the profiles that `Config.reward_profiles` names.
        logits: (n, H, W) float32, the predictor's, of the newest profiles.
        maps: (n, H, W) float32, present reconstruction losses.
        masks: (n, H, W) bool, True where anomalous.
    """

    loss: float
    logits: torch.Tensor
    maps: torch.Tensor
    masks: torch.Tensor


Reward = Callable[[Outcome], float]
"""What an update pays as R_pred, outside of warm-up."""


def pred_reward(outcome: Outcome) -> float:
    """R_pred = -l_pred, paid on the last step of an episode (Eq. 3.1)."""
    return -outcome.loss
