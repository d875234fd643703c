"""Returns and gradient of REINFORCE: closed forms, and the supplement's proof."""

from __future__ import annotations

import numpy as np
import torch

from agents.reinforce import discounted_returns, policy_gradient_loss


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
