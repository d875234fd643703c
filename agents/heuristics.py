"""Samplers that do not learn: what a learning agent has to beat."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from agents.base import AgentError, Env, OnEpisode, play_episode
from nbs_env.walk import CHANGE_IMAGE, DIRECTIONS

PATCH, MARGIN = 64, 32


class Random:
    """Uniformly random actions."""

    def __init__(self, env: Env, seed: int, options: None = None) -> None:
        self.env, self.rng = env, np.random.default_rng(seed)

    def act(self, observation: np.ndarray) -> int:
        """Any of the nine actions."""
        return int(self.rng.integers(9))

    def learn(self, env: Env, episodes: int, on_episode: OnEpisode) -> None:
        """Play without learning."""
        self.env = env
        for _ in range(episodes):
            on_episode(play_episode(env, self.act))

    def state_dict(self) -> dict[str, Any]:
        """The generator's state."""
        return {"rng": json.dumps(self.rng.bit_generator.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a generator's state."""
        self.rng.bit_generator.state = json.loads(state["rng"])


class RandomPatches(Random):
    """Uniformly random patches of uniformly random images: action 8 at every step."""

    def act(self, observation: np.ndarray) -> int:
        """A random place of a random image."""
        return CHANGE_IMAGE


class Sweep(Random):
    """Raster: rightwards, then leftwards one row further down; at the bottom another image.

    It starts where the environment puts it. The border is where the window shows nothing but zeros.
    """

    rightwards = True

    def act(self, observation: np.ndarray) -> int:
        """On along the row while there is image ahead, else down, else another image."""
        inside = observation[3] > 0  # a loss is never exactly zero
        ahead = inside[:, MARGIN + PATCH :] if self.rightwards else inside[:, :MARGIN]
        if ahead.any():
            return DIRECTIONS.index((0, 1 if self.rightwards else -1))
        if inside[MARGIN + PATCH :].any():
            self.rightwards = not self.rightwards
            return DIRECTIONS.index((1, 0))
        return CHANGE_IMAGE

    def state_dict(self) -> dict[str, Any]:
        """The generator's state, and which way the row goes."""
        return super().state_dict() | {"rightwards": self.rightwards}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state)
        self.rightwards = state["rightwards"]


class HighestLoss(Random):
    """The move whose patch has the highest mean loss over its new pixels; another image if none is new."""

    sign = 1.0

    def __init__(self, env: Env, seed: int, options: None = None) -> None:
        super().__init__(env, seed)
        self.shift: int = env.unwrapped.config.shift  # type: ignore[attr-defined]
        if self.shift > MARGIN:
            raise AgentError(f"shift is {self.shift}; this agent sees no further than {MARGIN} pixels")

    def act(self, observation: np.ndarray) -> int:
        """The best of the eight moves that stay inside the image."""
        loss, history = observation[3], observation[4]
        new = (loss > 0) & (history == 0)
        scores = np.full(8, -np.inf)
        for action, (rows, columns) in enumerate(DIRECTIONS):
            top, left = MARGIN + self.shift * rows, MARGIN + self.shift * columns
            there = (slice(top, top + PATCH), slice(left, left + PATCH))
            if new[there].any() and (loss[there] > 0).mean() > 0.5:
                scores[action] = self.sign * loss[there][new[there]].mean()
        return int(scores.argmax()) if scores.max() > -np.inf else CHANGE_IMAGE


class LowestLoss(HighestLoss):
    """The move whose patch has the lowest mean loss over its new pixels; another image if none is new."""

    sign = -1.0


class NormalOnly(Random):
    """Random moves among those whose patch has no anomalous pixel: what R_clone teaches, played perfectly.

    An oracle: it reads the masks of the labelled images in the environment. On other images it moves at
    random. Where every move would hit an anomaly it goes to another image.
    """

    def act(self, observation: np.ndarray) -> int:
        """A normal move, drawn uniformly."""
        walker = self.env.unwrapped.walker  # type: ignore[attr-defined]
        walk, mask = walker.walk, walker.mask_of.get(walker.walk.image)
        if mask is None:
            return super().act(observation)
        last, moves = np.array(mask.shape) - PATCH, []
        for action, direction in enumerate(DIRECTIONS):
            top, left = ((walk.top, walk.left) + walk.shift * np.array(direction)).clip(0, last)
            if not mask[top : top + PATCH, left : left + PATCH].any():
                moves.append(action)
        return int(self.rng.choice(moves)) if moves else CHANGE_IMAGE
