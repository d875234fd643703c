"""A policy that was trained elsewhere, frozen: `--agent trained:FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from agents.base import AgentError, Env, OnEpisode, check_spaces, play_episode
from agents.policy import Policy
from nbs_env.common import checkpoint

KIND = "agents.Policy"


def save(policy: Policy, file: Path) -> None:
    """Write a policy to be taken along, 1.3 MB."""
    checkpoint.save({"kind": KIND, "policy": policy.state_dict()}, file)


class Trained:
    """Plays a policy of `save`, and learns nothing.

    Its state holds the policy, so a run goes on with the one that it began with.
    """

    file: ClassVar[Path]

    def __init__(self, env: Env, seed: int, options: None = None) -> None:
        check_spaces(env)
        self.generator = torch.Generator().manual_seed(seed)
        self.policy = Policy(torch.Generator())
        with checkpoint.unpacking(self.file):
            self.policy.load_state_dict(checkpoint.load(self.file)["policy"])

    @torch.no_grad()
    def act(self, observation: np.ndarray) -> int:
        """Draw an action for one observation (5, 128, 128)."""
        probabilities = self.policy(torch.from_numpy(observation[None])).softmax(dim=1)
        return int(torch.multinomial(probabilities, 1, generator=self.generator))

    def learn(self, env: Env, episodes: int, on_episode: OnEpisode) -> None:
        """Play without learning."""
        for _ in range(episodes):
            on_episode(play_episode(env, self.act))

    def state_dict(self) -> dict[str, Any]:
        """Policy and generator."""
        return {"policy": self.policy.state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.policy.load_state_dict(state["policy"])
        self.generator.set_state(state["generator"])


def trained(file: str) -> type[Trained]:
    """The agent that plays the policy in `file`.

    Raises:
        AgentError: it holds none.
    """
    path = Path(file)
    try:
        found = checkpoint.load(path).get("kind")
    except checkpoint.CheckpointError as error:
        raise AgentError(f"agent 'trained:{file}': {error}") from error
    if found != KIND:
        raise AgentError(f"agent 'trained:{file}': no policy; give the policy.pt of a run of reinforce")
    return type("Trained", (Trained,), {"file": path})
