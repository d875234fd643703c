"""Pictures of the plain environment, of walkers, and of both in other libraries' hands."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from agents.sb3_env import SB3VecEnv
from nbs_env.common.errors import ConfigError
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv
from nbs_env.vector import PatchSamplingVectorEnv


def test_render_shows_four_panels(dataset: AnomalyDataset, config: Config) -> None:
    env = PatchSamplingEnv(dataset, ["0", "1"], config, device="cpu", render_mode="rgb_array")
    env.reset(seed=0)
    for _ in range(3):
        while not env.step(np.int64(3))[2]:
            pass
        env.reset()
    blank = env.render()
    assert blank is not None
    env.step(8)
    picture = env.render()
    assert picture is not None
    assert picture.dtype == np.uint8
    assert picture.shape == (128, 4 * 128, 3)
    image, loss, history, prediction = np.split(picture.astype(int), 4, axis=1)
    own = dataset.images[env.walk.image]
    top, left = env.walk.top, env.walk.left
    drawn = (image != own).any(axis=-1)
    assert drawn.any()
    assert (~drawn).mean() > 0.8
    rows, columns = np.nonzero(drawn)
    assert abs(rows.min() - top) <= 2
    assert abs(columns.max() - (left + 63)) <= 2
    order = np.argsort(env.learner.loss_map(env.walk.image).numpy(), axis=None)
    brightness = loss.sum(axis=-1).ravel()[order]
    assert brightness[-100:].mean() > brightness[:100].mean()
    bright = history.sum(axis=-1) > history.min() * 3 + 100
    expected = np.zeros((128, 128), bool)
    expected[top : top + 64, left : left + 64] = True
    np.testing.assert_array_equal(bright, expected)
    assert len(np.unique(prediction.reshape(-1, 3), axis=0)) > 1
    assert (np.split(blank, 4, axis=1)[2] == blank[0, 2 * 128]).all()  # nothing sampled yet


def test_record_video(dataset: AnomalyDataset, config: Config, tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    inner = PatchSamplingEnv(dataset, ["0", "1"], config, device="cpu", render_mode="rgb_array")
    folder = str(tmp_path / "videos")
    env = gymnasium.wrappers.RecordVideo(inner, folder, episode_trigger=lambda episode: episode == 0)
    env.reset(seed=0)
    while not env.step(np.int64(8))[2]:
        pass
    env.close()
    (video,) = tmp_path.glob("videos/*.mp4")
    assert video.stat().st_size > 1000


def test_walkers_are_drawn_one_by_one(dataset: AnomalyDataset, config: Config) -> None:
    settings = {"dataset": dataset, "labeled": ["0", "1"], "config": config, "device": "cpu"}
    vector = gymnasium.make_vec("nbs_env/PatchSampling-v0", 3, render_mode="rgb_array", **settings)
    assert isinstance(vector, PatchSamplingVectorEnv)
    assert vector.render_mode == "rgb_array" in vector.metadata["render_modes"]
    with pytest.raises(ResetNeeded, match="call reset before render"):
        vector.render()
    vector.reset(seed=0)
    vector.step(np.array([0, 2, 8]))
    pictures = vector.render()
    assert isinstance(pictures, tuple)
    for picture, walker in zip(pictures, vector.task.walkers, strict=True):
        np.testing.assert_array_equal(picture, vector.env.draw(walker))
    assert len({picture.tobytes() for picture in pictures}) == 3
    np.testing.assert_array_equal(pictures[0], vector.env.render())
    np.testing.assert_array_equal(SB3VecEnv(vector).get_images(), pictures)
    plain = PatchSamplingVectorEnv(2, dataset, ["0", "1"], config, "cpu")
    assert plain.render_mode is plain.render() is plain.env.render() is None
    assert SB3VecEnv(plain).get_images() == [None, None]


@pytest.mark.parametrize("make", [PatchSamplingEnv, PatchSamplingVectorEnv])
def test_unknown_render_mode_is_refused(make: type, dataset: AnomalyDataset, config: Config) -> None:
    with pytest.raises(ConfigError, match="render_mode is 'human'; choose rgb_array"):
        make(dataset=dataset, config=config, render_mode="human")
