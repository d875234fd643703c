"""Episodes of random actions, which the tests of the environment look at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv

Step = tuple[np.ndarray, float, bool, dict[str, Any]]


def make(dataset: AnomalyDataset, config: Config, **changes: Any) -> PatchSamplingEnv:
    return PatchSamplingEnv(dataset, ["0", "1"], replace(config, **changes), device="cpu")


def play(env: PatchSamplingEnv, episodes: int, seed: int | None = 0, **first: Any) -> list[Step]:
    """Random actions over some episodes; `seed` and `first` go to the first reset."""
    rng = np.random.default_rng(seed or 0)
    steps = []
    for episode in range(episodes):
        observation, info = env.reset(seed=seed, **first) if episode == 0 else env.reset()
        steps.append((observation, 0.0, False, info))
        terminated = False
        while not terminated:
            observation, reward, terminated, truncated, info = env.step(rng.integers(9))
            assert not truncated
            steps.append((observation, reward, terminated, info))
    return steps


def last_infos(steps: list[Step]) -> list[dict[str, Any]]:
    return [info for _, _, terminated, info in steps if terminated]
