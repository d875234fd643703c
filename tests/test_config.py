"""Settings that cannot work are refused by name; the defaults are the papers'."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from nbs_env.config import PAPER, PRESETS, Config, ConfigError

WRONG: list[tuple[str, dict[str, Any]]] = [
    *[
        (name, {name: 0})
        for name in (
            *("updates", "image_size", "shift", "episode_length", "beta_horizon", "bottleneck_channels"),
            *("reinit_period", "profile_length", "predictor_width", "predictor_updates", "buffer_updates"),
            *("snapshot_cycles", "minibatch_size", "autoencoder_lr", "predictor_lr"),
        )
    ],
    *[(name, {name: -1}) for name in ("cloning_length", "warmup_updates", "clone_reward", "cover_weight")],
    ("autoencoder_lr", {"autoencoder_lr": 1.0}),
    ("predictor_lr", {"predictor_lr": float("nan")}),
    ("clone_reward", {"clone_reward": float("nan")}),
    ("cover_weight", {"cover_weight": float("nan")}),
    ("patch_size", {"patch_size": 32}),
    ("window_size", {"window_size": 64}),
    ("image_size", {"image_size": 200}),
    ("image_size", {"image_size": 64}),
    ("minibatch_size", {"minibatch_size": 1}),
    ("minibatch_size", {"minibatch_size": 9, "episode_length": 8}),
    ("reinit_period", {"reinit_period": 15}),
    ("reinit_period", {"reinit_period": 20, "profile_length": 20, "warmup_updates": 19}),
    ("warmup_updates", {"warmup_updates": 8}),
    ("predictor_crop", {"predictor_crop": 16}),
    ("predictor_crop", {"predictor_crop": 300}),
    ("buffer_updates", {"buffer_updates": 9}),
]


@pytest.mark.parametrize(("name", "changes"), WRONG)
def test_wrong_setting_is_named(name: str, changes: dict[str, Any]) -> None:
    value = {**dataclasses.asdict(PAPER), **changes}[name]
    with pytest.raises(ConfigError, match=rf"^{name} is {value}; ") as caught:
        Config(**changes)
    assert "\n" not in str(caught.value)


def test_the_limits_themselves_are_allowed() -> None:
    Config(image_size=128, warmup_updates=9, reinit_period=11, buffer_updates=10, predictor_crop=32)
    Config(episode_length=8, minibatch_size=8, cloning_length=0, clone_reward=0.0, cover_weight=0.0)


def test_paper_preset_has_the_papers_values() -> None:
    paper = {
        "image_size": 256,
        "patch_size": 64,
        "window_size": 128,
        "shift": 24,
        "beta_horizon": 40_000,
        "warmup_updates": 15,
        "reinit_period": 100,
        "profile_length": 10,
        "bottleneck_channels": 200,
        "minibatch_size": 8,
        "training_images": "all",
    }
    values = dataclasses.asdict(PRESETS["paper"])
    assert {name: values[name] for name in paper} == paper
