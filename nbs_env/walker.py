"""One walker's part of an episode: its two segments, and what it is paid for (thesis Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium.error import ResetNeeded

from nbs_env import rewards
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.rewards import Step, Update
from nbs_env.walk import Walk, action_number, walked_images


class Walker:
    """Walks a patch through the cloning segment and the training segment of an episode.

    Whoever owns it calls `begin`, then `check` and `step` until `done`, gives its `patches` to a learner and
    what came of them to `settle`.

    Args:
        dataset: images and masks.
        labeled: indices of the labelled images, whose masks are all that is read.
        loss_map: gives the current reconstruction loss (H, W) of an image by its index.
        config: lengths, rewards and sizes.
    """

    def __init__(
        self,
        dataset: AnomalyDataset,
        labeled: np.ndarray,
        loss_map: Callable[[int], torch.Tensor],
        config: Config,
    ) -> None:
        self.images, self.labeled, self.config = dataset.images, labeled, config
        self.mask_of = dict(zip(labeled.tolist(), dataset.masks[labeled], strict=True))
        self.training_images = walked_images(config, labeled, len(dataset))
        self.walk = Walk(dataset.images, loss_map, config)
        self.begun = False
        self.steps = 0
        self.patches: list[np.ndarray] = []

    @property
    def done(self) -> bool:
        """Whether the training segment is complete."""
        return len(self.patches) == self.config.episode_length

    @property
    def segment_done(self) -> bool:
        """Whether the last step was the last of its segment."""
        return self.done or self.steps == self.config.cloning_length

    def begin(self, rng: np.random.Generator, beta: float, warmup: bool) -> Step:
        """Start an episode; where it is, as a step that pays nothing."""
        self.begun, self.steps, self.patches = True, 0, []
        self.beta, self.warmup = beta, warmup
        self.cloning: list[Step] = []
        cloning = self.config.cloning_length > 0
        self.walk.start(self.labeled if cloning else self.training_images, rng)
        return self._paid("cloning" if cloning else "training")

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

    def step(self, action: int, rng: np.random.Generator) -> Step:
        """Move, and sample the patch."""
        self.walk.move(action, rng)
        new_share = self.walk.sample()
        self.steps += 1
        if self.steps > self.config.cloning_length:
            self.patches.append(self.walk.patch(self.images[self.walk.image]))
            return self._paid("training")
        mask = self.walk.patch(self.mask_of[self.walk.image])
        step = self._paid(
            "cloning",
            R_clone=rewards.clone_reward(mask, self.config),
            R_cover=rewards.cover_reward(new_share, self.config),
        )
        self.cloning.append(step)
        if self.steps == self.config.cloning_length:
            self.walk.start(self.training_images, rng)
        return step

    def settle(self, step: Step, update: Update) -> Step:
        """The last step of an episode, with what came of its patches."""
        terms = [(cloned.R_clone, cloned.R_cover) for cloned in self.cloning] or [(0.0, 0.0)]
        clone, cover = np.mean(terms, axis=0).tolist()
        return replace(step, update=update, R_clone_mean=clone, R_cover_mean=cover)

    def _paid(self, segment: str, R_clone: float = 0.0, R_cover: float = 0.0) -> Step:
        return Step(segment, self.walk.image, self.beta, self.warmup, R_clone, R_cover)
