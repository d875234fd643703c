"""Equations 3.1 and 3.3: the terms of the reward and their schedule."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nbs_env import rewards
from nbs_env.config import Config
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


def test_an_update_is_paid_minus_its_loss() -> None:
    nothing = torch.zeros(0, 128, 128)
    assert rewards.pred_reward(Outcome(1.5, nothing, nothing, nothing)) == -1.5
