"""What the environment refuses, plain and as walkers, and the modes of its callers that it puts up with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import SameBits
from gymnasium.error import InvalidAction, ResetNeeded

from agents.sb3 import PPO
from nbs_env.common.errors import ConfigError
from nbs_env.common.networks import pick_device
from nbs_env.config import PRESETS, Config
from nbs_env.data import AnomalyDataset, DataError
from nbs_env.detect.detector import Detector
from nbs_env.env import PatchSamplingEnv
from nbs_env.task import Game
from nbs_env.vector import PatchSamplingVectorEnv
from nbs_env.wrappers import Alone, SkipWarmup

WRONG_ACTIONS = [-1, 9, 3.7, 3.0, True, "3", None, np.float32(3), np.array([3]), torch.tensor(True)]


# Episodes


@pytest.mark.parametrize("walkers", [0, 1])
def test_steps_outside_of_an_episode_are_refused(walkers: int, env: PatchSamplingEnv) -> None:
    game: Game = PatchSamplingVectorEnv(walkers, env=env) if walkers else Alone(env)
    action = np.array([1])
    with pytest.raises(ResetNeeded, match="not begun; call reset"):
        game.advance(action)
    game.begin(seed=0)
    while not game.advance(action)[2]:
        pass
    for _ in range(2):
        with pytest.raises(ResetNeeded, match="ended; call reset"):
            game.advance(action)
    assert env.learner.updates == 1
    game.begin()
    assert not game.advance(action)[2]


# Actions


@pytest.mark.parametrize("action", WRONG_ACTIONS)
def test_wrong_action_is_refused_and_changes_nothing(action: Any, env: PatchSamplingEnv) -> None:
    env.reset(seed=0)
    place, state = (env.walk.image, env.walk.top, env.walk.left), env.np_random.bit_generator.state
    with pytest.raises(InvalidAction, match="choose a whole number from 0 to 8") as caught:
        env.step(action)
    assert repr(action) in str(caught.value)
    assert (env.walk.image, env.walk.top, env.walk.left) == place
    assert env.np_random.bit_generator.state == state
    assert not env.walk.path


def test_wrong_action_of_the_warm_up_is_refused(env: PatchSamplingEnv) -> None:
    with pytest.raises(InvalidAction, match=r"action is 3\.7"):
        SkipWarmup(env, lambda window: 3.7).reset(seed=0)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("action", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_whole_numbers_of_every_kind_are_one_action(action: Any, env: PatchSamplingEnv) -> None:
    env.reset(seed=0)
    env.walk.top = env.walk.left = 30
    env.step(action)
    assert (env.walk.top, env.walk.left) == (54, 54)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([1], r"shape \(1,\); give one a walker, \(2,\)"),
        ([1, 2, 3], r"shape \(3,\)"),
        ([[1], [2]], r"shape \(2, 1\)"),
        (1, r"shape \(\)"),
        ([1, 9], "action is np.int64"),
        ([1.0, 2.0], "whole number"),
        ([True, False], "whole number"),
    ],
)
def test_wrong_actions_move_no_walker(actions: Any, message: str, env: PatchSamplingEnv) -> None:
    vector = PatchSamplingVectorEnv(2, env=env)
    vector.reset(seed=0)
    with pytest.raises(InvalidAction, match=message):
        vector.step(actions)
    assert not any(walker.walk.path for walker in vector.task.walkers)
    vector.step([1, np.int8(8)])  # type: ignore[arg-type]
    vector.step(torch.tensor([1, 2]))  # type: ignore[arg-type]


# Arguments


def test_labelled_images_are_a_whole_number_or_names(dataset: AnomalyDataset, config: Config) -> None:
    drawn = PatchSamplingEnv(dataset, 2, config).labeled
    for labeled in (np.int64(2), np.array(2)):
        np.testing.assert_array_equal(PatchSamplingEnv(dataset, labeled, config).labeled, drawn)  # type: ignore[arg-type]
    for names in (("0", "2"), np.array(["0", "2"])):
        assert PatchSamplingEnv(dataset, names, config).labeled.tolist() == [0, 2]  # type: ignore[arg-type]
    for wrong in (True, 2.0, np.float64(2), None, "0", {"0", "2"}):
        with pytest.raises(ConfigError, match=r"labeled is .*; give a whole number of images, or a list"):
            PatchSamplingEnv(dataset, wrong, config)  # type: ignore[arg-type]
    for absent in ([0, 1], [""]):
        with pytest.raises(DataError, match="no image is named"):
            PatchSamplingEnv(dataset, absent, config)  # type: ignore[arg-type]


def test_arguments_of_another_kind_are_named(dataset: AnomalyDataset, config: Config) -> None:
    assert PatchSamplingEnv(dataset, 2, "micro", "cpu").config is PRESETS["micro"]
    for other, message in (
        ({}, r"config is \{\}; give an nbs_env Config"),
        ("tiny", r"config is 'tiny'; choose quick, .*, or give a Config"),
        (replace(config, image_size=192), r"image_size is 192 but .* has images of \(128, 128\) pixels"),
    ):
        with pytest.raises(ConfigError, match=message):
            PatchSamplingEnv(dataset, 2, other)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="dataset is 'synthetic'; give an nbs_env AnomalyDataset"):
        PatchSamplingEnv("synthetic", 2, config)  # type: ignore[arg-type]
    for number in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match=f"num_envs is {number}; it must be at least 1"):
            PatchSamplingVectorEnv(number, dataset, 2, config)  # type: ignore[arg-type]
    assert pick_device(torch.device("cpu")) == torch.device("cpu")  # type: ignore[arg-type]


def test_walkers_find_the_environment_in_its_wrappers(env: PatchSamplingEnv, dataset: AnomalyDataset) -> None:
    made = gymnasium.make("nbs_env/PatchSampling-v0", dataset=dataset, labeled=["0", "1"], config=env.config)
    for wrapped in (made, SkipWarmup(env, lambda window: 0)):
        vector = PatchSamplingVectorEnv(2, env=wrapped)
        assert vector.env is wrapped.unwrapped
        vector.reset(seed=0)
        vector.step(np.array([0, 1]))
    with pytest.raises(ConfigError, match="env is a CartPoleEnv; the walkers need a PatchSamplingEnv"):
        PatchSamplingVectorEnv(2, env=gymnasium.make("CartPole-v1"))


# Callers in inference mode


def test_inference_mode_changes_no_bit(dataset: AnomalyDataset, config: Config, same_bits: SameBits) -> None:
    def play(vector: PatchSamplingVectorEnv) -> list[Any]:
        rng = np.random.default_rng(0)
        seen = [vector.reset(seed=0)[0]]
        # Past the warm-up, and into an episode.
        return [*seen, *(vector.step(rng.integers(9, size=2))[:3] for _ in range(3 * 8 + 2))]

    def make() -> PatchSamplingVectorEnv:
        return PatchSamplingVectorEnv(2, dataset, ["0", "1"], config, "cpu", tensors=True)

    outside = make()
    expected = play(outside)
    with torch.inference_mode():
        inside = make()
        got = play(inside)
        assert torch.is_inference_mode_enabled()
    same_bits(expected, got)
    same_bits(outside.learner.state_dict(), inside.learner.state_dict())
    same_bits(play(outside), play(inside))  # and goes on without


def test_what_was_made_in_inference_mode_serves_outside(
    dataset: AnomalyDataset, config: Config, same_bits: SameBits
) -> None:
    def detect(env: PatchSamplingEnv) -> Detector:
        snapshots, state = env.learner.snapshots, env.learner.predictor.state_dict()
        return Detector(
            [s.ring for s in snapshots], [state] * len(snapshots), 128, "float32", env.learner.device
        )

    with torch.inference_mode():
        env = PatchSamplingEnv(dataset, ["0", "1"], config, "cpu", "rgb_array")
        env.reset(seed=0)
        for episode in range(3):
            while not env.step(episode)[2]:
                env.render()
            env.reset()
        detector = detect(env)
        first = [vars(prediction) for prediction in detector.predict(dataset.images)]
    env.learner.load_state_dict(env.learner.state_dict())
    for made in (detector, detect(env)):
        same_bits(first, [vars(prediction) for prediction in made.predict(dataset.images)])
    agent, updates = PPO(env, 0), env.learner.updates
    agent.learn(env, 4, lambda info: None)
    assert env.learner.updates == updates + 4
