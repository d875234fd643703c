"""Several walkers and one learner as a Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode

from nbs_env.common.errors import ConfigError
from nbs_env.common.settings import whole_number
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv, own_gradients
from nbs_env.rewards import Reward, pred_reward
from nbs_env.task import Infos


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
        config: all settings, or the name of a preset.
        device: "cpu", "cuda", or "auto".
        env: walk on this `PatchSamplingEnv`, wrapped or not, and its learner in place of a new one.
        tensors: observe tensors that stay on the learner's device, for agents that live there.
        render_mode: "rgb_array" or None.
        reward: what an update pays as R_pred, of an `Outcome`.

    Raises:
        ConfigError: `num_envs` is no whole number from 1 up, or `env` is another environment; and whatever
            `PatchSamplingEnv` raises.
    """

    metadata: dict[str, Any] = PatchSamplingEnv.metadata | {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        dataset: AnomalyDataset | None = None,
        labeled: int | Sequence[str] = 5,
        config: Config | str | None = None,
        device: str = "auto",
        env: gymnasium.Env[np.ndarray, np.int64] | None = None,
        tensors: bool = False,
        render_mode: str | None = None,
        reward: Reward = pred_reward,
    ) -> None:
        count = whole_number(num_envs)
        if count is None or count < 1:
            raise ConfigError(f"num_envs is {num_envs!r}; it must be at least 1, and a whole number")
        if env is None:
            env = PatchSamplingEnv(dataset, labeled, config, device, render_mode, reward)
        if not isinstance(env.unwrapped, PatchSamplingEnv):
            raise ConfigError(f"env is a {type(env.unwrapped).__name__}; the walkers need a PatchSamplingEnv")
        self.env, self.tensors, self.render_mode = env.unwrapped, tensors, env.unwrapped.render_mode
        self.learner, self.task = self.env.learner, self.env.task
        self.num_envs = count
        self.single_observation_space = self.env.observation_space
        self.single_action_space = self.env.action_space
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, count)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, count)

    @own_gradients
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the next iteration, or start from nothing (see `PatchSamplingEnv`)."""
        observations, infos = self.begin(seed, options)
        return observations, self._batch(infos)

    @own_gradients
    def begin(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Infos]:
        """`reset`, with an info for each walker."""
        steps = self.env.begin(seed, options, self.num_envs)
        return self._windows(), [step.info() for step in steps]

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

    @own_gradients
    def advance(self, actions: np.ndarray) -> tuple[Any, np.ndarray, bool, Infos]:
        """`step` without beginning the next episode, with an info for each walker.

        Args:
            actions: (num_envs,).

        Returns:
            Observations (num_envs, 5, 128, 128), rewards (num_envs,), whether the episodes ended, infos.

        Raises:
            ResetNeeded: no episode has begun, or it has ended.
            InvalidAction: it is not one action a walker; then none of them has moved.
        """
        given = np.asarray(actions)
        if given.shape != (self.num_envs,):
            raise InvalidAction(f"actions have shape {given.shape}; give one a walker, ({self.num_envs},)")
        steps = self.task.step(given)
        rewards = np.array([step.reward for step in steps])
        return self._windows(), rewards, self.task.done, [step.info() for step in steps]

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The picture of `PatchSamplingEnv.render` for each walker."""
        return None if self.render_mode is None else tuple(map(self.env.draw, self.task.walkers))

    def _windows(self) -> Any:
        windows = self.task.windows()
        return windows if self.tensors else windows.cpu().numpy()

    def _batch(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        for number, info in enumerate(infos):
            batch = self._add_info(batch, info, number)
        return batch
