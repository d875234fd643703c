"""What Algorithm 1 does after the patches: lazy is full, snapshots are the best, a state goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SameBits, fast_bfloat16

from nbs_env.autoencoder import GRIDS
from nbs_env.common import checkpoint
from nbs_env.common.errors import TrainingError
from nbs_env.common.symmetries import dihedral
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.detect.detector import Detector
from nbs_env.learner import AutoencoderUpdate, Learner
from nbs_env.predictor import predict, prediction_loss
from nbs_env.profiles import Snapshot
from nbs_env.rewards import Outcome

CPU = torch.device("cpu")


def make(dataset: AnomalyDataset, config: Config, seed: int = 0, **changes: Any) -> Learner:
    config = replace(config, **changes)
    return Learner(dataset.images, np.array([0, 1]), dataset.masks[:2], config, CPU, seed)


class FullLearner(Learner):
    """Algorithm 1 to the letter: all images are measured after every update, the best profiles saved."""

    def restart(self, seed: int) -> None:
        super().restart(seed)
        self.newest: list[torch.Tensor] = []  # maps of all images, oldest first
        self.saved: dict[int, torch.Tensor] = {}  # update -> profiles of all images

    def _measure_all(self) -> torch.Tensor:
        maps = self._measure(np.arange(len(self.images)))
        self._maps = dict(enumerate(maps))
        kept = self.config.profile_length if self.ring else 1  # the ring is emptied where a cycle ends
        self.newest = [*self.newest, maps][-kept:]
        return maps[torch.from_numpy(self.labeled)]

    def _snapshot(self, loss: float) -> Snapshot:
        self.saved[self.updates] = torch.stack(self.newest, dim=1)
        return super()._snapshot(loss)


def patches_of(dataset: AnomalyDataset, update: int, count: int) -> np.ndarray:
    """The same patches for the same update, whatever came before."""
    rng = np.random.default_rng(update)
    places = zip(rng.integers(5, size=count), *rng.integers(65, size=(2, count)), strict=True)
    return np.stack([dataset.images[i, y : y + 64, x : x + 64] for i, y, x in places])


def train(learner: Learner, dataset: AnomalyDataset, updates: int) -> list[AutoencoderUpdate]:
    count = learner.config.episode_length
    return [learner.update(patches_of(dataset, learner.updates, count)) for _ in range(updates)]


# Lazy and full


@pytest.mark.parametrize(
    ("updates", "changes"),
    [
        (13, {}),
        pytest.param(13, {"precision": "bfloat16"}, marks=fast_bfloat16),
        (4, {"episode_length": 2, "autoencoder_width": 64}),  # Table 4.2's
    ],
)
def test_lazy_equals_full(
    updates: int, changes: dict[str, Any], dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    config, labeled = replace(config, **changes), np.array([0, 1])
    lazy, full = (
        kind(dataset.images, labeled, dataset.masks[:2], config, CPU, 0) for kind in (Learner, FullLearner)
    )
    assert isinstance(full, FullLearner)
    for update in range(updates):
        lazy.loss_map(update % 5)  # an agent looks at some images and not at others
        same_bits(*(vars(train(learner, dataset, 1)[0]) for learner in (lazy, full)))
    for image in (4, 0, 2):
        np.testing.assert_array_equal(lazy.loss_map(image), full.loss_map(image))
    images = lazy.images[2:]
    assert [s.update for s in lazy.snapshots] == [s.update for s in full.snapshots]
    assert len(lazy.snapshots) == min(2, 1 + updates // config.reinit_period)
    measured = [full.saved[snapshot.update][2:] for snapshot in lazy.snapshots]
    for snapshot, expected in zip(lazy.snapshots, measured, strict=True):
        assert torch.equal(lazy.meter.measure(snapshot.ring, images), expected)
    rings = [snapshot.ring for snapshot in lazy.snapshots]
    predictors = [lazy.predictor.state_dict()] * len(rings)
    detector = Detector(rings, predictors, config.image_size, config.precision, CPU)
    np.testing.assert_array_equal(
        detector.probabilities(dataset.images[2:]), detector.from_profiles(measured)
    )


def test_lazy_measures_an_image_once_an_update_and_only_when_asked(
    dataset: AnomalyDataset, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make(dataset, config)
    measured: list[int] = []
    measure = learner._measure

    def record(indices: np.ndarray) -> torch.Tensor:
        measured.extend(indices.tolist())
        return measure(indices)

    monkeypatch.setattr(learner, "_measure", record)
    train(learner, dataset, 1)
    for image in (0, 3, 3, 1, 0):
        learner.loss_map(image)
    assert measured == [0, 1, 3]
    before = learner.loss_map(3)
    train(learner, dataset, 1)
    assert not np.array_equal(before, learner.loss_map(3))
    assert measured == [0, 1, 3, 0, 1, 3]


# Cycles and snapshots


def test_autoencoder_is_thrown_away_every_period(dataset: AnomalyDataset, config: Config) -> None:
    learner = make(dataset, config)
    starts = []
    for update in range(1, 13):
        if learner.age == 0:
            starts.append(learner.trainer.network.state_dict()["encoder.0.0.weight"].clone())
            states = learner.trainer.optimizer.state.values()
            assert not any(value.any() for state in states for value in state.values())
            assert not learner.ring
        assert learner.warmup == (learner.age < 2)
        before = learner.loss_map(2).clone()
        (result,) = train(learner, dataset, 1)
        assert result.update == learner.updates == update
        assert result.reinitialized == (update % 5 == 0)
        assert (result.prediction_loss is None) == (learner.age in (1, 2))  # T = 3 losses are needed
        assert (result.buffer_loss is None) == (update < 3)
        assert not np.array_equal(before, learner.loss_map(2))
    assert len(starts) == 3
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])


def test_prediction_loss_is_of_the_newest_profiles_after_the_predictors_step(
    dataset: AnomalyDataset, config: Config
) -> None:
    learner = make(dataset, config)
    result = train(learner, dataset, 4)[-1]
    profiles = learner.meter.measure(learner.ring, learner.images[:2]).half().float()
    masks = torch.from_numpy(dataset.masks[:2])
    normal, anomalous = int((~masks).sum()), int(masks.sum())
    expected = prediction_loss(
        predict(learner.predictor, profiles, torch.float32), masks, (normal / anomalous, 1.0)
    )
    assert result.prediction_loss == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("predictor", ["moment", "last"])
@pytest.mark.parametrize("ranked", ["buffer", "current"])
def test_snapshots_are_the_best_moments_of_the_best_cycles(
    ranked: str, predictor: str, dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    learner = make(dataset, config, snapshot_profiles=ranked, snapshot_predictor=predictor)
    predictors: dict[int, Any] = {}
    losses: dict[int, float] = {}
    profiles: dict[int, torch.Tensor] = {}
    newest = learner.buffer.newest
    for update in range(1, 19):
        (result,) = train(learner, dataset, 1)
        if result.prediction_loss is not None:
            loss = result.prediction_loss if ranked == "current" else result.buffer_loss
            assert loss is not None
            losses[update] = loss
            predictors[update] = {n: v.clone() for n, v in learner.predictor.state_dict().items()}
            found = newest()
            assert found is not None
            profiles[update] = found
        cycles = [[u for u in losses if (u - 1) // 5 == cycle] for cycle in range(4)]
        best = [min(cycle, key=lambda u: losses[u]) for cycle in cycles if cycle]
        expected = sorted(best, key=lambda u: losses[u])[:2]
        assert [s.update for s in learner.snapshots] == expected
        assert [s.prediction_loss for s in learner.snapshots] == [losses[u] for u in expected]
    for snapshot in learner.snapshots:
        again = learner.meter.measure(snapshot.ring, learner.images[:2])
        assert torch.equal(again.half().float(), profiles[snapshot.update])
        same_bits(snapshot.predictor, predictors[snapshot.update] if predictor == "moment" else None)


def test_a_reward_of_ones_own_is_of_the_labelled_images_after_the_update(
    dataset: AnomalyDataset, config: Config
) -> None:
    seen: list[Outcome] = []

    def reward(outcome: Outcome) -> float:
        seen.append(outcome)
        return 7.0

    masks = dataset.masks[:2]
    learner = Learner(dataset.images, np.array([0, 1]), masks, config, CPU, 0, reward)
    for _ in range(7):
        (update,) = train(learner, dataset, 1)
        warmup = (update.update - 1) % config.reinit_period < config.warmup_updates
        assert update.R_pred == (0.0 if warmup else 7.0)
        if not warmup:
            outcome = seen.pop()
            assert outcome.loss == update.buffer_loss
            weights = learner.weights
            assert float(prediction_loss(outcome.logits, outcome.masks, weights)) == update.prediction_loss
            np.testing.assert_array_equal(outcome.masks, masks)
            if not update.reinitialized:
                assert torch.equal(outcome.maps, torch.stack([learner.loss_map(image) for image in (0, 1)]))
    assert not seen


# Learning


@pytest.mark.parametrize("crop", [0, 64])
def test_predictor_learns_profiles_that_tell_anomalies_apart(
    crop: int, dataset: AnomalyDataset, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses of anomalous pixels fall slower, which is learnt only where masks are turned with profiles."""
    config = replace(config, reinit_period=20, predictor_updates=2, predictor_crop=crop, predictor_lr=0.01)
    learner = make(dataset, replace(config, predictor_width=1))
    masks = torch.from_numpy(dataset.masks).float()

    def measure(indices: np.ndarray) -> torch.Tensor:
        decay = torch.where(masks[torch.from_numpy(indices)] > 0, 0.9, 0.6)
        return decay**learner.age

    monkeypatch.setattr(learner, "_measure", measure)
    losses = [r.prediction_loss for r in train(learner, dataset, 20) if r.prediction_loss is not None]
    assert losses[-1] < 0.3 * losses[0]
    unseen = torch.stack([torch.where(masks[2:] > 0, 0.9, 0.6) ** t for t in range(17, 20)], dim=1)
    predicted = predict(learner.predictor, unseen, torch.float32) > 0
    recall, false_alarms = (predicted[masks[2:] == value].float().mean() for value in (1, 0))
    assert recall > 0.9
    assert false_alarms < 0.1


@pytest.mark.parametrize(
    ("seams", "expected"),
    [("still", [0] * 8), ("moving", [0, 1, 2, 3, 0, 1, 2, 3])],
)
def test_where_seams_lie(seams: str, expected: list[int], dataset: AnomalyDataset, config: Config) -> None:
    learner = make(dataset, replace(config, reinit_period=4), seams=seams)
    for update, number in enumerate(expected, start=1):
        train(learner, dataset, 1)
        assert update % 4 == 0 or tuple(learner.ring[-1]["grid"].tolist()) == GRIDS[number]
    learner.restart(0)
    assert learner.trainer.network.grid.tolist() == [0, 0]


def test_patches_are_trained_on_under_random_symmetries(
    dataset: AnomalyDataset, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make(dataset, config)
    given: list[torch.Tensor] = []

    def record(patches: torch.Tensor, minibatch_size: int) -> float:
        given.append(patches)
        return 1.0

    monkeypatch.setattr(learner.trainer, "train", record)
    patches = patches_of(dataset, 0, 60)
    learner.update(patches)
    used = []
    for patch, source in zip(given[0], torch.from_numpy(patches).permute(0, 3, 1, 2), strict=True):
        (symmetry,) = [k for k in range(8) if torch.equal(patch, dihedral(source, k))]
        used.append(symmetry)
    assert set(used) == set(range(8))


# State


@pytest.mark.parametrize("updates", [0, 3, 5, 8])
def test_state_goes_on_with_the_same_bits(
    updates: int, dataset: AnomalyDataset, config: Config, same_bits: SameBits, tmp_path: Path
) -> None:
    learner = make(dataset, config, precision="auto")
    train(learner, dataset, updates)
    maps = learner.state_dict()["buffer"]["maps"]
    assert maps.untyped_storage().nbytes() == maps.nbytes  # no more is stored than is there
    checkpoint.save(learner.state_dict(), tmp_path / "state.pt")
    other = make(dataset, config, seed=9, precision="auto")
    train(other, dataset, 2)
    other.load_state_dict(checkpoint.load(tmp_path / "state.pt"))
    for image in (0, 4):
        np.testing.assert_array_equal(learner.loss_map(image), other.loss_map(image))
    same_bits([vars(r) for r in train(learner, dataset, 8)], [vars(r) for r in train(other, dataset, 8)])
    same_bits(learner.state_dict(), other.state_dict())


def test_restart_is_a_new_learner(dataset: AnomalyDataset, config: Config, same_bits: SameBits) -> None:
    used, new = make(dataset, config, seed=1), make(dataset, config, seed=2)
    train(used, dataset, 7)
    used.restart(2)
    same_bits(*([vars(r) for r in train(learner, dataset, 7)] for learner in (used, new)))
    same_bits(used.state_dict(), new.state_dict())


def test_probability_needs_a_whole_profile_and_changes_nothing(
    dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    asked, left_alone = make(dataset, config), make(dataset, config)
    for _ in range(7):
        probability = asked.probability(3)
        assert (probability is None) == (asked.age < 3)
        if probability is not None:
            assert probability.shape == (128, 128)
            assert 0 <= probability.min() < probability.max() <= 1
        same_bits(*(vars(train(learner, dataset, 1)[0]) for learner in (asked, left_alone)))


# Failure


@pytest.mark.parametrize("network", ["autoencoder", "predictor"])
def test_a_loss_that_is_no_number_names_its_setting(
    network: str, dataset: AnomalyDataset, config: Config
) -> None:
    learner = make(dataset, config)
    train(learner, dataset, 2)
    weights = {
        "autoencoder": learner.trainer.network.state_dict()["encoder.0.0.bias"],
        "predictor": learner.predictor.state_dict()["output.bias"],
    }
    with torch.no_grad():
        weights[network].fill_(torch.inf)
    with pytest.raises(TrainingError, match=rf"at update 3; lower {network}_lr \(0\.001\)"):
        train(learner, dataset, 1)
