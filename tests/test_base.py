"""How agents are found, and that the built-in ones follow the protocol."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from conftest import SameBits

from agents.base import Agent, AgentError, check_state
from agents.heuristics import Random
from agents.load import BUILT_IN, agent_class
from nbs_env.env import PatchSamplingEnv


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_agents_follow_the_protocol(name: str, env: PatchSamplingEnv, same_bits: SameBits) -> None:
    cls = agent_class(name)
    options = getattr(cls, "Options", None)
    agent = cls(env, seed=3, options=options and options())
    assert isinstance(agent, Agent)
    check_state(agent)
    other = cls(env, seed=4, options=options and options())
    other.load_state_dict(agent.state_dict())
    same_bits(other.state_dict(), agent.state_dict())


@pytest.mark.parametrize("name", ["reinforce", "ppo", "a2c", "dqn"])
def test_spaces_that_an_agent_cannot_read_are_named(name: str, env: PatchSamplingEnv) -> None:
    small = gymnasium.wrappers.FlattenObservation(env)
    with pytest.raises(AgentError, match=r"the environment has \(81920,\) and Discrete\(9\)"):
        agent_class(name)(small, seed=0)


def test_an_agent_is_found_by_module_and_class() -> None:
    assert agent_class("agents.heuristics:Random") is Random


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reinforced", "no agent is called 'reinforced'; choose reinforce, .*, module:Class or trained:FILE"),
        ("nowhere_at_all:Agent", "cannot be loaded: No module named 'nowhere_at_all'; expected module:Class"),
        ("agents.base:Nobody", "has no attribute 'Nobody'"),
        (":Agent", "no agent is called ':Agent'"),
        (".base:Agent", "no agent is called '.base:Agent'"),
        ("agents.heuristics:np", "lacks act, learn, state_dict, load_state_dict"),
        ("agents.policy:Policy", "lacks act, learn; see agents.base.Agent"),
    ],
)
def test_what_is_no_agent_is_named(name: str, message: str) -> None:
    with pytest.raises(AgentError, match=message):
        agent_class(name)


def test_a_state_that_could_not_be_loaded_back_is_named(
    env: PatchSamplingEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Random(env, seed=0)
    monkeypatch.setattr(agent, "state_dict", lambda: {"weights": np.zeros(2)})
    with pytest.raises(AgentError, match=r"a checkpoint of Random could not be read again.* no NumPy arrays"):
        check_state(agent)
