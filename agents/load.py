"""How `--agent NAME|module:Class|trained:FILE` is loaded."""

from __future__ import annotations

import importlib
from typing import Any

from agents.base import AgentError
from agents.trained import trained

BUILT_IN = {
    "reinforce": "agents.reinforce:Reinforce",
    "ppo": "agents.sb3:PPO",
    "a2c": "agents.sb3:A2C",
    "dqn": "agents.sb3:DQN",
    "random": "agents.heuristics:Random",
    "random-patches": "agents.heuristics:RandomPatches",
    "sweep": "agents.heuristics:Sweep",
    "normal-only": "agents.heuristics:NormalOnly",
    "highest-loss": "agents.heuristics:HighestLoss",
    "lowest-loss": "agents.heuristics:LowestLoss",
}


def agent_class(name: str) -> Any:
    """The class behind a built-in name, `module:Class`, or `trained:FILE`.

    Raises:
        AgentError: there is none, or it lacks a method of `Agent`.
    """
    if name.startswith("trained:"):
        return trained(name.removeprefix("trained:"))
    target = BUILT_IN.get(name, name)
    module, _, attribute = target.partition(":")
    if not attribute or module[:1] in ("", "."):
        raise AgentError(
            f"no agent is called {name!r}; choose {', '.join(BUILT_IN)}, module:Class or trained:FILE"
        )
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise AgentError(f"agent {name!r} cannot be loaded: {error}; expected module:Class") from error
    missing = [m for m in ("act", "learn", "state_dict", "load_state_dict") if not hasattr(cls, m)]
    if missing:
        raise AgentError(f"agent {name!r} lacks {', '.join(missing)}; see agents.base.Agent")
    return cls
