"""The environment and Table 4.1 as Stable-Baselines3 takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from gymnasium import Wrapper, spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv

from agents.base import OnEpisode
from agents.policy import PolicyFeatures
from nbs_env.task import past_warmup
from nbs_env.vector import PatchSamplingVectorEnv


class Table41(BaseFeaturesExtractor):
    """Thesis Table 4.1 up to its last layer, which is the head that Stable-Baselines3 puts on it."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space, PolicyFeatures.size)
        seed = int(torch.randint(2**31, ()))  # from the generator that Stable-Baselines3 has seeded
        self.features = PolicyFeatures(torch.Generator().manual_seed(seed))
        for parameter in self.features.parameters():
            parameter.data = parameter.data.contiguous()  # their orthogonal initialisation needs it

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Windows (B, 5, 128, 128) to features (B, 256)."""
        return self.features(observations)


POLICY_KWARGS: dict[str, Any] = {
    "features_extractor_class": Table41,
    "net_arch": [],
    "normalize_images": False,
}
"""`policy_kwargs` for the "MlpPolicy" of any of its algorithms."""


class SB3VecEnv(VecEnv):
    """`PatchSamplingVectorEnv` as the vector environment of Stable-Baselines3.

    Each segment is an episode to it, so that no return crosses from one into the other: R_pred is owed to the
    patches of the training segment alone.

    Args:
        env: walkers that share one learner.
        warmup_act: gives actions (num_envs,) for observations (num_envs, 5, 128, 128) of warm-up episodes,
            which are then played inside `reset`; None: they are episodes like any other.
        on_warmup: called with the last info of each episode so played.
    """

    def __init__(
        self,
        env: PatchSamplingVectorEnv,
        warmup_act: Callable[[np.ndarray], np.ndarray] | None = None,
        on_warmup: OnEpisode | None = None,
    ) -> None:
        self.env, self.warmup_act, self.on_warmup = env, warmup_act, on_warmup
        self.render_mode = env.render_mode
        self.auto_reset = True
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> np.ndarray:
        """Begin the next iteration after the warm-up; (num_envs, 5, 128, 128)."""
        begun = self.env.begin(seed=self._seeds[0])
        self._reset_seeds()
        if self.warmup_act is not None:
            begun = past_warmup(self.env, self.warmup_act, begun, self.on_warmup)
        return begun[0]

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions (num_envs,)."""
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Play them; after an episode's last step, the next one's first observations."""
        observations, rewards, done, infos = self.env.advance(self.actions)
        end = self.env.task.walkers[0].segment_done
        for observation, info in zip(observations, infos, strict=True):
            info["TimeLimit.truncated"] = False
            if end:
                info["terminal_observation"] = observation
        if done and self.auto_reset:
            observations = self.reset()
        return observations, rewards.astype(np.float32), np.full(self.num_envs, end), infos

    def get_images(self) -> list[np.ndarray | None]:
        """The picture of each walker, None without a render mode."""
        return list(self.env.render() or [None] * self.num_envs)

    def close(self) -> None:
        """Nothing to close."""

    def _of_walkers(self, indices: int | Iterable[int] | None, value: Any) -> list[Any]:
        return [value for _ in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """The environment's attribute, once for each walker."""
        target = self if attr_name == "render_mode" else self.env.env
        return self._of_walkers(indices, getattr(target, attr_name))

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Set an attribute of the environment, which all walkers share."""
        setattr(self.env.env, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: int | Iterable[int] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the environment, once for each walker."""
        method = getattr(self.env.env, method_name)
        return [method(*args, **kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[Wrapper[Any, Any, Any, Any]], indices: int | Iterable[int] | None = None
    ) -> list[bool]:
        """No walker is wrapped."""
        return self._of_walkers(indices, False)
