"""What a training of D-AnoGAN is watched by: purity by hand, and dead generators."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.d_anogan.config import DAnoGANConfig
from baselines.d_anogan.trainer import DAnoGAN
from baselines.d_anogan.watch import look, purity, varieties

SMALL = DAnoGANConfig(width=0.25, clusters=3, latent=4, batch_size=6, critic_steps=1, critic_start=0)


def test_purity_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert purity(labels, np.array([4, 4, 4, 4, 7, 7])) == pytest.approx((3 + 1) / 6)
    assert purity(labels, np.array([7, 7, 7, 1, 1, 0])) == 1.0
    assert purity(labels, np.zeros(6, int)) == 0.5


@pytest.fixture
def data() -> torch.Tensor:
    """Twenty noisy pictures (20, 1, 28, 28) uint8."""
    return torch.randint(256, (20, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def black(data: torch.Tensor) -> DAnoGAN:
    """A model whose second generator has died: its tanh is saturated, whatever the latent vector."""
    model = DAnoGAN(SMALL, 0)
    model.step(data)
    with torch.no_grad():
        model.generators.biases[-1][1] = -100.0
        model.prior.logits[2] += 0.2
    return model


def test_variety_is_that_of_the_samples(black: DAnoGAN) -> None:
    variety = varieties(black)
    assert variety[1] == 0
    assert (variety[[0, 2]] > 1e-5).all()
    black.prior.alive[0] = False
    black.refresh_active()
    assert torch.equal(varieties(black) > 0, torch.tensor([False, True]))


def test_the_dead_are_noticed_and_left_alone(black: DAnoGAN, data: torch.Tensor) -> None:
    before = [parameter.detach().clone() for parameter in black.generators.parameters()]
    random = black.random.get_state()
    figures = look(black, data, np.arange(20) % 2)
    assert figures["dead"] == 1
    assert black.history == [{"step": 1.0, **figures}]
    assert all(torch.equal(a, b) for a, b in zip(before, black.generators.parameters(), strict=True))
    assert torch.equal(random, black.random.get_state())  # looking changes nothing
