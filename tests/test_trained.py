"""A policy that is taken along."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SameBits, arguments

from agents.base import AgentError, file_name
from agents.load import agent_class
from agents.reinforce import Reinforce
from agents.run import main
from agents.trained import save
from nbs_env.env import PatchSamplingEnv


@pytest.fixture
def reinforce(env: PatchSamplingEnv) -> Reinforce:
    return Reinforce(env, seed=3)


def test_it_draws_from_the_saved_policy(
    reinforce: Reinforce, env: PatchSamplingEnv, tmp_path: Path, same_bits: SameBits
) -> None:
    """All but certain of one action, it takes that one."""
    with torch.no_grad():
        reinforce.policy.head.bias[5] += 1e3
    save(reinforce.policy, tmp_path / "policy.pt")
    agent = agent_class(f"trained:{tmp_path / 'policy.pt'}")(env, seed=0)
    observation, _ = env.reset(seed=0)
    assert [agent.act(observation) for _ in range(20)] == [5] * 20
    played = []
    agent.learn(env, 2, played.append)
    assert [info["update"] for info in played] == [1, 2]
    same_bits(dict(agent.policy.state_dict()), dict(reinforce.policy.state_dict()))


def test_a_run_leaves_its_policy_and_another_takes_it_along(
    folder: Path, tmp_path: Path, same_bits: SameBits
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    main(arguments(data_root=folder, run_dir=first))
    file = first / "policy.pt"
    main(arguments(data_root=folder, run_dir=second, agent=f"trained:{file}"))
    weights = [torch.load(x / "checkpoint.pt", weights_only=True)["agent"]["policy"] for x in (first, second)]
    same_bits(*weights)
    assert (second / "policy.pt").is_file()
    assert json.loads((second / "config.json").read_text())["game"]["agent"] == f"trained:{file}"


def test_its_state_goes_on_with_the_same_draws(
    reinforce: Reinforce, env: PatchSamplingEnv, tmp_path: Path
) -> None:
    save(reinforce.policy, tmp_path / "policy.pt")
    cls = agent_class(f"trained:{tmp_path / 'policy.pt'}")
    one, other = cls(env, seed=0), cls(env, seed=1)
    seen = np.random.default_rng(0).random((5, 128, 128), np.float32)
    one.act(seen)
    other.load_state_dict(one.state_dict())
    assert [one.act(seen) for _ in range(30)] == [other.act(seen) for _ in range(30)]


def test_a_file_without_a_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"'trained:nothing\.pt': nothing\.pt does not exist"):
        agent_class("trained:nothing.pt")
    torch.save({"kind": "other"}, tmp_path / "other.pt")
    with pytest.raises(AgentError, match="no policy; give the policy"):
        agent_class(f"trained:{tmp_path / 'other.pt'}")


def test_its_name_fits_into_a_path() -> None:
    assert file_name("trained:runs/mine 1/policy.pt") == "trained.runs.mine.1.policy.pt"
    assert file_name("module:Class") == "module.Class"
