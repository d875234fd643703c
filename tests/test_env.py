"""The environment: both checkers, the structure of Algorithm 1, what is paid, and what is never read."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3.common.env_checker
import torch
from gymnasium.utils.env_checker import check_env

from nbs_env.config import PRESETS, Config, ConfigError
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv
from nbs_env.predictor import predict, prediction_loss
from nbs_env.rewards import Update

SameBits = Callable[..., None]
Step = tuple[np.ndarray, float, bool, dict[str, Any]]


def make(dataset: AnomalyDataset, config: Config, **changes: Any) -> PatchSamplingEnv:
    return PatchSamplingEnv(dataset, ["0", "1"], replace(config, **changes), device="cpu")


def play(env: PatchSamplingEnv, episodes: int, seed: int | None = 0, **first: Any) -> list[Step]:
    """Random actions over some episodes; `seed` and `first` go to the first reset."""
    rng = np.random.default_rng(seed or 0)
    steps = []
    for episode in range(episodes):
        observation, info = env.reset(seed=seed, **first) if episode == 0 else env.reset()
        steps.append((observation, 0.0, False, info))
        terminated = False
        while not terminated:
            observation, reward, terminated, truncated, info = env.step(rng.integers(9))
            assert not truncated
            steps.append((observation, reward, terminated, info))
    return steps


def last_infos(steps: list[Step]) -> list[dict[str, Any]]:
    return [info for _, _, terminated, info in steps if terminated]


# The interface


@pytest.fixture
def registered(dataset: AnomalyDataset, config: Config) -> PatchSamplingEnv:
    env = gymnasium.make("nbs_env/PatchSampling-v0", dataset=dataset, labeled=["0", "1"], config=config)
    assert isinstance(env.unwrapped, PatchSamplingEnv)
    return env.unwrapped


def test_gymnasium_finds_nothing_to_warn_of(registered: PatchSamplingEnv) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # A squared error of an unbounded output has no upper bound that would hold, and clipping it would
        # hide from the agent how bad the worst pixels are.
        warnings.filterwarnings("ignore", message=".*observation space maximum value is infinity")
        check_env(registered)


def test_stable_baselines3_finds_nothing_to_warn_of(registered: PatchSamplingEnv) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # It takes any three-dimensional Box for an image of 0 to 255 for its own CNN. Ours has losses and
        # history as channels and comes with its own features extractor.
        warnings.filterwarnings("ignore", message="It seems that your observation.*image but its `dtype`")
        warnings.filterwarnings("ignore", message="It seems that your observation space.*bounds are not in")
        stable_baselines3.common.env_checker.check_env(registered)


def test_made_without_arguments() -> None:
    env = gymnasium.make("nbs_env:nbs_env/PatchSampling-v0")
    observation, info = env.reset(seed=0)
    assert info["segment"] == "cloning"
    for action in (0, 8, 3):
        assert env.observation_space.contains(observation)
        observation, _, terminated, truncated, _ = env.step(np.int64(action))
        assert not terminated
        assert not truncated


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


def test_a_preset_may_be_named(dataset: AnomalyDataset) -> None:
    assert PatchSamplingEnv(dataset, 2, "micro", "cpu").config is PRESETS["micro"]
    with pytest.raises(ConfigError, match=r"config is 'tiny'; choose quick, .*, or give a Config"):
        PatchSamplingEnv(dataset, 2, "tiny")


def test_same_seed_gives_the_same_trajectory(
    dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    settings = {"episode_length": 2, "precision": "auto"}  # the real autoencoder, and past the warm-up
    first, second = (play(make(dataset, config, **settings), 4, seed=3) for _ in range(2))
    same_bits(first, second)
    assert last_infos(first)[-1]["R_pred"] < 0


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


def test_callers_without_gradients_train_all_the_same(
    dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    expected = play(make(dataset, config), 4)
    with torch.no_grad():
        got = play(make(dataset, config), 4)
    same_bits(expected, got)


def test_images_of_another_size_are_refused(dataset: AnomalyDataset, config: Config) -> None:
    with pytest.raises(ConfigError, match=r"image_size is 192 but .* has images of \(128, 128\) pixels"):
        PatchSamplingEnv(dataset, 2, replace(config, image_size=192))


def test_other_seed_gives_another_trajectory(dataset: AnomalyDataset, config: Config) -> None:
    first, second = (last_infos(play(make(dataset, config), 1, seed=seed))[0] for seed in (0, 1))
    assert first["autoencoder_loss"] != second["autoencoder_loss"]


@pytest.mark.parametrize("evaluation", ["lazy", "full"])
def test_masks_of_unlabelled_images_are_never_read(
    evaluation: str,
    dataset: AnomalyDataset,
    config: Config,
    same_bits: SameBits,
) -> None:
    garbage = dataset.masks.copy()
    garbage[2:] = np.random.default_rng(0).random(garbage[2:].shape) < 0.5
    envs = [make(d, config, evaluation=evaluation) for d in (dataset, replace(dataset, masks=garbage))]
    runs = [play(env, 9) for env in envs]
    same_bits(*runs)
    same_bits(*(env.learner.state_dict() for env in envs))
    assert any(info["R_pred"] for info in last_infos(runs[0]))


def test_masks_of_labelled_images_are_read(dataset: AnomalyDataset, config: Config) -> None:
    garbage = dataset.masks.copy()
    garbage[:2] = np.random.default_rng(0).random(garbage[:2].shape) < 0.5
    rewards = [
        [reward for _, reward, _, _ in play(make(d, config), 4)]
        for d in (dataset, replace(dataset, masks=garbage))
    ]
    assert rewards[0] != rewards[1]


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
