"""The environment: both checkers, seeds and copies, resets, and what is never read."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import stable_baselines3.common.env_checker
import torch
from conftest import SameBits
from gymnasium.utils.env_checker import check_env
from playing import last_infos, make, play

from nbs_env.config import PRESETS, Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv

# The interface


@pytest.fixture
def registered(dataset: AnomalyDataset, config: Config) -> PatchSamplingEnv:
    env = gymnasium.make("nbs_env/PatchSampling-v0", dataset=dataset, labeled=["0", "1"], config=config)
    assert isinstance(env.unwrapped, PatchSamplingEnv)
    return env.unwrapped


# A squared error of an unbounded output has no upper bound that would hold, and clipping it would hide from
# the agent how bad the worst pixels are. Stable-Baselines3 takes any three-dimensional Box for an image of 0
# to 255 for its own CNN; ours has losses and history as channels and its own features extractor.
@pytest.mark.filterwarnings(
    "error",
    "ignore:.*observation space maximum value is infinity",
    "ignore:It seems that your observation.*image but its `dtype`",
    "ignore:It seems that your observation space.*bounds are not in",
)
@pytest.mark.parametrize("check", [check_env, stable_baselines3.common.env_checker.check_env])
def test_checkers_find_nothing_to_warn_of(
    check: Callable[[PatchSamplingEnv], None], registered: PatchSamplingEnv
) -> None:
    check(registered)


def test_micro_is_the_same_game_in_small() -> None:
    env = gymnasium.make("nbs_env:nbs_env/PatchSamplingMicro-v0", device="cpu")
    inner = env.unwrapped
    assert isinstance(inner, PatchSamplingEnv)
    assert inner.config == PRESETS["micro"]
    assert len(inner.labeled) == 3
    _, info = env.reset(seed=0)
    segments = []
    terminated = False
    while not terminated:
        segments.append(info["segment"])
        _, _, terminated, _, info = env.step(np.int64(8))
    assert segments == ["cloning"] * 3 + ["training"] * 3  # of the patch before, at first of the next
    assert info["update"] == 1


def test_same_seed_gives_the_same_trajectory(
    dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    settings = {"episode_length": 2, "precision": "auto"}  # the real autoencoder, and past the warm-up
    first, second, other = (play(make(dataset, config, **settings), 4, seed=seed) for seed in (3, 3, 4))
    same_bits(first, second)
    assert last_infos(first)[-1]["R_pred"] < 0
    assert last_infos(first)[0]["autoencoder_loss"] != last_infos(other)[0]["autoencoder_loss"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_plays_on_as_the_original(
    copied: Callable[[PatchSamplingEnv], PatchSamplingEnv],
    dataset: AnomalyDataset,
    config: Config,
    same_bits: SameBits,
) -> None:
    """Which is what planning needs, and sending an environment to another process."""
    env = make(dataset, config)
    play(env, 2)
    other = copied(env)
    same_bits(play(other, 2, seed=None), play(env, 2, seed=None))


def test_masks_of_unlabelled_images_alone_are_never_read(
    dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    garbage = np.random.default_rng(0).random(dataset.masks.shape) < 0.5
    unlabelled = np.concatenate([dataset.masks[:2], garbage[2:]])
    envs = [make(replace(dataset, masks=m), config) for m in (dataset.masks, unlabelled, garbage)]
    first, same, other = (play(env, 9) for env in envs)
    same_bits(first, same)
    same_bits(*(env.learner.state_dict() for env in envs[:2]))
    rewards = [[info["R_pred"] for info in last_infos(run)] for run in (first, other)]
    assert any(rewards[0])
    assert rewards[0] != rewards[1]


def test_random_numbers_of_others_are_left_alone(
    dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    """An agent that draws from the global generators draws the same, however many environments there are."""

    def states() -> tuple[object, ...]:
        return torch.get_rng_state(), random.getstate()

    before = states()
    play(make(dataset, config), 2)
    same_bits(before, states())


def test_observations_are_copies(dataset: AnomalyDataset, config: Config) -> None:
    kept = make(dataset, config)
    scribbled = make(dataset, config)
    frozen = []
    observation, _ = kept.reset(seed=0)
    scribbled.reset(seed=0)[0][:] = 7
    images = dataset.images.copy()
    for action in (0, 4, 2, 6, 0, 4):
        frozen.append((observation, observation.copy()))
        observation = kept.step(action)[0]
        other = scribbled.step(action)[0]
        np.testing.assert_array_equal(observation, other)
        other[:] = 7
    for before, now in frozen:
        np.testing.assert_array_equal(before, now)
    np.testing.assert_array_equal(dataset.images, images)


# Between episodes


def test_reset_goes_on_and_restart_begins_from_nothing(
    dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    env = make(dataset, config)
    first = play(env, 4)
    assert last_infos(first)[-1]["update"] == 4
    env.reset()
    assert env.learner.updates == 4
    assert len(env.learner.ring) == 3
    env.reset(seed=0)  # the walk's, not the learner's
    assert env.learner.updates == 4
    place = env.walk.image, env.walk.top, env.walk.left
    _, info = env.reset(seed=0, options={"restart": True})
    assert (env.walk.image, env.walk.top, env.walk.left) == place
    assert env.learner.updates == env.learner.buffer.count == 0
    assert not env.learner.ring
    assert not env.learner.snapshots
    assert info["beta"] == 1
    assert info["warmup"]
    same_bits(first, play(env, 4, options={"restart": True}))


def test_reset_within_an_episode_forgets_its_patches(dataset: AnomalyDataset, config: Config) -> None:
    env = make(dataset, config)
    env.reset(seed=0)
    for _ in range(6):
        env.step(0)
    assert [end for _, _, end, _ in play(env, 1, seed=None)].index(True) == 8
