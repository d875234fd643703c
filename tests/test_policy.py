"""Table 4.1's size, and probabilities that are the same when acting and when updating."""

from __future__ import annotations

import pytest
import torch

from agents.policy import Policy


@pytest.fixture
def policy() -> Policy:
    return Policy(torch.Generator().manual_seed(0))


def windows_of(count: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    windows = torch.rand(count, 5, 128, 128, generator=generator)
    windows[:, 3] = 0.01 * windows[:, 3] ** 2
    windows[:, 4] = (windows[:, 4] < 0.3).float()
    return windows


def test_golden_parameter_count(policy: Policy) -> None:
    assert sum(p.numel() for p in policy.parameters()) == 335_177


def test_weights_come_from_the_generator_alone(policy: Policy) -> None:
    torch.rand(1)
    again = Policy(torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), again.parameters(), strict=True))
    other = Policy(torch.Generator().manual_seed(1))
    assert not torch.equal(policy.state_dict()["head.weight"], other.state_dict()["head.weight"])


@torch.no_grad()
def test_acting_does_not_move_the_statistics(policy: Policy) -> None:
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    policy(windows_of(4))
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


@torch.no_grad()
def test_refresh_moves_the_statistics_and_nothing_else(policy: Policy) -> None:
    windows = windows_of(6)
    parameters = [p.clone() for p in policy.parameters()]
    before = policy(windows)
    policy.features.refresh(windows)
    assert not any(module.training for module in policy.modules())
    assert all(torch.equal(p, q) for p, q in zip(policy.parameters(), parameters, strict=True))
    assert not torch.allclose(policy(windows), before)
    # From a mean of 0 a tenth of the way: the loss channel, divided by its mean, is 1.
    rgb = windows[:, 0].mean().item()
    mean = policy.state_dict()["features.layers.0.running_mean"]
    assert mean[0].item() == pytest.approx(0.1 * rgb, rel=1e-4)
    assert mean[3].item() == pytest.approx(0.1, rel=1e-4)


@torch.no_grad()
def test_scale_of_the_loss_does_not_matter_and_that_of_colour_does(policy: Policy) -> None:
    windows = windows_of(3)
    expected = policy(windows)
    for factor in (1e-4, 100.0):
        scaled = windows.clone()
        scaled[:, 3] *= factor
        torch.testing.assert_close(policy(scaled), expected, rtol=1e-4, atol=1e-5)
    darker = windows.clone()
    darker[:, :3] *= 0.5
    assert not torch.allclose(policy(darker), expected, atol=1e-4)


@torch.no_grad()
def test_every_channel_is_looked_at(policy: Policy) -> None:
    windows = windows_of(2)
    expected = policy(windows)
    for channel in range(5):
        turned = windows.clone()
        turned[:, channel] = turned[:, channel].flip(-1)
        assert not torch.allclose(policy(turned), expected, atol=1e-6), channel


@torch.no_grad()
def test_loss_of_zero_is_guarded(policy: Policy) -> None:
    windows = windows_of(2)
    windows[:, 3] = 0
    assert policy(windows).isfinite().all()
