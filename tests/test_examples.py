"""The environment under other libraries' own entry points; they are in the extra `examples`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from nbs_env.config import Config
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


@pytest.fixture
def env(dataset: AnomalyDataset, config: Config, thin_autoencoder: None) -> PatchSamplingEnv:
    return PatchSamplingEnv(dataset, ["0", "1"], config, "cpu")


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
