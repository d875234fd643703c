"""The Agent protocol, and what agents share."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import torch

from nbs_env.common.errors import RunError
from nbs_env.task import play
from nbs_env.wrappers import Alone

Env = gymnasium.Env[np.ndarray, np.int64]
OnEpisode = Callable[[dict[str, Any]], None]


class AgentError(RunError):
    """An agent that cannot be loaded or does not fit; the message names it and the remedy."""


@runtime_checkable
class Agent(Protocol):
    """What drives the environment.

    A class is made by `Class(env, seed=..., options=...)`. `options` is an instance of the dataclass
    `Class.Options`, whose fields become options of the command line; a class without one gets None.

    Example:
        >>> import json
        >>> class Wanderer:
        ...     def __init__(self, env, seed, options=None):
        ...         self.rng = np.random.default_rng(seed)
        ...
        ...     def act(self, observation):
        ...         return int(self.rng.integers(9))
        ...
        ...     def learn(self, env, episodes, on_episode):
        ...         for _ in range(episodes):
        ...             on_episode(play_episode(env, self.act))
        ...
        ...     def state_dict(self):
        ...         return {"rng": json.dumps(self.rng.bit_generator.state)}
        ...
        ...     def load_state_dict(self, state):
        ...         self.rng.bit_generator.state = json.loads(state["rng"])
        >>> isinstance(Wanderer(env=None, seed=0), Agent)
        True
    """

    def act(self, observation: np.ndarray) -> int:
        """An action for one observation (5, 128, 128)."""

    def learn(self, env: Env, episodes: int, on_episode: OnEpisode) -> None:
        """Play `episodes` episodes of `env` and learn from them.

        Call `on_episode` after each, with the last step's info and any figures of your own (floats, named
        `agent/...`). It may raise to stop, and the agent's state must then be one that `state_dict` can save.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on with the same bits: tensors, numbers, strings, lists, dictionaries."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


def check_spaces(env: Env) -> None:
    """See that `env` shows windows (5, 128, 128) and takes nine actions.

    Raises:
        AgentError: it does not.
    """
    shape, actions = env.observation_space.shape, env.action_space
    if shape != (5, 128, 128) or not isinstance(actions, gymnasium.spaces.Discrete) or actions.n != 9:
        raise AgentError(
            f"this agent reads observations (5, 128, 128) and takes 9 actions; the environment has "
            f"{shape} and {actions}. Give it PatchSamplingEnv, without wrappers that change its spaces"
        )


def file_name(agent: str) -> str:
    """An agent's name as a part of a path."""
    return re.sub(r"[^\w.-]+", ".", agent)


def check_state(agent: Agent) -> None:
    """See that what `agent.state_dict` gives can be loaded back without unpickling.

    Raises:
        AgentError: it cannot, so that its checkpoints would be of no use.
    """
    file = io.BytesIO()
    try:
        torch.save(agent.state_dict(), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:  # torch raises many kinds, none of them documented
        raise AgentError(
            f"a checkpoint of {type(agent).__name__} could not be read again: its state_dict may hold "
            "tensors, numbers, strings, lists and dictionaries, no NumPy arrays or other objects"
        ) from error


def play_episode(env: Env, act: Callable[[np.ndarray], int]) -> dict[str, Any]:
    """Play one episode; the last step's info."""
    game = Alone(env)
    *_, (_, _, infos) = play(game, lambda seen: [act(seen[0])], game.begin()[0])
    return infos[0]
