"""D-AnoGAN's losses by hand."""

from __future__ import annotations

import pytest
import torch

from baselines.d_anogan.trainer import critic_loss, generator_loss, gradient_penalty


def test_critic_loss_by_hand() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([4.0, 8.0])
    loss = critic_loss(real, fake, torch.tensor([0.25, 0.75]), torch.tensor(10.0))
    assert float(loss) == 0.25 * 4 + 0.75 * 8 - 2 + 10  # real images are to score high


def test_generator_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, torch.log(torch.tensor(3.0))]])
    loss, cross_entropy = generator_loss(
        torch.tensor([2.0, 4.0]), logits, torch.tensor([0, 0]), torch.tensor([0.5, 0.5])
    )
    expected = 0.5 * torch.log(torch.tensor(2.0)) + 0.5 * torch.log(torch.tensor(4.0))
    torch.testing.assert_close(cross_entropy, expected)
    torch.testing.assert_close(loss, expected - 3.0)


class _Linear(torch.nn.Module):
    """A critic whose gradient is known: `slope` times the sum of the pixels."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(slope))

    def slopes(self, images: torch.Tensor) -> torch.Tensor:
        return self.slope.expand_as(images)


@pytest.mark.parametrize(("slope", "expected"), [(1.0, 1.0), (2.0, 9.0), (0.4, 0.0)])
def test_gradient_penalty_by_hand(slope: float, expected: float) -> None:
    """Four pixels: the gradient's norm is twice the slope; below 1 nothing is paid."""
    images = torch.rand(3, 1, 2, 2)
    critic = _Linear(slope)
    penalty = gradient_penalty(critic, images, -images, torch.rand(3), torch.full((3,), 1 / 3))  # type: ignore[arg-type]
    assert penalty.item() == pytest.approx(expected)
    penalty.backward()
    assert critic.slope.grad is not None
    assert float(critic.slope.grad) == pytest.approx(2 * 2 * max(0, 2 * slope - 1), abs=1e-5)
