"""One walker's part of an episode: its two segments, and what it is paid (thesis Algorithm 1, Eq. 3.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded

from nbs_env import rewards
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.learner import Learner, Update
from nbs_env.walk import Walk, action_number


class Walker:
    """Walks a patch through the cloning segment and the training segment of an episode.

    Several walkers may share one learner. Whoever owns them calls `begin`, then `check` and `step` until
    `done`, gives the `patches` of all to the learner and what came of it to `settle`.
    """

    def __init__(
        self, dataset: AnomalyDataset, labeled: np.ndarray, learner: Learner, config: Config
    ) -> None:
        self.images, self.labeled, self.learner, self.config = dataset.images, labeled, learner, config
        self.mask_of = dict(zip(labeled.tolist(), dataset.masks[labeled], strict=True))
        self.training_images = labeled if config.training_images == "labeled" else np.arange(len(dataset))
        self.walk = Walk(dataset.images, learner.loss_map_tensor, config)
        self.begun = False
        self.patches: list[np.ndarray] = []

    @property
    def done(self) -> bool:
        """Whether the training segment is complete."""
        return len(self.patches) == self.config.episode_length

    def begin(self, rng: np.random.Generator) -> dict[str, Any]:
        """Start an episode; the info of `reset`."""
        self.begun, self.step_count, self.patches = True, 0, []
        self.cloning_terms: list[tuple[float, float]] = []  # R_clone and R_cover of each cloning step
        self.beta = rewards.beta(self.learner.updates, self.config.beta_horizon)
        self.warmup = self.learner.warmup
        cloning = self.config.cloning_length > 0
        self.walk.start(self.labeled if cloning else self.training_images, rng)
        return self._info("cloning" if cloning else "training")

    def check(self, action: Any) -> int:
        """The number of an action that may be taken now.

        Raises:
            ResetNeeded: no episode has begun, or it has ended.
            InvalidAction: there is no such action.
        """
        if not self.begun or self.done:
            raise ResetNeeded(
                f"the episode has {'ended' if self.begun else 'not begun'}; call reset before step"
            )
        return action_number(action)

    def step(self, action: int, rng: np.random.Generator) -> dict[str, Any]:
        """Move, and sample the patch; the info with the terms of the reward."""
        self.walk.move(action, rng)
        new_share = self.walk.sample()
        self.step_count += 1
        if self.step_count > self.config.cloning_length:
            info = self._info("training")
            self.patches.append(self.walk.patch(self.images[self.walk.image]))
            return info
        info = self._info("cloning")
        info["R_clone"] = rewards.clone_reward(self.walk.patch(self.mask_of[self.walk.image]), self.config)
        info["R_cover"] = rewards.cover_reward(new_share, self.config)
        self.cloning_terms.append((info["R_clone"], info["R_cover"]))
        if self.step_count == self.config.cloning_length:
            self.walk.start(self.training_images, rng)
        return info

    def settle(self, info: dict[str, Any], update: Update) -> None:
        """Put what came of the patches into the info of the last step."""
        info |= vars(update)
        means = np.mean(self.cloning_terms or [(0.0, 0.0)], axis=0).tolist()
        info["R_clone_mean"], info["R_cover_mean"] = means
        if not self.warmup:
            current = self.config.reward_profiles == "current"
            loss = update.prediction_loss if current else update.buffer_loss
            assert loss is not None, "Config ties warmup_updates to profile_length"
            info["R_pred"] = rewards.pred_reward(loss)

    def reward(self, info: dict[str, Any]) -> float:
        """What a step with this info pays (Eq. 3.3)."""
        return float(self.beta * (info["R_clone"] + info["R_cover"]) + (1 - self.beta) * info["R_pred"])

    def _info(self, segment: str) -> dict[str, Any]:
        return {
            "segment": segment,
            "image": self.walk.image,
            "R_clone": 0.0,
            "R_cover": 0.0,
            "R_pred": 0.0,
            "beta": self.beta,
            "warmup": self.warmup,
        }
