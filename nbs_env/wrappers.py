"""What stands between the environment and agents that know nothing of warm-up, or of several walkers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from nbs_env.task import Infos, past_warmup


class Alone:
    """One environment as a `Game` of one walker: `PatchSamplingEnv`, wrapped or not, or any other."""

    def __init__(self, env: gymnasium.Env[np.ndarray, np.int64]) -> None:
        self.env = env

    def begin(self, **settings: Any) -> tuple[np.ndarray, Infos]:
        """What `reset` gives with these settings, of one walker."""
        observation, info = self.env.reset(**settings)
        return observation[None], [info]

    def advance(self, actions: Any) -> tuple[np.ndarray, np.ndarray, bool, Infos]:
        """What `step` gives, of one walker."""
        observation, reward, terminated, truncated, info = self.env.step(actions[0])
        return observation[None], np.array([reward]), terminated or truncated, [info]


class SkipWarmup(gymnasium.Wrapper[np.ndarray, np.int64, np.ndarray, np.int64]):
    """Plays warm-up episodes inside `reset`, so that whoever learns meets only those that pay R_pred.

    Args:
        env: `PatchSamplingEnv`, wrapped or not.
        act: gives the action for an observation (5, 128, 128) in a warm-up episode.
    """

    def __init__(
        self, env: gymnasium.Env[np.ndarray, np.int64], act: Callable[[np.ndarray], np.int64 | int]
    ) -> None:
        super().__init__(env)
        self.act = act

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the next iteration after the warm-up."""
        game = Alone(self.env)
        begun = game.begin(seed=seed, options=options)
        observations, infos = past_warmup(game, lambda seen: [self.act(seen[0])], begun)
        return observations[0], infos[0]
