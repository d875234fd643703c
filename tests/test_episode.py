"""The structure of Algorithm 1: segments, what trains, and what is paid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from playing import last_infos, make, play

from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.predictor import predict, prediction_loss
from nbs_env.rewards import Update

# The structure of an episode


def test_segments_and_termination(dataset: AnomalyDataset, config: Config) -> None:
    steps = play(make(dataset, config), 3)
    episode = [("cloning", False)] * 4 + [("training", False)] * 4 + [("training", True)]  # reset comes first
    assert [(info["segment"], end) for _, _, end, info in steps] == episode * 3
    only_last = {"update", "autoencoder_loss", "prediction_loss", "buffer_loss", "reinitialized"}
    for _, _, terminated, info in steps:
        assert only_last.isdisjoint(info) != terminated
    assert [info["update"] for info in last_infos(steps)] == [1, 2, 3]


def test_cloning_segment_is_on_labelled_images(dataset: AnomalyDataset, config: Config) -> None:
    steps = play(make(dataset, config, cloning_length=40, episode_length=40), 2)
    images: dict[str, set[int]] = {"cloning": set(), "training": set()}
    for _, _, _, info in steps:
        images[info["segment"]].add(info["image"])
    assert images == {"cloning": {0, 1}, "training": {0, 1, 2, 3, 4}}


def test_training_on_labelled_images_alone(dataset: AnomalyDataset, config: Config) -> None:
    steps = play(make(dataset, config, episode_length=40, training_images="labeled"), 1)
    assert {info["image"] for _, _, _, info in steps} == {0, 1}


def test_history_starts_empty_in_each_segment(dataset: AnomalyDataset, config: Config) -> None:
    steps = play(make(dataset, config), 2)
    sampled = [observation[4].sum() for observation, _, _, _ in steps]
    starts = [0, 3, 9, 12]  # reset, and the last step of cloning, whose observation begins the next segment
    assert [i for i, total in enumerate(sampled) if total == 0] == starts


def test_training_patches_are_where_the_actions_put_them(
    dataset: AnomalyDataset, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make(dataset, config)
    given = []
    update = env.learner.update

    def record(patches: np.ndarray, places: np.ndarray) -> Update:
        given.append(patches)
        return update(patches, places)

    monkeypatch.setattr(env.learner, "update", record)
    play(env, 1)
    expected = [dataset.images[i, top : top + 64, left : left + 64] for i, top, left in env.walk.path]
    assert len(expected) == config.episode_length
    np.testing.assert_array_equal(given, [expected])


def test_without_cloning_segment(dataset: AnomalyDataset, config: Config) -> None:
    steps = play(make(dataset, config, cloning_length=0), 2)
    assert len(steps) == 2 * (1 + config.episode_length)
    for _, _, _, info in steps:
        assert (info["segment"], info["R_clone"], info["R_cover"]) == ("training", 0, 0)
    observation, _, _, info = steps[0]
    assert not observation[4].any()


def test_loss_channel_is_the_newest_loss(dataset: AnomalyDataset, config: Config) -> None:
    env = make(dataset, config)
    for _ in range(2):
        play(env, 1, seed=None)
        observation, info = env.reset()
        loss = np.pad(env.learner.loss_map(info["image"]), 32)
        top, left = env.walk.top, env.walk.left
        np.testing.assert_array_equal(observation[3], loss[top : top + 128, left : left + 128])


# What is paid


def test_cloning_rewards_against_slow_reference(dataset: AnomalyDataset, config: Config) -> None:
    config = replace(config, cloning_length=30, clone_reward=0.7, cover_weight=0.3)
    env = make(dataset, config)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    sampled: set[tuple[int, int, int]] = set()
    seen = set()
    for _ in range(29):  # on the thirtieth the next segment begins
        _, reward, _, _, info = env.step(rng.integers(9))
        image, top, left = env.walk.path[-1]
        pixels = {(image, top + y, left + x) for y in range(64) for x in range(64)}
        clone = -0.7 if any(dataset.masks[pixel] for pixel in pixels) else 0.7
        cover = 0.3 * len(pixels - sampled) / 64**2
        sampled |= pixels
        seen |= {clone, cover}
        assert info["image"] == image
        assert (info["R_clone"], info["R_cover"]) == pytest.approx((clone, cover))
        assert reward == pytest.approx(clone + cover)  # beta is still 1
    assert seen.issuperset({0.7, -0.7, 0.0, 0.3})


def test_reward_is_the_weighted_sum_of_its_terms(dataset: AnomalyDataset, config: Config) -> None:
    steps = play(make(dataset, config), 20)
    for number, (_, reward, terminated, info) in enumerate(steps):
        beta = max(0.0, 1 - number // 9 / 16)  # nine steps an episode, a horizon of 16 updates
        assert info["beta"] == beta
        terms = beta * (info["R_clone"] + info["R_cover"]) + (1 - beta) * info["R_pred"]
        assert reward == pytest.approx(terms)
        assert (info["R_clone"] != 0) == (info["segment"] == "cloning" and number % 9 > 0)
        assert not info["R_pred"] or terminated
    assert steps[-1][1] == last_infos(steps)[-1]["R_pred"] < 0  # at the end, nothing else counts


def test_prediction_reward_is_withheld_during_warm_up(dataset: AnomalyDataset, config: Config) -> None:
    infos = last_infos(play(make(dataset, config), 10))
    assert [info["warmup"] for info in infos] == ([True] * 2 + [False] * 3) * 2
    assert [info["reinitialized"] for info in infos] == ([False] * 4 + [True]) * 2
    assert [info["R_pred"] < 0 for info in infos] == ([False] * 2 + [True] * 3) * 2


def test_prediction_reward_is_of_the_chosen_profiles(dataset: AnomalyDataset, config: Config) -> None:
    infos = last_infos(play(make(dataset, config), 4))[2:]
    assert [info["R_pred"] for info in infos] == [-info["buffer_loss"] for info in infos]
    env = make(dataset, config, reward_profiles="current")
    info = last_infos(play(env, 4))[-1]
    newest = env.learner.buffer.newest()
    assert newest is not None
    own_logits = predict(env.learner.predictor, newest, torch.float32)
    masks = torch.from_numpy(dataset.masks[:2])
    own_loss = prediction_loss(own_logits, masks, env.learner.weights)
    assert info["R_pred"] == pytest.approx(-float(own_loss))
    assert info["prediction_loss"] != info["buffer_loss"]
