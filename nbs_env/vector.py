"""Several walkers and one learner as a Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv


class PatchSamplingVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` walkers that play `PatchSamplingEnv` at once and share ONE learner.

    The patches of all walkers' training segments train the autoencoder in one update, and all are paid the
    same R_pred. All episodes end at the same step, and the next begin at once (`SAME_STEP`): the last
    observations and infos are `infos["final_obs"]` and `infos["final_info"]`. One walker does what the plain
    environment does, bit for bit.

    Args:
        num_envs: walkers.
        dataset: see `PatchSamplingEnv`, as all that follow.
        labeled: how many labelled images to draw, or their names.
        config: all settings.
        device: "cpu", "cuda", or "auto".
        env: walk on this environment and its learner in place of a new one.
        tensors: observe tensors that stay on the learner's device, for agents that live there.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        dataset: AnomalyDataset | None = None,
        labeled: int | Sequence[str] = 5,
        config: Config | None = None,
        device: str = "auto",
        env: PatchSamplingEnv | None = None,
        tensors: bool = False,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; it must be at least 1")
        self.env = env or PatchSamplingEnv(dataset, labeled, config, device)
        self.tensors = tensors
        self.learner = self.env.learner
        self.walkers = [self.env.walker, *(self.env.make_walker() for _ in range(num_envs - 1))]
        self.num_envs = num_envs
        self.single_observation_space = self.env.observation_space
        self.single_action_space = self.env.action_space
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the next iteration, or start from nothing (see `PatchSamplingEnv`)."""
        infos = [self.env.reset(seed=seed, options=options)[1]]
        infos += [walker.begin(self.env.np_random) for walker in self.walkers[1:]]
        return self._windows(), self._batch(infos)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of every walker; after the last, the update and the next episode's beginning."""
        observations, rewards, done, infos = self.advance(actions)
        ends = np.full(self.num_envs, done)
        batch = self._batch(infos)
        if done:
            final = {"final_obs": observations, "_final_obs": ends, "final_info": batch, "_final_info": ends}
            observations, batch = self.reset()
            batch |= final
        return observations, rewards, ends, np.zeros_like(ends), batch

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool, list[dict[str, Any]]]:
        """`step` without beginning the next episode.

        Args:
            actions: (num_envs,).

        Returns:
            Observations (num_envs, 5, 128, 128), rewards (num_envs,), whether the episodes ended, infos.
        """
        rng = self.env.np_random
        pairs = list(zip(self.walkers, np.asarray(actions).tolist(), strict=True))
        infos = [walker.step(action, rng) for walker, action in pairs]
        done = self.walkers[0].done
        if done:
            update = self.learner.update(np.concatenate([walker.patches for walker in self.walkers]))
            for walker, info in zip(self.walkers, infos, strict=True):
                walker.settle(info, update)
        rewards = [walker.reward(info) for walker, info in zip(self.walkers, infos, strict=True)]
        return self._windows(), np.array(rewards), done, infos

    def _windows(self) -> Any:
        windows = torch.stack([walker.walk.window_tensor() for walker in self.walkers])
        return windows if self.tensors else windows.cpu().numpy()

    def _batch(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        for number, info in enumerate(infos):
            batch = self._add_info(batch, info, number)
        return batch
