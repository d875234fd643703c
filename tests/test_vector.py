"""Several walkers, one learner: one walker is the plain environment, and more are that many of it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from conftest import SameBits

from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv
from nbs_env.vector import PatchSamplingVectorEnv


def make(dataset: AnomalyDataset, config: Config, walkers: int) -> PatchSamplingVectorEnv:
    return PatchSamplingVectorEnv(walkers, dataset, ["0", "1"], config, "cpu")


def test_made_by_gymnasium(dataset: AnomalyDataset, config: Config) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make_vec(
            "nbs_env/PatchSampling-v0", 3, dataset=dataset, labeled=["0", "1"], config=config, device="cpu"
        )
    assert isinstance(env.unwrapped, PatchSamplingVectorEnv)
    observations, infos = env.reset(seed=0)
    assert env.observation_space.contains(observations)
    assert infos["segment"].tolist() == ["cloning"] * 3
    observations, rewards, terminated, truncated, _ = env.step(env.action_space.sample())
    assert env.observation_space.contains(observations)
    assert rewards.shape == terminated.shape == truncated.shape == (3,)


def test_one_walker_is_the_plain_environment(
    dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    plain = PatchSamplingEnv(dataset, ["0", "1"], config, "cpu")
    vector = make(dataset, config, 1)
    rng = np.random.default_rng(0)
    same_bits(plain.reset(seed=5)[0][None], vector.reset(seed=5)[0])
    for _ in range(4 * 8):
        action = rng.integers(9)
        observation, reward, terminated, _, info = plain.step(action)
        observations, rewards, ends, _, infos = vector.step(np.array([action]))
        assert (rewards[0], ends[0]) == (reward, terminated)
        if terminated:
            same_bits(observation[None], infos["final_obs"])
            infos = infos["final_info"]
            observation, _ = plain.reset()
        same_bits(observation[None], observations)
        assert {k: v[0] for k, v in infos.items() if not k.startswith("_")} == info
    same_bits(plain.learner.state_dict(), vector.learner.state_dict())
    assert plain.learner.updates == 4


def test_all_patches_train_and_the_reward_is_shared(dataset: AnomalyDataset, config: Config) -> None:
    vector = make(dataset, replace(config, cloning_length=1), 3)
    given: list[np.ndarray] = []
    update = vector.learner.update

    def record(patches: np.ndarray, places: np.ndarray) -> Any:
        given.append(patches)
        return update(patches, places)

    vector.learner.update = record  # type: ignore[method-assign]
    vector.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(3 * 6):
        *_, infos = vector.step(rng.integers(9, size=3))
    paths = [walker.walk.path for walker in vector.task.walkers]
    assert all(not path for path in paths), "the next episode has begun"
    assert [len(patches) for patches in given] == [3 * config.episode_length] * 3
    assert vector.learner.updates == 3
    final = infos["final_info"]
    assert len(set(final["R_pred"])) == 1
    assert final["R_pred"][0] < 0
    assert len(set(final["R_clone_mean"] + final["R_cover_mean"])) > 1
