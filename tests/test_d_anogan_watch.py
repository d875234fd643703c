"""What a training of D-AnoGAN is watched by: purity by hand, dead generators, and what is done about them."""

from __future__ import annotations

from dataclasses import replace

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
    model = DAnoGAN(replace(SMALL, revive=True), 0)
    model.step(data)
    with torch.no_grad():
        model.generators.biases[-1][1] = -100.0
        model.prior.logits[2] += 0.2
    return model


def test_variety_is_that_of_the_samples(black: DAnoGAN) -> None:
    black.config = replace(black.config, revive=False)
    variety = varieties(black)
    assert variety[1] == 0
    assert (variety[[0, 2]] > 1e-5).all()
    black.prior.alive[0] = False
    black.refresh_active()
    assert torch.equal(varieties(black) > 0, torch.tensor([False, True]))


def test_the_dead_are_noticed_and_left_alone_unless_wanted(black: DAnoGAN, data: torch.Tensor) -> None:
    black.config = replace(black.config, revive=False)
    before = [parameter.detach().clone() for parameter in black.generators.parameters()]
    random = black.random.get_state()
    figures = look(black, data, np.arange(20) % 2)
    assert figures["dead"] == 1
    assert black.history == [{"step": 1.0, **figures}]
    assert all(torch.equal(a, b) for a, b in zip(before, black.generators.parameters(), strict=True))
    assert torch.equal(random, black.random.get_state())  # looking changes nothing


def test_the_dead_are_drawn_from_the_most_probable_one_that_lives(black: DAnoGAN, data: torch.Tensor) -> None:
    before = [parameter.detach().clone() for parameter in black.generators.parameters()]
    look(black, data, np.arange(20) % 2)
    for old, new in zip(before, black.generators.parameters(), strict=True):
        assert torch.equal(old[[0, 2]], new[[0, 2]])
        away = (new.detach()[1] - old[2]).square().mean().sqrt()
        assert away == pytest.approx(0.1 * float(old[2].std(correction=0)), rel=0.5)
        state = black.optimizers["generators"].state[new]
        assert not state["exp_avg"][1].any()
        assert state["exp_avg"][2].any() or not old[2].any()
    assert (varieties(black) > 1e-5).all()
