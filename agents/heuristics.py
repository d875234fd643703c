"""Samplers that do not learn."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from agents.base import Env, OnEpisode


class Random:
    """Uniformly random actions: what a learning agent has to beat."""

    def __init__(self, env: Env, seed: int, options: None = None) -> None:
        self.rng = np.random.default_rng(seed)

    def act(self, observation: np.ndarray) -> int:
        """Any of the nine actions."""
        return int(self.rng.integers(9))

    def learn(self, env: Env, episodes: int, on_episode: OnEpisode) -> None:
        """Play without learning."""
        for _ in range(episodes):
            observation, info = env.reset()
            terminated = False
            while not terminated:
                observation, _, terminated, _, info = env.step(np.int64(self.act(observation)))
            on_episode(info)

    def state_dict(self) -> dict[str, Any]:
        """The generator's state."""
        return {"rng": json.dumps(self.rng.bit_generator.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a generator's state."""
        self.rng.bit_generator.state = json.loads(state["rng"])
