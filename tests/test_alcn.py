"""ALCN: sizes, the blend, who learns when, what noise does to an autoencoder, and its command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import moved

from baselines.alcn import __main__ as command
from baselines.alcn import trainer
from baselines.alcn.trainer import ALCN, NOISES, ALCNConfig, Denoiser, NoiseGenerator, blend
from nbs_env.common import checkpoint
from nbs_env.common.errors import TrainingError
from nbs_env.detect.metrics import image_auroc

SMALL = ALCNConfig(size=16, batch_size=8, denoiser_lr=1e-3, noise_lr=1e-3)


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of the same layers in a hundredth of the time."""
    monkeypatch.setattr(trainer, "_WIDTHS", (8, 16, 16))
    monkeypatch.setattr(trainer, "_NOISE_WIDTHS", (16, 16, 8, 8))


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
    assert 0 <= noise.min() <= noise.max() <= 1


def test_blend_by_hand_and_its_alpha() -> None:
    images, noise = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.5])
    torch.testing.assert_close(blend(images, noise, torch.tensor(0.2)), torch.tensor([0.6, 0.2]))
    torch.testing.assert_close(blend(images, noise, torch.tensor(1.0)), images)
    model = ALCN(SMALL, 0)
    draws = torch.stack([model.draw_alpha() for _ in range(2000)])
    assert (float(draws.min()), float(draws.max())) == pytest.approx((0.2, 0.9), abs=0.01)


def test_noises_are_what_they_are_called(data: torch.Tensor) -> None:
    images = torch.zeros(50, 3, 16, 16)
    generator = torch.Generator().manual_seed(0)
    models = {name: ALCN(replace(SMALL, noise=name, channels=3), 0) for name in NOISES}
    assert models["none"].draw_noise(images, generator) is None
    speckle, gaussian, learnt = (
        model.draw_noise(images, generator) for name, model in models.items() if name != "none"
    )
    assert speckle is not None
    assert gaussian is not None
    assert learnt is not None
    assert set(speckle.unique().tolist()) == {0.0, 1.0}
    assert float(speckle.mean()) == pytest.approx(0.5, abs=0.02)
    assert (speckle[:, 0] == speckle[:, 2]).all()
    assert float(gaussian.std()) == pytest.approx(0.5, abs=0.01)
    assert 0 <= learnt.min() <= learnt.max() <= 1
    assert float((learnt[0] - learnt[1]).abs().mean().detach()) > 0  # continuous, and another one each time


def test_each_step_moves_its_own_network(data: torch.Tensor) -> None:
    model = ALCN(SMALL, 0)
    images = model.standardize(data)
    for name, sign in (("noise", -1), ("denoiser", 1)):
        loss = sign * model.error(images, torch.tensor(0.5))
        assert moved(model, partial(model.descend, loss, name)) == {name}


def test_noise_raises_the_error_and_the_denoiser_lowers_it(data: torch.Tensor) -> None:
    """Each alone against the other held still, on the same draws."""
    errors = {}
    for name, sign in (("noise", -1), ("denoiser", 1)):
        model = ALCN(replace(SMALL, noise_lr=3e-2), 0)
        images, alpha = model.standardize(data), torch.tensor(0.4)
        values = []
        for _ in range(60):
            loss = model.error(images, alpha)
            values.append(float(loss.detach()))
            model.descend(sign * loss, name)
        errors[name] = np.mean(values[-5:]) - np.mean(values[:5])
    assert errors["noise"] > 0
    assert errors["denoiser"] < 0


def test_images_are_standardised(data: torch.Tensor) -> None:
    data = data // torch.arange(1, 21, dtype=torch.uint8)[:, None, None, None]  # of many contrasts
    model = ALCN(SMALL, 0)
    values = model.standardize(data)
    torch.testing.assert_close(values.mean((1, 2, 3)), torch.zeros(20), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std((1, 2, 3)), torch.ones(20), atol=1e-3, rtol=0)
    flat = torch.full((1, 1, 16, 16), 7, dtype=torch.uint8)
    assert not model.standardize(flat).any()


@pytest.mark.parametrize("test_noise", [False, True])
def test_errors_are_of_each_image_alone(test_noise: bool, data: torch.Tensor) -> None:
    model = ALCN(SMALL, 0)
    model.advance(data)
    before = model.random.get_state()
    together = model.errors(data.numpy(), test_noise)
    alone = [model.errors(data.numpy()[k : k + 1], test_noise) for k in range(20)]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), rtol=1e-4)
    assert torch.equal(model.random.get_state(), before)  # looking changes nothing


def test_errors_by_hand(data: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A denoiser that answers with its input: no error when clean, and the blend's distance under noise."""
    model = ALCN(replace(SMALL, noise="gaussian", test_draws=2), 0)
    monkeypatch.setattr(model, "denoiser", torch.nn.Identity())
    assert model.errors(data.numpy()).squared == pytest.approx(0, abs=1e-10)
    (low, first), (high, second) = model.test_noises()
    assert (float(low), float(high)) == pytest.approx((0.2, 0.9))
    values = data.float() / 255
    std, mean = torch.std_mean(values, dim=(1, 2, 3), keepdim=True)
    wanted = (values - mean) / std
    blends = (low, first), (high, second)
    each = [((1 - a) * (n - wanted) * std).square().mean((1, 2, 3)) for a, n in blends]
    found = model.errors(data.numpy(), test_noise=True)
    np.testing.assert_allclose(found.squared, torch.stack(each).mean(0).numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.relative, found.squared / values.var((1, 2, 3)).numpy(), rtol=1e-4)


def test_resuming_gives_the_same_bits(
    data: torch.Tensor, tmp_path: Path, same_bits: Callable[..., None]
) -> None:
    model, other = ALCN(SMALL, 1), ALCN(SMALL, 2)
    model.held_out = other.held_out = data.numpy()
    model.advance(data)
    checkpoint.save(model.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(checkpoint.load(tmp_path / "state.pt"))
    for each in (model, other):
        each.advance(data)
    assert other.done == 2
    same_bits(model.state_dict(), other.state_dict())


def test_weights_come_from_the_seed_alone() -> None:
    torch.rand(3)
    weights = [next(iter(ALCN(SMALL, seed).denoiser.parameters())) for seed in (5, 5, 6)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_early_stopping_counts_epochs_without_progress(thin: None) -> None:
    model, seen = ALCN(replace(SMALL, patience=2), 0), []
    for error in (3.0, 2.0, 2.5, 1.0, 1.1, 1.2):
        model.watch(error)
        seen.append(model.finished)
    assert seen == [False] * 5 + [True]


def test_learning_rates_follow_the_cosine(data: torch.Tensor) -> None:
    model = ALCN(replace(SMALL, schedule="cosine", epochs=4), 0)
    for epoch in range(4):  # two batches each
        model.advance(data)
        factor = (1 + np.cos(np.pi * (epoch + 0.5) / 4)) / 2
        rates = [optimizer.param_groups[0]["lr"] for optimizer in model.optimizers.values()]
        assert rates == pytest.approx([1e-3 * factor] * 2)


def blobs(count: int, images: int, seed: int) -> torch.Tensor:
    """Pictures (images, 1, 16, 16) uint8 of so many soft blobs at random places."""
    places = torch.rand((count, images, 2), generator=torch.Generator().manual_seed(seed)) * 12 + 2
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    away = (y - places[..., :1, None]) ** 2 + (x - places[..., 1:, None]) ** 2
    return (torch.exp(-away / 6).amax(dim=0)[:, None] * 255).to(torch.uint8)


@pytest.fixture(scope="module")
def easy() -> ALCN:
    """ALCN of single blobs."""
    config = replace(SMALL, batch_size=32, bottleneck=8, width=0.25, noise_width=0.05)
    model = ALCN(config, 0)
    for _ in range(20):
        model.advance(blobs(1, 512, seed=0))
    return model


def test_the_denoiser_undoes_the_learnt_noise(easy: ALCN, monkeypatch: pytest.MonkeyPatch) -> None:
    images = blobs(1, 64, seed=2).numpy()
    after = easy.errors(images, test_noise=True).relative.mean()
    monkeypatch.setattr(easy, "denoiser", torch.nn.Identity())
    before = easy.errors(images, test_noise=True).relative.mean()
    assert after < before / 2


@pytest.mark.parametrize("alpha", [1.0, 0.9, 0.5])
def test_an_easy_set_is_easy_at_any_contrast(alpha: float, easy: ALCN) -> None:
    """BatchNorm's running averages fail here, with an AUC near 0 for clean images."""
    normal, other = blobs(1, 64, seed=2), blobs(4, 64, seed=1)
    noise = torch.full((1, 1, 16, 16), 0.5)
    wanted = easy.standardize(torch.cat([normal, other]))
    again = easy.reconstruct(blend(wanted, noise, torch.tensor(alpha)))
    scores = (again - wanted).square().mean((1, 2, 3)).numpy()
    assert (image_auroc(scores, np.repeat([False, True], 64)) or 0) > 0.95


def test_figures_that_are_not_finite_end_the_training(data: torch.Tensor) -> None:
    model = ALCN(replace(SMALL, noise="none", denoiser_lr=1e30), 0)
    with pytest.raises(TrainingError, match=r"error became (nan|inf) in epoch \d; lower the learning rates"):
        [model.check(model.advance(data)) for _ in range(5)]


def test_a_model_of_another_kind_of_device_loads() -> None:
    model, loaded = ALCN(SMALL, 0), ALCN(SMALL, 1)
    loaded.load_state_dict(model.state_dict() | {"random": torch.zeros(16, dtype=torch.uint8)})
    image = np.zeros((1, SMALL.channels, SMALL.size, SMALL.size), np.uint8)
    assert loaded.errors(image) == model.errors(image)


@pytest.fixture
def main(thin: None, noise_classes: Path, tmp_path: Path) -> Callable[..., None]:
    tiny = "--dataset folder --model.size 16 --model.epochs 4 --checkpoint-every 2 --device cpu"
    line = [*tiny.split(), "--data-root", str(noise_classes), "--run-dir", str(tmp_path / "run")]
    return lambda *words: command.main([*line, *map(str, words)])


@pytest.mark.parametrize("protocol", [1, 2])
def test_both_protocols(
    protocol: int, main: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main("--protocol", protocol, "--noise", "alcn,none", "--classes", "a,c")
    out = capsys.readouterr().out
    assert "|  | a | c | mean |" in out
    titles = [line.split("|")[1].strip() for line in out.splitlines()[2:]]
    kinds = ("alcn, test noise", "alcn", "alcn, test noise, relative error", "alcn, relative error")
    assert titles == [
        *(title for kind in kinds for title in (kind, f"{kind}, less none")),
        *("none", "none, relative error"),
    ]
    for noise in ("alcn", "none"):
        for name in ("checkpoint.pt", "metrics.json", "pictures.png"):
            assert (tmp_path / "run" / noise / "c" / name).stat().st_size > 0
    state = checkpoint.load(tmp_path / "run" / "alcn" / "a" / "checkpoint.pt")
    assert state["done"] == 4


def test_noise_is_compared_with_none_class_by_class() -> None:
    """t with one degree of freedom is 12.706, and the standard error of 0.1 and 0.3 is 0.1."""
    results = {
        "none": {name: {"auc": 0.6, "auc_relative": 0.7} for name in "ab"},
        "speckle": {"a": {"auc": 0.7, "auc_relative": 0.7}, "b": {"auc": 0.9, "auc_relative": 0.7}},
    }
    lines = command.table(command.Args(dataset="folder"), results).splitlines()
    assert "| speckle, less none | +0.100 | +0.300 | +0.200 [-1.071, +1.471] |" in lines


def test_a_model_whose_patience_ran_out_is_only_scored_again(
    main: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--classes", "a", "--noise", "none", "--model.patience", 1)
    watch = ALCN.watch
    monkeypatch.setattr(ALCN, "watch", lambda self, _: watch(self, 1.0))  # never better
    main(*words)
    file = tmp_path / "run" / "none" / "a" / "checkpoint.pt"
    assert checkpoint.load(file)["done"] == 2
    written = file.stat().st_mtime_ns
    main(*words, "--resume")
    assert file.stat().st_mtime_ns == written
