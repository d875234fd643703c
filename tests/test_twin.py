"""Rewards that compare: the twin leaves no trace, separation is what maps say, shaping sums to nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.base import play_episode
from agents.heuristics import Random
from nbs_env import checkpoint, rewards
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv
from nbs_env.learner import Learner
from nbs_env.task import play
from nbs_env.twin import random_patches, untouched
from nbs_env.vector import PatchSamplingVectorEnv
from nbs_env.wrappers import Alone

SameBits = Callable[..., None]


def make(dataset: AnomalyDataset, config: Config, **changes: Any) -> PatchSamplingEnv:
    env = PatchSamplingEnv(dataset, ["0", "1"], replace(config, **changes), "cpu")
    env.reset(seed=3)
    return env


def learn(env: PatchSamplingEnv, episodes: int) -> list[dict[str, Any]]:
    sampler = Random(env, 0)
    return [play_episode(env, sampler.act) for _ in range(episodes)]


@pytest.mark.parametrize("evaluation", ["lazy", "full"])
def test_rewards_leave_the_learner_alone(
    evaluation: str, dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    """Through a re-initialisation and a full buffer; the first update that pays is the predictor's first."""
    env = make(dataset, config, evaluation=evaluation)
    usual = learn(env, 9)
    for reward in ("difference", "shaped_separation"):
        other = make(dataset, config, evaluation=evaluation, reward=reward)
        infos = learn(other, 9)
        same_bits(env.learner.state_dict(), other.learner.state_dict())
        for image in range(5):
            assert torch.equal(env.learner.loss_map(image), other.learner.loss_map(image))
        assert all(info["R_pred"] == 0 for info in infos if info["warmup"])
        paid = [info for info in infos if not info["warmup"]]
        assert len({info["R_pred"] for info in paid}) == len(paid) == 5
        for a, b in zip(usual, infos, strict=True):
            same_bits(a, {name: b[name] for name in a} | {"R_pred": a["R_pred"]})


@pytest.mark.parametrize("updates", [0, 4, 8])
def test_untouched_is_as_before(
    updates: int, dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    """Even before the first step, and if the update within re-initialises the autoencoder (the fifth)."""
    env = make(dataset, config)
    learn(env, updates)
    before = copy.deepcopy(env.learner.state_dict())
    with untouched(env.learner):
        env.learner.update(*random_patches(env.learner, 5))
        assert env.learner.updates == updates + 1
    after = env.learner.state_dict()
    for state in (before, after):  # moments of 0 are to Adam as good as none
        for name in ("autoencoder_optimizer", "predictor_optimizer"):
            moments = [value for each in state[name].pop("state").values() for value in each.values()]
            state[name]["moments"] = [value for value in moments if value.any()]
    same_bits(before, after)


def test_a_learner_that_gets_its_twins_patches_earns_nothing(dataset: AnomalyDataset, config: Config) -> None:
    """Both draw the same symmetries and profiles, so that only the patches make a difference."""
    env = make(dataset, config, reward="difference")
    learn(env, 3)
    assert env.learner.update(*random_patches(env.learner, 5)).R_pred == 0
    assert env.learner.update(np.zeros((5, 64, 64, 3), np.uint8)).R_pred != 0


def test_random_patches_come_from_the_images_that_are_walked_over(
    dataset: AnomalyDataset, config: Config
) -> None:
    for images, among in (("all", 5), ("labeled", 2)):
        learner = make(dataset, config, training_images=images).learner
        patches, _ = random_patches(learner, 40)
        np.testing.assert_array_equal(patches, random_patches(learner, 40)[0])  # nothing was drawn from it
        views = np.lib.stride_tricks.sliding_window_view(dataset.images, (64, 64), axis=(1, 2))
        found = {
            image
            for patch in patches
            for image in range(5)
            if (views[image, :, :, :, :2, :2] == patch[:2, :2].transpose(2, 0, 1)).all((2, 3, 4)).any()
        }
        assert found == set(range(among))
        assert patches.shape == (40, 64, 64, 3)


def test_separation_is_paid_for_what_the_update_adds(dataset: AnomalyDataset, config: Config) -> None:
    env = make(dataset, config, reward="separation")
    learn(env, 3)

    def present(learner: Learner) -> float:
        maps = torch.stack([learner.loss_map(image) for image in (0, 1)])
        return rewards.separation(maps.numpy(), dataset.masks[:2])

    before = present(env.learner)
    (info,) = learn(env, 1)
    assert info["R_pred"] == present(env.learner) - before != 0


@pytest.mark.parametrize("walkers", [1, 2])
def test_shaping_sums_to_nothing(walkers: int, dataset: AnomalyDataset, config: Config) -> None:
    env = make(dataset, config, reward="shaped_separation", training_images="labeled")
    game = PatchSamplingVectorEnv(walkers, env=env)
    draw = np.random.default_rng(0)
    for episode in range(4):
        begun, infos = game.begin(seed=0 if episode == 0 else None)
        steps = [infos for _, _, infos in play(game, lambda _: draw.integers(9, size=walkers), begun)]
        for walker in range(walkers):
            shaping = [step[walker].get("R_shape") for step in steps]
            assert shaping[:3] == [None] * 3  # cloning
            assert sum(shaping[3:]) == pytest.approx(0, abs=1e-12)
            assert any(shaping[3:]) == (not infos[walker]["warmup"])


def test_shaping_is_part_of_the_reward(dataset: AnomalyDataset, config: Config) -> None:
    """It is the change of what the history promises, on labelled images alone."""
    env = make(dataset, config, reward="shaped_separation", cloning_length=0, training_images="all")
    learn(env, 3)
    game = Alone(env)
    begun, _ = game.begin()
    potential, learner = 0.0, env.learner
    histories: dict[int, np.ndarray] = {}
    before = rewards.separation(np.stack([learner.loss_map(i).numpy() for i in (0, 1)]), dataset.masks[:2])
    maps = {image: learner.loss_map(image).numpy().copy() for image in range(5)}
    total = 0.0
    for _, paid, (info,) in play(game, lambda _: [8], begun):
        image, top, left = env.walk.path[-1]
        history = histories.setdefault(image, np.zeros((128, 128), bool))
        history[top : top + 64, left : left + 64] = True
        gains = [
            rewards.expected_gain(maps[i], dataset.masks[i], h) for i, h in histories.items() if i in (0, 1)
        ]
        now = 0.0 if info.get("update") else sum(gains) / 2
        assert info["R_shape"] == pytest.approx(now - potential, abs=1e-12)
        assert paid[0] == pytest.approx((1 - info["beta"]) * (info["R_pred"] + info["R_shape"]), abs=1e-12)
        total, potential = total + info["R_pred"] + info["R_shape"], now
    assert {0, 1} & histories.keys()
    assert histories.keys() - {0, 1}
    after = rewards.separation(np.stack([learner.loss_map(i).numpy() for i in (0, 1)]), dataset.masks[:2])
    assert total == pytest.approx(after - before, abs=1e-12)


@pytest.mark.parametrize("reward", ["difference", "shaped_separation"])
def test_masks_of_unlabelled_images_do_not_matter(
    reward: str, dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    garbage = np.random.default_rng(0).random(dataset.masks.shape) < 0.5
    garbage[:2] = dataset.masks[:2]
    same_bits(*(learn(make(d, config, reward=reward), 6) for d in (dataset, replace(dataset, masks=garbage))))


@pytest.mark.parametrize("reward", ["difference", "separation"])
def test_a_stored_learner_is_paid_the_same(
    reward: str, dataset: AnomalyDataset, config: Config, same_bits: SameBits, tmp_path: Path
) -> None:
    env = make(dataset, config, reward=reward, precision="auto")
    learn(env, 3)
    checkpoint.save(env.learner.state_dict(), tmp_path / "state.pt")
    other = make(dataset, config, reward=reward, precision="auto")
    learn(other, 1)
    other.learner.load_state_dict(checkpoint.load(tmp_path / "state.pt"))
    rng = np.random.default_rng(0)
    for _ in range(4):
        patches = rng.integers(256, size=(5, 64, 64, 3), dtype=np.uint8)
        same_bits(*(vars(each.learner.update(patches)) for each in (env, other)))
    same_bits(env.learner.state_dict(), other.learner.state_dict())
