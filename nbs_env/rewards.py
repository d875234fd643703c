"""The terms of the reward and their schedule (thesis Eq. 3.1 and 3.3)."""

from __future__ import annotations

import numpy as np

from nbs_env.config import Config


def beta(update: int, horizon: int) -> float:
    """Weight of the cloning terms after `update` updates: max(0, 1 - update / horizon) (Eq. 3.3)."""
    return max(0.0, 1.0 - update / horizon)


def clone_reward(patch_mask: np.ndarray, config: Config) -> float:
    """R_clone: `clone_reward` for a patch (P, P) bool without an anomalous pixel, else its negative."""
    return -config.clone_reward if patch_mask.any() else config.clone_reward


def cover_reward(new_share: float, config: Config) -> float:
    """R_cover: `cover_weight` times the share of the patch's pixels that are new, in [0, 1]."""
    return config.cover_weight * new_share


def pred_reward(prediction_loss: float) -> float:
    """R_pred = -l_pred, paid on the last step of an episode (Eq. 3.1)."""
    return -prediction_loss
