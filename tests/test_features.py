"""Feature profiles: what is reconstructed beside RGB, what belongs to the detector, what is computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nbs_env import checkpoint, features
from nbs_env.autoencoder import FEATURE_WEIGHT, Autoencoder, AutoencoderTrainer, loss_maps
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.detect.encoder import Encoder, pretrained
from nbs_env.detector import Detector
from nbs_env.features import FINE, fine_encoder, fine_features
from nbs_env.full_learner import FullLearner
from nbs_env.learner import Learner
from nbs_env.networks import initialize
from nbs_env.predictor import Predictor, normalize, predict
from nbs_env.profiles import dihedral

CPU = torch.device("cpu")
SameBits = Callable[..., None]


@pytest.fixture
def described(config: Config) -> Config:
    """The smallest learner that reconstructs features."""
    return replace(config, reconstruct="features", snapshot_predictor="last")


def make(dataset: AnomalyDataset, config: Config, seed: int = 0) -> Learner:
    kind = FullLearner if config.evaluation == "full" else Learner
    return kind(dataset.images, np.array([0, 1]), dataset.masks[:2], config, CPU, seed)


def train(learner: Learner, dataset: AnomalyDataset, updates: int) -> list[dict[str, Any]]:
    """Updates on the same patches for the same update, whatever came before."""
    done = []
    for _ in range(updates):
        places = np.random.default_rng(learner.updates).integers((5, 65, 65), size=(5, 3))
        patches = np.stack([dataset.images[i, y : y + 64, x : x + 64] for i, y, x in places])
        done.append(vars(learner.update(patches, places)))
    return done


def tensors(dataset: AnomalyDataset) -> torch.Tensor:
    return torch.from_numpy(dataset.images).permute(0, 3, 1, 2)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through the encoder, a call an entry."""
    counted: list[int] = []
    forward = Encoder.forward

    def count(self: Encoder, images: torch.Tensor) -> list[torch.Tensor]:
        counted.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Encoder, "forward", count)
    return counted


# Features and their losses


def test_features_of_three_strides_lie_over_each_other(dataset: AnomalyDataset) -> None:
    images = tensors(dataset)[:2]
    found = fine_features(fine_encoder(CPU), images).float()
    whole = Encoder()
    whole.load_state_dict(pretrained())
    with torch.no_grad():
        two, four, eight, _ = (x.numpy() for x in whole(images[1:] / 255))
    assert found.shape == (2, FINE, 32, 32)
    for y, x in ((0, 0), (5, 18), (31, 30)):
        expected = np.concatenate(
            [two[0, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean(axis=(1, 2)), four[0, :, y, x]]
        )
        expected = np.concatenate([expected, eight[0, :, y // 2, x // 2]])
        np.testing.assert_allclose(found[1, :, y, x].numpy(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("grid", [(0, 0), (1, 0), (1, 1)])
def test_maps_of_rgb_are_as_without_features_and_those_of_features_as_a_slow_reference(
    grid: tuple[int, int], dataset: AnomalyDataset
) -> None:
    plain, both = Autoencoder(8, 4), Autoencoder(8, 4, 3)
    initialize(both, torch.Generator().manual_seed(0))
    both.grid.copy_(torch.tensor(grid))
    wanted = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).half() * 5 + 2
    both.learn_statistics(wanted[:1])
    weights = both.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    images = tensors(dataset)[:2]
    maps = loss_maps(both, images, torch.float32, wanted)
    assert maps.shape == (4, 128, 128)
    assert torch.equal(maps[:2], loss_maps(plain, images, torch.float32))

    rows, columns = 32 * grid[0], 32 * grid[1]
    mirrored = np.pad(
        images.numpy() / np.float32(255), ((0, 0), (0, 0), (rows,) * 2, (columns,) * 2), "reflect"
    )
    corners = [(y, x) for y in range(0, 128 + rows, 64) for x in range(0, 128 + columns, 64)]
    mean, std = (
        wanted[0].float().flatten(1).numpy().mean(1),
        wanted[0].float().flatten(1).numpy().std(1, ddof=1),
    )
    centres = np.arange(32) * 4 + 1.5
    for image in range(2):
        batch = np.stack([mirrored[image, :, y : y + 64, x : x + 64] for y, x in corners])
        with torch.no_grad():
            _, found = both.reconstruct(torch.from_numpy(batch))
        assert found is not None
        whole = np.zeros((3, mirrored.shape[2] // 4, mirrored.shape[3] // 4))
        for (y, x), tile in zip(corners, found.numpy(), strict=True):
            whole[:, y // 4 : y // 4 + 16, x // 4 : x // 4 + 16] = tile
        whole = whole[:, rows // 4 : rows // 4 + 32, columns // 4 : columns // 4 + 32]
        target = (wanted[image].float().numpy() - mean[:, None, None]) / std[:, None, None]
        error = ((whole - target) ** 2).mean(axis=0)
        lines = np.stack([np.interp(np.arange(128), centres, line) for line in error])
        expected = np.stack([np.interp(np.arange(128), centres, line) for line in lines.T]).T
        np.testing.assert_allclose(maps[2 + image].numpy(), expected, rtol=1e-3, atol=1e-4)


def test_each_kind_of_loss_has_a_scale_of_its_own() -> None:
    predictor = Predictor(3, 1, kinds=2)
    initialize(predictor, torch.Generator().manual_seed(0))
    assert predictor.features[0].in_channels == 6
    profiles = torch.rand(2, 6, 16, 16, generator=torch.Generator().manual_seed(1))
    louder = torch.cat([profiles[:, :3], profiles[:, 3:] * 64], dim=1)
    assert torch.equal(predict(predictor, profiles, torch.float32), predict(predictor, louder, torch.float32))
    np.testing.assert_allclose(normalize(louder, 2).reshape(2, 2, -1).mean(dim=2), 1, rtol=1e-5)
    assert torch.equal(normalize(profiles), profiles / profiles.mean(dim=(1, 2, 3), keepdim=True))


def test_both_losses_are_trained() -> None:
    generator = torch.Generator().manual_seed(4)
    patches = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator)
    wanted = told_from(patches)
    trainer = AutoencoderTrainer(8, 1e-2, CPU, torch.float32, 4, 2)
    trainer.reinitialize(generator)

    def losses() -> tuple[float, float]:
        with torch.no_grad():
            rgb, found = trainer.network.reconstruct(patches / 255)
        assert found is not None
        return float((rgb - patches / 255).square().mean()), float((found - wanted).square().mean())

    before = losses()
    assert trainer.train(patches, 4, wanted) == pytest.approx(
        before[0] + FEATURE_WEIGHT * before[1], rel=1e-4
    )
    for _ in range(25):
        trainer.train(patches, 4, wanted)
    assert losses()[0] < 0.8 * before[0]
    assert losses()[1] < 0.8 * before[1]


def told_from(patches: torch.Tensor) -> torch.Tensor:
    """Something (N, 2, 16, 16) that can be told from patches: their red, and the lack of blue."""
    small = torch.nn.functional.avg_pool2d(patches / 255, 4)
    return torch.stack([small[:, 0] - 0.5, 0.5 - small[:, 2]], dim=1) * 10


# The learner


def test_patches_and_features_are_cut_on_the_same_grid_and_turned_alike(
    dataset: AnomalyDataset, described: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make(dataset, described)
    given: list[torch.Tensor] = []

    def record(patches: torch.Tensor, minibatch_size: int, wanted: torch.Tensor) -> float:
        given.extend([patches, wanted])
        return 1.0

    monkeypatch.setattr(learner.trainer, "train", record)
    places = np.array([[i % 5, y, x] for i in range(8) for y, x in ((0, 64), (3, 4), (60, 29))])
    learner.update(np.zeros((24, 64, 64, 3), np.uint8), places)
    on_grid = {0: 0, 64: 64, 3: 0, 4: 8, 60: 64, 29: 32}
    whole, used = fine_features(fine_encoder(CPU), tensors(dataset)), set()
    for (image, *corner), patch, wanted in zip(places, *given, strict=True):
        top, left = (on_grid[int(at)] for at in corner)
        source = tensors(dataset)[image, :, top : top + 64, left : left + 64]
        (symmetry,) = [k for k in range(8) if torch.equal(patch, dihedral(source, k))]
        there = whole[image, :, top // 4 : top // 4 + 16, left // 4 : left // 4 + 16]
        assert torch.equal(wanted, dihedral(there, symmetry))
        used.add(symmetry)
    assert len(used) > 4
    with pytest.raises(ValueError, match="places is None; features are reconstructed, so say where"):
        learner.update(np.zeros((24, 64, 64, 3), np.uint8))


def test_features_of_an_image_are_computed_once(
    dataset: AnomalyDataset, described: Config, calls: list[int]
) -> None:
    learner = make(dataset, described)
    assert calls == [1, 1]  # the labelled images', for the statistics
    standard = learner.trainer.network.standardized(learner.features.of(learner.labeled))  # type: ignore[union-attr]
    np.testing.assert_allclose(standard.mean(dim=(0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(standard.std(dim=(0, 2, 3)), 1, atol=1e-3)
    for _ in range(7):
        train(learner, dataset, 1)
        for image in (0, 3, 4):
            assert learner.loss_map(image).shape == (128, 128)
    learner.restart(1)
    train(learner, dataset, 4)
    learner.best_profiles(np.arange(5))
    assert calls == [1] * 5


@pytest.mark.parametrize("evaluation", ["lazy", "full"])
def test_state_goes_on_with_the_same_bits(
    evaluation: str,
    dataset: AnomalyDataset,
    described: Config,
    same_bits: SameBits,
    tmp_path: Path,
) -> None:
    config = replace(described, evaluation=evaluation, precision="auto")  # type: ignore[arg-type]
    learner, other = make(dataset, config), make(dataset, config, seed=9)
    train(learner, dataset, 7)
    checkpoint.save(learner.state_dict(), tmp_path / "state.pt")
    train(other, dataset, 2)
    other.load_state_dict(checkpoint.load(tmp_path / "state.pt"))
    same_bits(train(learner, dataset, 5), train(other, dataset, 5))
    same_bits(learner.state_dict(), other.state_dict())


def test_lazy_equals_full(dataset: AnomalyDataset, described: Config, same_bits: SameBits) -> None:
    lazy, full = make(dataset, described), make(dataset, replace(described, evaluation="full"))
    same_bits(train(lazy, dataset, 8), train(full, dataset, 8))
    for profiles, theirs in zip(*(x.best_profiles(np.arange(2, 5)) for x in (lazy, full)), strict=True):
        assert profiles.shape == (3, 6, 128, 128)
        assert torch.equal(profiles, theirs)
    for image in (0, 4):
        assert torch.equal(lazy.loss_map(image), full.loss_map(image))


def test_predictor_finds_what_only_the_features_losses_tell(
    dataset: AnomalyDataset, described: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RGB's losses are the same everywhere; the features' fall slower where masks are."""
    config = replace(described, reinit_period=20, predictor_updates=2, predictor_lr=0.01, predictor_width=1)
    learner = make(dataset, config)
    masks = torch.from_numpy(dataset.masks).float()

    def measure(indices: np.ndarray) -> torch.Tensor:
        slow = torch.where(masks[torch.from_numpy(indices)] > 0, 0.9, 0.6)
        return torch.cat([torch.full_like(slow, 0.6), slow]) ** learner.age

    monkeypatch.setattr(learner, "_measure", measure)
    losses = [r["prediction_loss"] for r in train(learner, dataset, 20) if r["prediction_loss"] is not None]
    assert losses[-1] < 0.5 * losses[0]
    rgb = torch.stack([torch.full((3, 128, 128), 0.6**t) for t in range(17, 20)], dim=1)
    slow = torch.stack([torch.where(masks[2:] > 0, 0.9, 0.6) ** t for t in range(17, 20)], dim=1)
    predicted = predict(learner.predictor, torch.cat([rgb, slow], dim=1), torch.float32) > 0
    recall, false_alarms = (predicted[masks[2:] == value].float().mean() for value in (1, 0))
    assert recall > 0.9
    assert false_alarms < 0.1


# The detector


def test_statistics_are_the_detectors(
    dataset: AnomalyDataset, described: Config, calls: list[int], tmp_path: Path
) -> None:
    learner = make(dataset, described)
    train(learner, dataset, 8)
    rings = [list(snapshot.ring) for snapshot in learner.snapshots]
    assert len(rings) == 2
    made = Detector(rings, learner.predictor.state_dict(), 128, "float32", CPU)
    expected = made.from_profiles(learner.best_profiles(np.arange(5)))
    made.save(tmp_path / "detector.pt")
    loaded = Detector.load(tmp_path / "detector.pt")
    calls.clear()
    np.testing.assert_array_equal(loaded.probabilities(dataset.images), expected)
    assert calls == [1] * 5  # not once a ring or autoencoder
    (prediction,) = loaded.predict(dataset.images[4])
    np.testing.assert_array_equal(prediction.probability, expected[4])

    state = checkpoint.load(tmp_path / "detector.pt")
    for ring in state["rings"]:
        for weights in ring:
            assert torch.equal(weights["feature_mean"], learner.trainer.network.feature_mean)
            weights["feature_mean"] = weights["feature_mean"] + 10
    checkpoint.save(state, tmp_path / "detector.pt")
    other = Detector.load(tmp_path / "detector.pt").probabilities(dataset.images)
    assert not np.array_equal(other, expected)


def test_more_images_than_are_kept_give_the_same(
    dataset: AnomalyDataset, described: Config, monkeypatch: pytest.MonkeyPatch, same_bits: SameBits
) -> None:
    whole = train(make(dataset, described), dataset, 4)
    monkeypatch.setattr(features, "KEPT", 1)
    same_bits(train(make(dataset, described), dataset, 4), whole)
