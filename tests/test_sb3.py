"""Stable-Baselines3 on the environment: interface, learning, resuming, and normalised advantages."""

from __future__ import annotations

import itertools
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from conftest import SameBits
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.base import AgentError
from agents.sb3 import A2C, DQN, PPO, DQNOptions, PPOOptions, SB3Agent, SB3Options
from agents.sb3_env import POLICY_KWARGS, SB3VecEnv
from nbs_env.common import checkpoint
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv
from nbs_env.vector import PatchSamplingVectorEnv
from nbs_env.wrappers import SkipWarmup

AGENTS: tuple[type[SB3Agent], ...] = (PPO, A2C, DQN)


@pytest.fixture
def env(dataset: AnomalyDataset, config: Config) -> PatchSamplingEnv:
    made = PatchSamplingEnv(dataset, ["0", "1"], config, "cpu")
    made.reset(seed=0)
    return made


def options(kind: type[SB3Agent], walkers: int = 1) -> SB3Options:
    if kind is DQN:
        return DQNOptions(walkers=walkers, replay_steps=64, gradient_steps=2)
    return kind.Options(walkers=walkers)


def test_policy_is_table_4_1(env: PatchSamplingEnv) -> None:
    policy = PPO(env, 0).model.policy
    value_head = 256 + 1
    assert sum(p.numel() for p in policy.parameters()) == 335_177 + value_head
    assert {p.numel() for p in policy.action_net.parameters()} == {9 * 256, 9}


def test_one_walker_is_the_plain_environment_in_their_own_wrapper(
    dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    theirs = DummyVecEnv([lambda: PatchSamplingEnv(dataset, ["0", "1"], config, "cpu")])
    ours = SB3VecEnv(PatchSamplingVectorEnv(1, dataset, ["0", "1"], config, "cpu"))
    rng = np.random.default_rng(0)
    for venv in (theirs, ours):
        venv.seed(3)
    same_bits(theirs.reset(), ours.reset())
    for step in range(1, 3 * 8 + 2):
        action = rng.integers(9, size=1)
        expected, got = theirs.step(action), ours.step(action)
        same_bits(expected[:2], got[:2])
        cloned = step % 8 == config.cloning_length  # an end to them, so that no return crosses it
        assert (expected[2] | cloned) == got[2]
        if cloned:
            same_bits(got[3][0].pop("terminal_observation"), got[0][0])
        same_bits(dict(expected[3][0]), dict(got[3][0]))


def test_used_as_they_document_it(env: PatchSamplingEnv, tmp_path: Path) -> None:
    """Their algorithm, callbacks, TensorBoard and files, over walkers or the wrapped environment."""
    rng = np.random.default_rng(0)
    walkers = SB3VecEnv(
        PatchSamplingVectorEnv(2, env=env), lambda windows: rng.integers(9, size=len(windows))
    )
    saving = CheckpointCallback(8, str(tmp_path / "models"))
    for number, made in enumerate((walkers, SkipWarmup(env, lambda window: int(rng.integers(9))))):
        with warnings.catch_warnings():
            # One more "looks like an image", see tests/test_env.py.
            warnings.filterwarnings("ignore", message="It seems that your observation")
            model = stable_baselines3.PPO(
                "MlpPolicy",
                made,
                n_steps=8,
                batch_size=8,
                policy_kwargs=POLICY_KWARGS,
                normalize_advantage=False,
                tensorboard_log=str(tmp_path / f"events{number}"),
            )
        model.learn(32, callback=saving, progress_bar=False)
        assert list((tmp_path / f"events{number}").rglob("events.out.tfevents.*"))
    assert list((tmp_path / "models").glob("*.zip"))


@pytest.mark.parametrize("kind", AGENTS)
def test_every_update_is_reported_and_warm_ups_teach_nothing(
    kind: type[SB3Agent], env: PatchSamplingEnv
) -> None:
    agent = kind(env, 0, options(kind, walkers=2))
    rows: list[dict[str, Any]] = []
    states: list[torch.Tensor] = []

    def on_episode(info: dict[str, Any]) -> None:
        rows.append(info)
        states.append(torch.nn.utils.parameters_to_vector(agent.model.policy.parameters()))

    agent.learn(env, 7, on_episode)  # two warm-ups, three others, two warm-ups
    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["warmup"] for row in rows] == [True] * 2 + [False] * 3 + [True] * 2
    moved = [not torch.equal(before, after) for before, after in itertools.pairwise(states)]
    assert moved == [False, True, True, True, False, False]
    assert all("agent/loss" in row or "agent/policy_loss" in row for row in rows[2:5])
    assert env.learner.updates == 7
    agent.learn(env, 1, on_episode)
    assert rows[-1]["update"] == 8


@pytest.mark.parametrize("kind", AGENTS)
def test_resuming_gives_the_same_bits(
    kind: type[SB3Agent], dataset: AnomalyDataset, config: Config, tmp_path: Path, same_bits: SameBits
) -> None:
    def start() -> tuple[PatchSamplingEnv, SB3Agent]:
        env = PatchSamplingEnv(dataset, ["0", "1"], config, "cpu")
        env.reset(seed=1)
        return env, kind(env, 1, options(kind))

    env, agent = start()
    saved = tmp_path / "state.pt"

    def save(info: dict[str, Any]) -> None:
        if info["update"] == 4:
            state = {"agent": agent.state_dict(), "learner": env.learner.state_dict()}
            checkpoint.save(state | {"rng": json.dumps(env.np_random.bit_generator.state)}, saved)

    agent.learn(env, 9, save)
    expected = agent.state_dict(), env.learner.state_dict()

    again, other = start()
    state = checkpoint.load(saved)
    again.learner.load_state_dict(state["learner"])
    other.load_state_dict(state["agent"])
    again.np_random.bit_generator.state = json.loads(state["rng"])
    observation = np.random.default_rng(0).random((5, 128, 128), np.float32)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    other.act(observation)
    torch.set_rng_state(torch_state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    other.model.action_space.np_random.bit_generator.state = json.loads(state["agent"]["actions"])
    other.learn(again, 5, lambda info: None)
    same_bits(expected, (other.state_dict(), again.learner.state_dict()))


def test_advantages_are_not_normalised_unless_asked(env: PatchSamplingEnv) -> None:
    """The thesis's proof (3.2.1) on this reward: twice the terminal reward, twice the gradient, or no change.

    One episode whose only reward comes at its end, with a value function of zero: the advantages are
    that reward times powers of the discount. Normalised, they do not depend on it at all.
    """

    def gradient(reward: float, normalize: bool) -> torch.Tensor:
        options = PPOOptions(normalize_advantage=normalize, epochs=1, batch_size=8, entropy_weight=0)
        model = PPO(env, 0, replace(options, discount=0.9, gae_lambda=1.0)).model
        assert isinstance(model, stable_baselines3.PPO)
        model.policy.value_net.weight.data.zero_()
        model.policy.value_net.bias.data.zero_()
        model.vf_coef = 0.0
        model.max_grad_norm = 1e9
        buffer = model.rollout_buffer
        windows = torch.rand(8, 5, 128, 128, generator=torch.Generator().manual_seed(0))
        buffer.reset()
        for step in range(8):
            window = windows[step : step + 1]
            action = torch.tensor([step % 9])
            with torch.no_grad():
                value, log_probability, _ = model.policy.evaluate_actions(window, action)
            buffer.add(
                window.numpy(),
                action.numpy()[:, None],
                np.array([reward * (step == 7)]),
                np.array([step == 0]),
                value,
                log_probability,
            )
        buffer.compute_returns_and_advantage(torch.zeros(1), np.array([True]))
        model.policy.optimizer = torch.optim.SGD(model.policy.parameters(), lr=0.0)
        model._current_progress_remaining = 1.0
        model.train()
        weight = model.policy.action_net.weight
        assert weight.grad is not None
        return weight.grad.clone()

    one, two = gradient(-0.1, False), gradient(-0.2, False)
    assert one.abs().max() > 0
    torch.testing.assert_close(two, 2 * one, rtol=1e-3, atol=1e-7)
    one, two = gradient(-0.1, True), gradient(-0.2, True)
    assert one.abs().max() > 0
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-6)
    assert not PPOOptions().normalize_advantage


def test_settings_that_are_rejected_are_named(env: PatchSamplingEnv) -> None:
    with pytest.raises(AgentError, match="walkers is 0; it must be at least 1"):
        PPO(env, 0, PPOOptions(walkers=0))
    with pytest.raises(AgentError, match=r"rejects the settings of the agent: .*batch_size"):
        PPO(env, 0, PPOOptions(batch_size=1, normalize_advantage=True))


def test_loaded_and_learning_again_it_goes_on_with_the_learner(env: PatchSamplingEnv, tmp_path: Path) -> None:
    """Their seeds are the walk's: neither a file nor a second `learn` throws the autoencoder away."""
    walkers = SB3VecEnv(PatchSamplingVectorEnv(1, env=env))
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "policy_kwargs": POLICY_KWARGS, "seed": 1}
    model = stable_baselines3.PPO("MlpPolicy", walkers, **settings)
    model.learn(16)
    assert env.learner.updates == 2
    model.learn(8)
    assert env.learner.updates == 3
    model.save(tmp_path / "model.zip")
    stable_baselines3.PPO.load(tmp_path / "model.zip", walkers).learn(8)
    assert env.learner.updates == 4
    assert len(env.learner.ring) == 3
