"""Equations 3.1 and 3.3: the terms of the reward and their schedule; what else an update may be paid for."""

from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest

from nbs_env import rewards
from nbs_env.config import Config
from nbs_env.metrics import pixel_auroc
from nbs_env.rewards import Outcome


def test_beta_falls_in_a_straight_line_and_stays_at_zero() -> None:
    assert [rewards.beta(j, 40_000) for j in (0, 10_000, 20_000, 40_000, 90_000)] == [1, 0.75, 0.5, 0, 0]
    assert rewards.beta(3, 4) == 0.25


def test_one_anomalous_pixel_spoils_a_patch(config: Config) -> None:
    config = replace(config, clone_reward=0.5)
    mask = np.zeros((64, 64), bool)
    assert rewards.clone_reward(mask, config) == 0.5
    mask[63, 0] = True
    assert rewards.clone_reward(mask, config) == -0.5


def test_cover_reward_is_proportional_to_what_is_new(config: Config) -> None:
    config = replace(config, cover_weight=0.2)
    assert [rewards.cover_reward(x, config) for x in (0.0, 0.5, 1.0)] == pytest.approx([0, 0.1, 0.2])


def test_what_an_update_is_paid_for() -> None:
    outcome = Outcome(prediction_loss=1.5, twin_loss=1.75, separation_before=0.5, separation=0.75)
    paid = {name: reward(outcome) for name, reward in rewards.REWARDS.items()}
    assert paid == {"prediction": -1.5, "difference": 0.25, "separation": 0.25, "shaped_separation": 0.25}
    assert tuple(paid) == get_args(get_type_hints(Config)["reward"])
    assert np.isnan(rewards.REWARDS["difference"](Outcome(prediction_loss=1.5)))  # nobody asked for the twin


def test_auc_of_known_losses() -> None:
    losses = np.array([[1.0, 2.0, 2.0], [3.0, 4.0, 0.0]])
    mask = np.array([[0, 1, 0], [1, 0, 0]], bool)  # 2 and 3 among 1, 2, 4, 0: 2.5 and 3 pairs of four
    assert rewards.auc(losses, mask) == (2.5 + 3) / 8
    assert rewards.auc(-losses, mask) == 1 - (2.5 + 3) / 8
    assert rewards.auc(losses, losses > 2.5) == 1
    for nothing_to_tell_apart in (np.zeros((2, 3), bool), np.ones((2, 3), bool)):
        assert rewards.auc(losses, nothing_to_tell_apart) == 0.5


def test_separation_is_each_images_own() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((3, 16, 16)) < 0.2
    losses = (rng.random((3, 16, 16)) + 0.3 * masks).round(2).astype(np.float32)  # with ties
    expected = np.mean([pixel_auroc(a[None], b[None]) for a, b in zip(losses, masks, strict=True)])
    assert rewards.separation(losses, masks) == pytest.approx(expected, abs=1e-12)
    scaled = losses.astype(float) ** 3 * np.array([1, 100, 1e4])[:, None, None]
    assert rewards.separation(scaled, masks) == pytest.approx(expected, abs=1e-12)


def test_learning_what_is_normal_is_expected_to_separate() -> None:
    rng = np.random.default_rng(0)
    loss, mask = rng.uniform(0.5, 1.0, (16, 16)), np.zeros((16, 16), bool)
    mask[:4] = True
    nothing, everything = np.zeros_like(mask), np.ones_like(mask)
    assert rewards.expected_gain(loss, mask, nothing) == rewards.expected_gain(loss, mask, everything) == 0
    assert rewards.expected_gain(loss, mask, mask) < 0 < rewards.expected_gain(loss, mask, ~mask)
    some, more = nothing.copy(), nothing.copy()
    some[8:], more[6:] = True, True
    assert rewards.expected_gain(loss, mask, some) < rewards.expected_gain(loss, mask, more)
