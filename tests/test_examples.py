"""The environment under other libraries' own entry points: the tutorial, and the extra `examples`."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nbs_env.env
from agents.sb3_env import SB3VecEnv
from nbs_env.config import PRESETS, Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:It seems that your observation")  # see tests/test_env.py
def test_the_tutorials_stable_baselines3(
    dataset: AnomalyDataset, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that it learns from pays R_pred."""
    page = (EXAMPLES.parent / "docs" / "tutorials" / "sb3.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.S)
    paid: list[list[float]] = []
    wait = SB3VecEnv.step_wait

    def watch(venv: SB3VecEnv) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        step = wait(venv)
        if "update" in step[3][0]:
            paid.append([info["R_pred"] for info in step[3]])
        return step

    monkeypatch.setitem(PRESETS, "quick", config)
    monkeypatch.setattr(nbs_env.env, "load", lambda *_, **__: dataset)
    monkeypatch.setattr(SB3VecEnv, "step_wait", watch)
    assert block.count("128") == 2
    exec(block.replace("128", "8").replace("num_envs=2", "num_envs=2, labeled=2"), {})
    assert len(paid) == 10
    assert (np.array(paid) < 0).all()


def test_torchrl_credits_segments_apart() -> None:
    pytest.importorskip("torchrl")
    rewards = torch.tensor([1.0, -1.0, 2.0, 0.0, 0.0, -5.0])
    to_go = load("torchrl_reinforce").reward_to_go
    assert to_go(rewards, 3).tolist() == [2, 1, 2, -5, -5, -5]
    assert to_go(rewards[3:], 0).tolist() == [-5, -5, -5]


def test_torchrl(env: PatchSamplingEnv) -> None:
    pytest.importorskip("torchrl")
    returns = load("torchrl_reinforce").train(env, 3)
    assert len(returns) == 3
    assert env.learner.updates >= 5  # a warm-up of two, and three others


def test_tianshou(env: PatchSamplingEnv) -> None:
    pytest.importorskip("tianshou")
    summary = load("tianshou_ppo").train(env, 3)
    assert summary.train_episode == 3
    assert env.learner.updates >= 5


def test_a_policy_is_trained_on_several_data_sets_in_turn(dataset: AnomalyDataset, config: Config) -> None:
    other = replace(dataset, images=dataset.images[:, ::-1].copy(), masks=dataset.masks[:, ::-1].copy())
    config = replace(config, updates=5, training_images="labeled")
    agent = load("take_along").train([dataset, other], config, 20)
    assert agent.optimizer.state_dict()["state"][0]["step"] == 20 - 4 * config.warmup_updates
