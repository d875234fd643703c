"""Algorithm 1 as it is printed (`Config.evaluation = "full"`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from nbs_env.learner import Learner
from nbs_env.profiles import Snapshot, side_by_side


class FullLearner(Learner):
    """Algorithm 1 to the letter: every image is measured after every update, and the best profiles are saved.

    It gives the masks of `Learner`, for a map is a function of weights and image alone.
    """

    def __init__(self, images: np.ndarray, labeled: np.ndarray, *rest: Any, **more: Any) -> None:
        self.unlabeled = np.setdiff1d(np.arange(len(images)), labeled)
        super().__init__(images, labeled, *rest, **more)

    def restart(self, seed: int) -> None:
        """Begin from nothing."""
        super().restart(seed)
        self._newest: list[torch.Tensor] = []  # maps of D_u, oldest first

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of a learner with the same configuration and images."""
        super().load_state_dict(state)
        self._newest = []
        if self.ring:
            profiles = self._profiles(self.ring, self.unlabeled)
            self._newest = list(torch.cat(profiles.chunk(self.kinds, dim=1)).unbind(1))

    def best_profiles(self, indices: np.ndarray) -> list[torch.Tensor]:
        """Raw profiles of some images under each snapshot: saved, if all are unlabelled."""
        rows = np.searchsorted(self.unlabeled, indices)
        if not np.isin(indices, self.unlabeled).all():
            return super().best_profiles(indices)
        return [s.unlabeled[torch.from_numpy(rows)] for s in self.snapshots if s.unlabeled is not None]

    def _measure_all(self) -> torch.Tensor:
        maps = self._measure(np.arange(len(self.images))).unflatten(0, (self.kinds, -1))
        self._maps = dict(enumerate(maps[0]))
        kept = self.config.profile_length if self.ring else 1  # the ring is emptied where a cycle ends
        labeled, unlabeled = (
            maps[:, torch.from_numpy(some)].flatten(0, 1) for some in (self.labeled, self.unlabeled)
        )
        self._newest = [*self._newest, unlabeled][-kept:]
        return labeled

    def _snapshot(self, loss: float) -> Snapshot:
        profiles = side_by_side(torch.stack(self._newest, dim=1), len(self.unlabeled))
        return replace(super()._snapshot(loss), unlabeled=profiles)
