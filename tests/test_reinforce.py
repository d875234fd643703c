"""REINFORCE: what it learns from, its state, and tasks whose answer is known."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import SameBits

from agents.base import AgentError
from agents.reinforce import (
    ACTIONS_BEFORE,
    Reinforce,
    ReinforceOptions,
    discounted_returns,
    policy_gradient_loss,
)
from nbs_env.common import checkpoint
from nbs_env.common.symmetries import dihedral
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv
from nbs_env.vector import PatchSamplingVectorEnv
from nbs_env.walk import DIRECTIONS


class Toy(gymnasium.Env[np.ndarray, np.int64]):
    """A bright half says which action pays 1: west (6) or east (2); all others pay 0.

    Args:
        channel: what the half is seen in, 0 (red) or 3 (loss).
        length: steps of an episode.
        warmup: the episodes, counted from 0, that are declared a warm-up.
    """

    observation_space = gymnasium.spaces.Box(0, np.inf, (5, 128, 128), np.float32)
    action_space = gymnasium.spaces.Discrete(9)

    def __init__(self, channel: int = 0, length: int = 16, warmup: frozenset[int] = frozenset()) -> None:
        self.channel, self.length, self.warmup = channel, length, warmup
        self.rng = np.random.default_rng(0)
        self.episode = -1

    def _look(self) -> np.ndarray:
        self.side = int(self.rng.integers(2))
        observation = np.full((5, 128, 128), 0.1, np.float32)
        observation[4] = 0
        half = slice(0, 64) if self.side == 0 else slice(64, 128)
        observation[self.channel, :, half] = 0.9
        return observation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.episode += 1
        self.steps = 0
        return self._look(), {"segment": "training"}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = float(action == (6, 2)[self.side])
        self.steps += 1
        info = {"segment": "training", "warmup": self.episode in self.warmup}
        return self._look(), reward, self.steps == self.length, False, info


def capture_updates(agent: Reinforce, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What each update is given, instead of updating: (windows, actions, advantages, beta)."""
    updates: list[tuple[Any, ...]] = []

    def update(*batch: Any) -> float:
        updates.append(batch)
        return 0.0

    monkeypatch.setattr(agent, "_update", update)
    return updates


# What is learnt from


def test_returns_end_with_their_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Reinforce(Toy(), 0, ReinforceOptions(discount=0.5, cloning_discount=0.25, baseline_decay=1))
    updates = capture_updates(agent, monkeypatch)
    windows = [torch.full((1, 5, 128, 128), float(t)) for t in range(5)]
    segments = np.array(["cloning"] * 2 + ["training"] * 3)
    rewards = np.array([[1.0], [2], [0], [0], [8]])
    figures = agent._learn_from(windows, [[4], [3], [2], [1], [0]], rewards, segments)
    given, actions, advantages, _ = updates[0]
    assert given[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert actions.tolist() == [4, 3, 2, 1, 0]
    assert advantages.tolist() == [1.5, 2, 2, 4, 8]
    assert (figures["agent/cloning_return"], figures["agent/training_return"]) == (1.5, 2)


def test_walkers_share_a_baseline_of_earlier_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Reinforce(Toy(), 0, ReinforceOptions(walkers=2, discount=0.5, baseline_decay=0.75))
    updates = capture_updates(agent, monkeypatch)
    windows = [torch.tensor([t, t + 0.5])[:, None, None, None].expand(2, 5, 128, 128) for t in range(2)]
    for rewards in ([[0.0, 4.0], [8.0, 4.0]], [[0.0, 0.0]] * 2, [[3.0, 5.0], [0.0, 2.0]]):
        figures = agent._learn_from(windows, [[0, 1], [2, 3]], np.array(rewards), np.array(["training"] * 2))
    given, actions, advantages, _ = updates[0]
    assert given[:, 0, 0, 0].tolist() == [0, 0.5, 1, 1.5]
    assert actions.tolist() == [0, 1, 2, 3]
    assert advantages.tolist() == [0, 0, 0, 0]
    # nothing to compare with at first; then the means, 5 and 6; then three quarters of them
    assert updates[1][2].tolist() == [-5, -5, -6, -6]
    assert updates[2][2].tolist() == [3 - 3.75, 6 - 3.75, 0 - 4.5, 2 - 4.5]
    assert figures["agent/training_return"] == 4.5


def test_entropy_bonus_falls_with_beta() -> None:
    """Without rewards nothing but the bonus moves the policy."""
    windows = list(torch.rand((4, 1, 5, 128, 128), generator=torch.Generator().manual_seed(0)))
    moved = []
    for beta in (0.0, 1.0):
        agent = Reinforce(Toy(), 0)
        before = agent.policy.head.weight.detach().clone()
        actions = [[0], [1], [2], [3]]
        agent._learn_from(windows, actions, np.zeros((4, 1)), np.array(["training"] * 4), beta)
        moved.append(not torch.equal(agent.policy.head.weight, before))
    assert moved == [False, True]


def test_warm_up_episodes_are_played_but_not_learnt_from(same_bits: SameBits) -> None:
    env = Toy(length=2, warmup=frozenset({0, 1, 3}))
    agent = Reinforce(env, 0)
    states = [copy.deepcopy(agent.policy.state_dict())]
    infos: list[dict[str, Any]] = []

    def on_episode(info: dict[str, Any]) -> None:
        infos.append(info)
        states.append(copy.deepcopy(agent.policy.state_dict()))

    agent.learn(env, 5, on_episode)
    learnt = [not torch.equal(a["head.weight"], b["head.weight"]) for a, b in itertools.pairwise(states)]
    assert learnt == [False, False, True, False, True]
    assert ["agent/entropy" in info for info in infos] == learnt
    same_bits(states[0], states[2])
    same_bits(states[3], states[4])


def test_log_probabilities_at_the_update_are_those_of_acting(monkeypatch: pytest.MonkeyPatch) -> None:
    env = Toy(length=6)
    agent = Reinforce(env, 0, ReinforceOptions(rollouts=2, learning_rate=1e-2))
    seen: list[torch.Tensor] = []
    agent.policy.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    agent.learn(env, 4, lambda info: None)
    lengths = [len(output) for output in seen]
    assert lengths == ([1] * 12 + [12]) * 2
    for start in (0, 13):
        acting = torch.cat(seen[start : start + 12]).log_softmax(dim=1)
        torch.testing.assert_close(seen[start + 12].log_softmax(dim=1), acting, rtol=0, atol=1e-6)
    assert not torch.allclose(seen[0], seen[13], atol=1e-3)  # it has learnt in between


def test_actions_are_drawn_from_the_policy() -> None:
    agent = Reinforce(Toy(), 0)
    with torch.no_grad():
        *_, weight, bias = agent.policy.parameters()
        weight.zero_()
        bias.copy_(torch.tensor([0.5, 0.3, 0.2] + [1e-30] * 6).log())
    observation = np.zeros((5, 128, 128), np.float32)
    counts = np.bincount([agent.act(observation) for _ in range(800)], minlength=9) / 800
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.2, 0, 0, 0, 0, 0, 0], atol=0.06)


# Returns and gradient, in closed forms


def test_returns_against_slow_reference() -> None:
    rewards = np.random.default_rng(0).normal(size=12)
    for discount in (0.0, 0.5, 0.99, 1.0):
        expected = [sum(discount ** (k - t) * rewards[k] for k in range(t, 12)) for t in range(12)]
        np.testing.assert_allclose(discounted_returns(rewards, discount), expected)


def rollout(steps: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(steps, 9, dtype=torch.float64, generator=generator, requires_grad=True)
    actions = torch.randint(9, (steps,), generator=generator)
    return logits, actions, torch.randn(steps, dtype=torch.float64, generator=generator)


def test_gradient_of_a_softmax_policy_in_closed_form() -> None:
    """The gradient of -log pi(a) A with respect to the logits is (pi - onehot(a)) A."""
    logits, actions, advantages = rollout(7)
    policy_gradient_loss(logits, actions, advantages, 0.0).backward()
    probabilities = logits.detach().exp() / logits.detach().exp().sum(dim=1, keepdim=True)
    expected = probabilities.clone()
    for t, action in enumerate(actions.tolist()):
        expected[t, action] -= 1
    expected *= advantages[:, None] / 7
    torch.testing.assert_close(logits.grad, expected)


def test_entropy_gradient_in_closed_form() -> None:
    """The gradient of -H with respect to the logits is pi (log pi + H)."""
    logits, actions, _ = rollout(5)
    policy_gradient_loss(logits, actions, torch.zeros(5, dtype=torch.float64), 0.3).backward()
    pi = logits.detach().softmax(dim=1)
    entropy = -(pi * pi.log()).sum(dim=1, keepdim=True)
    torch.testing.assert_close(logits.grad, 0.3 * pi * (pi.log() + entropy) / 5)


def test_proof_of_the_supplement() -> None:
    """Normalised returns forget a terminal reward k; ours are proportional to it."""

    def gradient(k: float, normalise: bool) -> torch.Tensor:
        logits, actions, _ = rollout(10)
        returns = discounted_returns(np.array([0.0] * 9 + [k]), 0.99)
        if normalise:
            returns = (returns - returns.mean()) / returns.std()
        policy_gradient_loss(logits, actions, torch.from_numpy(returns), 0.0).backward()
        assert logits.grad is not None
        return logits.grad

    torch.testing.assert_close(gradient(0.1, normalise=True), gradient(7.0, normalise=True))
    torch.testing.assert_close(70 * gradient(0.1, normalise=False), gradient(7.0, normalise=False))


# State


def test_state_goes_on_with_the_same_bits(tmp_path: Path, same_bits: SameBits) -> None:
    options = ReinforceOptions(rollouts=2)
    env = Toy(length=3)
    agent = Reinforce(env, 0, options)
    agent.learn(env, 3, lambda info: None)
    other = Reinforce(env, 1, options)
    checkpoint.save(agent.state_dict(), tmp_path / "agent.pt")
    other.load_state_dict(checkpoint.load(tmp_path / "agent.pt"))
    runs = []
    for each in (agent, other):
        infos: list[dict[str, Any]] = []
        each.learn(Toy(length=3), 3, infos.append)
        runs.append((infos, [each.act(np.ones((5, 128, 128), np.float32)) for _ in range(10)]))
    same_bits(*runs)
    same_bits(agent.state_dict(), other.state_dict())


# Learning


@pytest.mark.parametrize("channel", [0, 3])
def test_learns_which_action_pays(channel: int) -> None:
    env = Toy(channel)
    options = ReinforceOptions(discount=0.0, learning_rate=3e-3, entropy_weight=0.02, symmetries=False)
    agent = Reinforce(env, 0, options)
    returns: list[float] = []

    def play(episodes: int) -> float:
        """Mean reward a step: 1/9 by chance, 1/2 for one who does not look, 1 at best."""
        total = 0.0
        for _ in range(episodes):
            observation, _ = env.reset()
            done = False
            while not done:
                observation, reward, done, _, _ = env.step(np.int64(agent.act(observation)))
                total += reward
        return total / episodes / env.length

    assert play(5) < 0.4
    for _ in range(12):
        agent.learn(env, 25, lambda info: returns.append(info["agent/training_return"]))
        if play(4) > 0.95:
            break
    assert play(10) > 0.85
    assert math.isfinite(sum(returns))


def test_wrapped_environment_is_played_alike(
    dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    """Behind a wrapper observations are arrays, without one they are tensors that stay where they are."""
    runs = []
    for wrap in (gymnasium.Wrapper, lambda env: env):
        env = PatchSamplingEnv(dataset, 2, config, "cpu")
        env.reset(seed=0)
        agent, infos = Reinforce(env, 0), []
        agent.learn(wrap(env), 4, infos.append)
        runs.append((infos, agent.state_dict()))
        assert isinstance(env.reset()[0], np.ndarray)
    same_bits(*runs)


def test_walkers_see_and_do_what_the_vector_environment_says(
    dataset: AnomalyDataset, config: Config, same_bits: SameBits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An episode of three, played again by hand with the actions that were learnt from."""
    env, again = (PatchSamplingEnv(dataset, 2, config, "cpu") for _ in range(2))
    env.reset(seed=0)
    agent = Reinforce(env, 0, ReinforceOptions(walkers=3, symmetries=False, baseline_decay=1, discount=0.0))
    updates, infos = capture_updates(agent, monkeypatch), []
    agent.learn(env, config.warmup_updates + 1, infos.append)
    learnt = agent.state_dict()
    again.reset(seed=0)
    walkers, other = PatchSamplingVectorEnv(3, env=again), Reinforce(env, 0, agent.options)
    observations, rewards = [], []
    for episode in range(config.warmup_updates + 1):
        seen, done = walkers.reset()[0], False
        while not done:
            observations.append(seen)
            actions = other._draw(torch.from_numpy(seen))
            seen, paid, done, _ = walkers.advance(np.array(actions))
            rewards.append(paid)
        if episode < config.warmup_updates:
            observations.clear()
            rewards.clear()
    (windows, _, advantages, _) = updates[0]
    same_bits(windows.numpy(), np.concatenate(observations))
    same_bits(advantages.numpy(), np.concatenate(rewards).astype(np.float32))
    same_bits(learnt["generator"], other.state_dict()["generator"])
    assert [info["update"] for info in infos] == list(range(1, config.warmup_updates + 2))


def test_several_walkers_do_not_walk_through_wrappers() -> None:
    env = Toy()
    with pytest.raises(AgentError, match=r"walkers is 2, but .*Toy.* lets one walk; choose 1"):
        Reinforce(env, 0, ReinforceOptions(walkers=2)).learn(env, 1, lambda info: None)


# Symmetries


@pytest.mark.parametrize("symmetry", range(8))
def test_turned_window_and_action_belong_together(symmetry: int) -> None:
    """A walk in a turned image with turned actions is the turned walk."""
    image = torch.rand((1, 200, 200), generator=torch.Generator().manual_seed(symmetry))
    for action in range(8):
        rows, columns = DIRECTIONS[ACTIONS_BEFORE[symmetry][action]]
        top, left = 50 + 24 * rows, 60 + 24 * columns
        expected = dihedral(image[:, top : top + 64, left : left + 64], symmetry)
        window = dihedral(image[:, 50 - 32 : 50 + 96, 60 - 32 : 60 + 96], symmetry)
        rows, columns = DIRECTIONS[action]
        top, left = 32 + 24 * rows, 32 + 24 * columns
        assert torch.equal(window[:, top : top + 64, left : left + 64], expected)
    assert ACTIONS_BEFORE[symmetry][8] == 8
    assert len({dihedral(image, number).numpy().tobytes() for number in range(8)}) == 8
