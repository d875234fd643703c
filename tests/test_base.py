"""How agents are found, and that the built-in ones follow the protocol."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agents.base import BUILT_IN, Agent, AgentError, agent_class
from agents.heuristics import Random


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_agents_follow_the_protocol(name: str) -> None:
    cls = agent_class(name)
    options = getattr(cls, "Options", None)
    agent = cls(None, seed=3, options=options and options())
    assert isinstance(agent, Agent)
    other = cls(None, seed=4, options=options and options())
    other.load_state_dict(agent.state_dict())
    assert repr(other.state_dict()) == repr(agent.state_dict())


def test_an_agent_is_found_by_module_and_class() -> None:
    assert agent_class("agents.heuristics:Random") is Random


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reinforced", "no agent is called 'reinforced'; choose reinforce, random.* or module:Class"),
        ("nowhere_at_all:Agent", "cannot be loaded: No module named 'nowhere_at_all'; expected module:Class"),
        ("agents.base:Nobody", "has no attribute 'Nobody'"),
        (":Agent", "no agent is called ':Agent'"),
        (".base:Agent", "no agent is called '.base:Agent'"),
        ("agents.heuristics:np", "lacks act, learn, state_dict, load_state_dict"),
    ],
)
def test_what_is_no_agent_is_named(name: str, message: str) -> None:
    with pytest.raises(AgentError, match=message):
        agent_class(name)


def test_missing_methods_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_agent.py").write_text("class Half:\n    def act(self): ...\n    def learn(self): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AgentError, match="'half_agent:Half' lacks state_dict, load_state_dict; see"):
        agent_class("half_agent:Half")
    sys.modules.pop("half_agent")
