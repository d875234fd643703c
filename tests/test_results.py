"""What a run leaves for the page: counts by threshold, the command that repeats it, where it walked."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from agents.run import parse
from nbs_env import PatchSamplingEnv
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.desk.results import command_line
from nbs_env.desk.run import settings
from nbs_env.detect.metrics import pixel_curve, threshold_levels


def test_counts_are_those_of_comparing_every_pixel() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((3, 8, 8)).astype(np.float32)
    truth = rng.random(scores.shape) < 0.2
    threshold = float(scores[1, 2, 3])  # reached, not passed
    curve = pixel_curve(scores, truth, threshold)
    assert threshold in curve["thresholds"]
    assert curve["anomalous"] == truth.sum()
    for level, true, false in zip(curve["thresholds"], curve["true"], curve["false"], strict=True):
        reached = scores >= np.float32(level)
        assert (true, false) == ((reached & truth).sum(), (reached & ~truth).sum())


@pytest.mark.parametrize("threshold", [0.0, 1e-5, 0.25, 0.5, 0.99999, 1.0])
def test_thresholds_ascend_whatever_is_among_them(threshold: float) -> None:
    levels = threshold_levels(threshold)
    assert (np.diff(levels) > 0).all()
    assert np.float32(threshold) in levels


@pytest.mark.parametrize(
    "words",
    [
        [],
        [
            *("--agent", "random", "--preset", "paper", "--labeled", "001", "a b"),
            *("--mask-values", "85", "170", "--precision", "float32"),
        ],
        ["--preset", "standard", "--agent", "ppo", "--normalize-advantage", "--segmenter-steps", "0"],
        ["--agent", "reinforce", "--image-size", "128", "--no-symmetries", "--no-mask-symmetries"],
        ["--category", "it's", "--paste-share", "0.25", "--seed", "3"],
    ],
)
def test_the_command_repeats_the_settings(words: list[str]) -> None:
    before = settings(*parse(words))
    nbs, train, *again = shlex.split(command_line(before))
    assert (nbs, train) == ("nbs", "train")
    assert settings(*parse(again)) == before


def test_visits_are_the_centres_of_the_patches_that_trained(dataset: AnomalyDataset, config: Config) -> None:
    env = PatchSamplingEnv(dataset, 2, config, device="cpu")
    rng, expected = np.random.default_rng(0), np.zeros((5, 8, 8), int)
    env.reset(seed=0)
    for _ in range(3):
        done = False
        while not done:
            *_, done, _, info = env.step(int(rng.integers(9)))
            if info["segment"] == "training":
                walk = env.walk
                expected[walk.image, (walk.top + 32) // 16, (walk.left + 32) // 16] += 1
        env.reset()
    np.testing.assert_array_equal(env.task.visits, expected)
    env.reset(options={"restart": True})
    assert not env.task.visits.any()
