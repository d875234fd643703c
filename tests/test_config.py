"""Settings that cannot work are refused by name; the defaults are the papers'."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from nbs_env.common.errors import ConfigError
from nbs_env.common.settings import check_types, whole_number
from nbs_env.config import PAPER, PRESETS, Config

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
    ("image_size", {"image_size": 200}),
    ("image_size", {"image_size": 64}),
    ("minibatch_size", {"minibatch_size": 1}),
    ("minibatch_size", {"minibatch_size": 9, "episode_length": 8}),
    ("reinit_period", {"reinit_period": 15}),
    ("reinit_period", {"reinit_period": 20, "profile_length": 20, "warmup_updates": 19}),
    ("warmup_updates", {"warmup_updates": 8}),
    ("predictor_width", {"predictor_width": 1.1}),
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


# Types


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *[
            ("updates", value, "whole number")
            for value in (3.5, 3.0, True, np.True_, None, "5", np.array([5]))
        ],
        *[("cover_weight", value, "finite number") for value in (float("inf"), True, np.True_, "1", None)],
        *[
            ("training_images", value, "choose one of all, labeled, unlabeled")
            for value in ("labelled", "All", True, 0)
        ],
        ("precision", "fp16", "choose one of auto, float32, bfloat16"),
    ],
)
def test_value_of_another_type_is_named(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{name: value})
    assert str(caught.value).startswith(f"{name} is {value!r}; ")
    assert expected in str(caught.value)


def test_numpys_numbers_become_pythons() -> None:
    config = Config(
        updates=np.int32(7),  # type: ignore[arg-type]
        cover_weight=np.float32(0.5),  # type: ignore[arg-type]
        clone_reward=2,
        training_images=np.str_("labeled"),  # type: ignore[arg-type]
    )
    assert json.loads(json.dumps(dataclasses.asdict(config))) == dataclasses.asdict(config)
    assert config == Config(updates=7, cover_weight=0.5, clone_reward=2.0, training_images="labeled")


@dataclasses.dataclass(frozen=True)
class Anything:
    count: int | None = None
    sides: tuple[int, ...] = ()
    pair: tuple[str, float] = ("a", 1.0)
    file: Path | None = None
    flag: bool = False
    level: Literal[1, "high"] = 1
    config: Config = PAPER

    def __post_init__(self) -> None:
        check_types(self, KeyError)


def test_check_follows_any_annotations() -> None:
    made = Anything(np.int64(3), [4, np.int8(5)], ["b", 2], "x/y", np.True_, "high")  # type: ignore[arg-type]
    assert made == Anything(3, (4, 5), ("b", 2.0), Path("x/y"), True, "high")
    for changes, message in (
        ({"count": 1.5}, "count is 1.5; it must be a whole number, or it must be None"),
        ({"sides": 4}, "sides is 4; it must be a tuple"),
        ({"sides": (4, True)}, "sides is (4, True); it must be a whole number"),
        ({"pair": ("a",)}, "pair is ('a',); it must have 2 elements"),
        ({"flag": 1}, "flag is 1; it must be True or False"),
        ({"level": True}, "level is True; choose one of 1, high"),
        ({"config": "paper"}, "config is 'paper'; it must be a Config"),
    ):
        with pytest.raises(KeyError) as caught:
            Anything(**changes)  # type: ignore[arg-type]
        assert caught.value.args == (message,)


def test_whole_numbers() -> None:
    for value in (3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)):
        assert type(whole_number(value)) is int
        assert whole_number(value) == 3
    for value in (3.0, True, np.True_, torch.tensor(True), torch.tensor([3]), np.array([3]), "3", None):
        assert whole_number(value) is None
