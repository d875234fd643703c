"""The task underneath: any learner can be put inside, and an episode has one face."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv
from nbs_env.rewards import Update
from nbs_env.task import InternalLearner
from nbs_env.vector import PatchSamplingVectorEnv


class Brightness:
    """A learner that has learnt what the patches' mean brightness is; a loss is the distance from it."""

    def __init__(self, images: np.ndarray) -> None:
        self.device, self.images = torch.device("cpu"), images
        self.restart(0)

    warmup = False

    def restart(self, seed: int) -> None:
        self.updates, self.mean = 0, float(seed % 256)

    def loss_map(self, image: int) -> torch.Tensor:
        return torch.from_numpy(self.images[image]).float().mean(dim=2).sub(self.mean).abs() / 255

    def probability(self, image: int) -> torch.Tensor | None:
        return None if self.updates == 0 else self.loss_map(image)

    def update(self, patches: np.ndarray, places: np.ndarray) -> Update:
        for patch, (image, top, left) in zip(patches, places, strict=True):
            np.testing.assert_array_equal(patch, self.images[image, top : top + 64, left : left + 64])
        self.updates, self.mean = self.updates + 1, float(patches.mean())
        return Update(update=self.updates, R_pred=-self.mean, reinitialized=False)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates, self.mean = state["updates"], state["mean"]


class BrightnessEnv(PatchSamplingEnv):
    """The same walk, the same actions, and another learner."""

    def make_learner(self, device: torch.device) -> InternalLearner:
        return Brightness(self.dataset.images)


def test_another_learner_can_be_put_inside(dataset: AnomalyDataset, config: Config) -> None:
    env = BrightnessEnv(dataset, ["0", "1"], config, render_mode="rgb_array")
    check_env(env)
    vector = PatchSamplingVectorEnv(2, env=env)
    vector.reset(options={"restart": True})
    assert env.learner.updates == 0
    done = False
    while not done:
        _, rewards, done, infos = vector.advance(vector.action_space.sample())
    assert env.learner.updates == 1
    patches = np.array([walker.patches for walker in env.task.walkers])
    assert patches.shape == (2, 5, 64, 64, 3)
    assert env.learner.mean == pytest.approx(patches.mean())
    assert [info["R_pred"] for info in infos] == [-env.learner.mean] * 2
    np.testing.assert_array_equal(rewards, 0)  # beta is 1 in the first episode
    vector.reset()
    top, left = env.walk.top, env.walk.left
    expected = env.learner.loss_map(env.walk.image)[top : top + 64, left : left + 64].numpy()
    np.testing.assert_array_equal(env.walk.window()[3, 32:96, 32:96], expected)
    picture = env.render()
    assert picture is not None
    assert picture.shape == (128, 4 * 128, 3)


def test_an_episode_belongs_to_the_face_that_began_it(dataset: AnomalyDataset, config: Config) -> None:
    env = BrightnessEnv(dataset, ["0", "1"], config)
    vector = PatchSamplingVectorEnv(2, env=env)
    vector.reset(seed=0)
    with pytest.raises(ResetNeeded, match="call reset before step"):
        env.step(0)
    env.reset()
    with pytest.raises(ResetNeeded, match="call reset before step"):
        vector.step(np.array([0, 0]))
    assert not env.step(0)[2]
