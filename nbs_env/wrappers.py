"""What stands between the environment and agents that know nothing of warm-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np


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
        observation, info = self.env.reset(seed=seed, options=options)
        while info["warmup"]:
            terminated = truncated = False
            while not (terminated or truncated):
                action: Any = self.act(observation)  # as it is: the environment says if it is none
                observation, _, terminated, truncated, _ = self.env.step(action)
            observation, info = self.env.reset()
        return observation, info
