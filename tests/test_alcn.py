"""ALCN: sizes, the blend, who learns when, and what noise does to an autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.alcn import networks
from baselines.alcn.networks import Denoiser, NoiseGenerator, SizeError, sides
from baselines.alcn.trainer import ALCN, NOISES, ALCNConfig, TrainingError, blend
from nbs_env import checkpoint

SMALL = ALCNConfig(size=16, batch_size=8, denoiser_lr=1e-3, noise_lr=1e-3)


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of the same layers in a hundredth of the time."""
    monkeypatch.setattr(networks, "_WIDTHS", (8, 16, 16))
    monkeypatch.setattr(networks, "_NOISE_WIDTHS", (16, 16, 8, 8))


@pytest.fixture
def data(thin: None) -> torch.Tensor:
    """Twenty noisy pictures (20, 1, 16, 16) uint8."""
    return torch.randint(256, (20, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_sizes_are_those_of_the_paper() -> None:
    denoiser = sum(p.numel() for p in Denoiser(28, 1).parameters())
    both = denoiser + sum(p.numel() for p in NoiseGenerator(28, 1).parameters())
    assert denoiser == pytest.approx(1.12e6, rel=0.01)
    assert both == pytest.approx(9.87e6, rel=0.01)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (50, 1), (64, 3)])
def test_networks_keep_the_size(size: int, channels: int) -> None:
    images = torch.rand(2, channels, size, size)
    assert Denoiser(size, channels)(images).shape == images.shape
    noise = NoiseGenerator(size, channels)(torch.randn(2, 256))
    assert noise.shape == images.shape
    assert noise.min() >= 0
    assert noise.max() <= 1


def test_sizes_that_cannot_be_built_are_named() -> None:
    with pytest.raises(SizeError, match="image size is 12; the networks of ALCN take sizes from 16 up"):
        sides(12)


def test_blend_by_hand() -> None:
    images, noise = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.5])
    torch.testing.assert_close(blend(images, noise, torch.tensor(0.2)), torch.tensor([0.6, 0.2]))
    torch.testing.assert_close(blend(images, noise, torch.tensor(1.0)), images)


def test_alpha_stays_within_its_bounds() -> None:
    model = ALCN(SMALL, 0)
    draws = torch.stack([model.draw_alpha() for _ in range(2000)])
    assert 0.2 <= draws.min() < 0.21
    assert 0.89 < draws.max() <= 0.9


def test_noises_are_what_they_are_called(data: torch.Tensor) -> None:
    images = torch.zeros(50, 3, 16, 16)
    generator = torch.Generator().manual_seed(0)
    models = {name: ALCN(replace(SMALL, noise=name, channels=3), 0) for name in NOISES}
    assert models["none"].noise.sample(images, generator) is None
    speckle = models["speckle"].noise.sample(images, generator)
    assert speckle is not None
    assert set(speckle.unique().tolist()) == {0.0, 1.0}
    assert float(speckle.mean()) == pytest.approx(0.5, abs=0.02)
    assert (speckle[:, 0] == speckle[:, 2]).all()
    gaussian = models["gaussian"].noise.sample(images, generator)
    assert gaussian is not None
    assert float(gaussian.std()) == pytest.approx(0.5, abs=0.01)
    learnt = models["alcn"].noise.sample(images, generator)
    assert learnt is not None
    assert 0 <= learnt.min() <= learnt.max() <= 1
    assert float((learnt[0] - learnt[1]).abs().mean().detach()) > 0  # continuous, and another one each time


def changed(model: ALCN, before: dict[str, list[torch.Tensor]]) -> set[str]:
    return {
        name
        for name, network in model.networks.items()
        if any(not torch.equal(a, b) for a, b in zip(network.parameters(), before[name], strict=True))
    }


def snapshot(model: ALCN) -> dict[str, list[torch.Tensor]]:
    return {name: [p.detach().clone() for p in net.parameters()] for name, net in model.networks.items()}


def test_each_step_moves_its_own_network(data: torch.Tensor) -> None:
    model = ALCN(SMALL, 0)
    model.fit_scale(data)
    images = model.standardize(data)
    for name, sign in (("noise", -1), ("denoiser", 1)):
        before = snapshot(model)
        model._descend(name, sign * model.error(images, torch.tensor(0.5)))
        assert changed(model, before) == {name}


def test_noise_raises_the_error_and_the_denoiser_lowers_it(data: torch.Tensor) -> None:
    """Each alone against the other held still, on the same draws."""
    errors = {}
    for name, sign in (("noise", -1), ("denoiser", 1)):
        model = ALCN(replace(SMALL, noise_lr=3e-2), 0)
        model.fit_scale(data)
        images, alpha = model.standardize(data), torch.tensor(0.4)
        values = []
        for _ in range(60):
            loss = model.error(images, alpha)
            values.append(float(loss.detach()))
            model._descend(name, sign * loss)
        errors[name] = np.mean(values[-5:]) - np.mean(values[:5])
    assert errors["noise"] > 0
    assert errors["denoiser"] < 0


def test_images_are_standardised(data: torch.Tensor) -> None:
    model = ALCN(SMALL, 0)
    model.fit_scale(data)
    values = model.standardize(data)
    assert float(values.mean()) == pytest.approx(0, abs=1e-5)
    assert float(values.std()) == pytest.approx(1, abs=1e-3)


def test_scores_are_mean_squared_errors_image_by_image(data: torch.Tensor) -> None:
    model = ALCN(SMALL, 0)
    model.fit_scale(data)
    model.train_epoch(data)
    scores = model.scores(data.numpy())
    alone = np.concatenate([model.scores(data.numpy()[k : k + 1]) for k in range(20)])
    np.testing.assert_allclose(scores, alone, rtol=1e-4)
    noisy = model.scores(data.numpy(), test_noise=True)
    assert noisy.shape == (20,)
    assert not np.allclose(noisy, scores)


def test_resuming_gives_the_same_bits(
    data: torch.Tensor, tmp_path: Path, same_bits: Callable[..., None]
) -> None:
    model = ALCN(SMALL, 1)
    model.fit_scale(data)
    model.train_epoch(data)
    checkpoint.save(model.state_dict(), tmp_path / "state.pt")
    other = ALCN.load(tmp_path / "state.pt")
    for each in (model, other):
        each.train_epoch(data)
        each.should_stop(data)
    same_bits(model.state_dict(), other.state_dict())


def test_weights_come_from_the_seed_alone() -> None:
    torch.rand(3)
    first, second, third = ALCN(SMALL, 5), ALCN(SMALL, 5), ALCN(SMALL, 6)
    weights = [next(iter(model.denoiser.parameters())) for model in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_early_stopping_counts_epochs_without_progress(
    data: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ALCN(replace(SMALL, patience=2), 0)
    errors = iter([3.0, 2.0, 2.5, 1.0, 1.1, 1.2])
    monkeypatch.setattr(model, "scores", lambda images: np.array([next(errors)]))
    assert [model.should_stop(data) for _ in range(6)] == [False] * 5 + [True]


def blobs(count: int, images: int, seed: int) -> torch.Tensor:
    """Pictures (images, 1, 16, 16) uint8 of so many soft blobs at random places."""
    places = torch.rand((count, images, 2), generator=torch.Generator().manual_seed(seed)) * 12 + 2
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    away = (y - places[..., :1, None]) ** 2 + (x - places[..., 1:, None]) ** 2
    return (torch.exp(-away / 6).amax(dim=0)[:, None] * 255).to(torch.uint8)


def test_learnt_noise_makes_less_of_an_identity_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained on single blobs and fed four, the plain autoencoder copies most of them; ALCN's does not."""
    monkeypatch.setattr(networks, "_WIDTHS", (16, 32, 64))
    monkeypatch.setattr(networks, "_NOISE_WIDTHS", (32, 16, 8))
    monkeypatch.setattr(networks, "_BOTTLENECK", 128)
    normal, other, copied = blobs(1, 512, seed=0), blobs(4, 64, seed=1), {}
    for noise in ("none", "alcn"):
        model = ALCN(replace(SMALL, noise=noise, batch_size=32), 0)
        model.fit_scale(normal)
        for _ in range(20):
            model.train_epoch(normal)
        assert model.scores(blobs(1, 64, seed=2).numpy()).mean() < 0.6  # of 1: both have learnt their class
        power = float(model.standardize(other).square().mean())
        copied[noise] = 1 - model.scores(other.numpy()).mean() / power
    assert copied["none"] > 0.5
    assert copied["alcn"] < 0.25


def test_figures_that_are_not_finite_end_the_training(data: torch.Tensor) -> None:
    model = ALCN(replace(SMALL, noise="none", denoiser_lr=1e30), 0)
    with pytest.raises(TrainingError, match=r"error became (nan|inf) in epoch \d; lower the learning rates"):
        [model.train_epoch(data) for _ in range(5)]


def test_a_model_of_another_kind_of_device_loads(tmp_path: Path) -> None:
    model = ALCN(SMALL, 0)
    checkpoint.save(
        model.state_dict() | {"random": torch.zeros(16, dtype=torch.uint8)}, tmp_path / "model.pt"
    )
    loaded = ALCN.load(tmp_path / "model.pt")
    image = np.zeros((1, SMALL.channels, SMALL.size, SMALL.size), np.uint8)
    assert loaded.scores(image) == model.scores(image)
