"""Settings that cannot work are refused by name; the defaults are the papers'."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

from agents.base import AgentError
from agents.reinforce import ReinforceOptions
from agents.run import AgentArgs
from agents.sb3 import A2COptions, DQNOptions, PPOOptions
from nbs_env.common.errors import ConfigError
from nbs_env.common.settings import AtLeast, Between, Rate, Share, check_types, whole_number
from nbs_env.config import PAPER, PRESETS, Config
from nbs_env.desk.run import RunArgs
from nbs_env.detect.config import DetectorConfig

SETTINGS: dict[type, type[Exception]] = {
    Config: ConfigError,
    DetectorConfig: ConfigError,
    RunArgs: ConfigError,
    AgentArgs: ConfigError,
    ReinforceOptions: AgentError,
    A2COptions: AgentError,
    PPOOptions: AgentError,
    DQNOptions: AgentError,
}
OWN_CHECKS = {"minibatch_size", "predictor_width", "predictor_crop", "segmenter_crop"}
"""Numbers whose bounds depend on other settings, see `WRONG`."""
MAY_BE_0 = {"cloning_length", "warmup_updates", "clone_reward", "cover_weight", "segmenter_steps"}
MAY_BE_0 |= {"paste_share", "memory_size", "seed", "entropy_weight"}


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_every_field_of_every_settings_refuses_what_it_cannot_hold(kind: type) -> None:
    """Each number has bounds; what lies beyond them or is of another type is named with a remedy."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        wrong: list[Any] = [object(), {}]
        if hints[field.name] in (int, float):
            assert field.name in OWN_CHECKS, f"{field.name} has no bound"
        if get_origin(hints[field.name]) is Annotated:
            number, bound = get_args(hints[field.name])
            wrong += [True, None, "1", float("nan"), float("inf"), -1 if number is int else -0.01]
            if isinstance(bound, AtLeast) and field.name not in MAY_BE_0:
                wrong.append(0)
            elif not isinstance(bound, AtLeast):
                wrong += [0, 1] if isinstance(bound, Between) else [1.01]
        for value in wrong:
            with pytest.raises(SETTINGS[kind], match=rf"^{field.name} is .*; (it must|choose)") as caught:
                kind(**{field.name: value})
            assert "\n" not in str(caught.value)


WRONG: list[tuple[type, dict[str, Any]]] = [
    (Config, {"image_size": 200}),
    (Config, {"image_size": 64}),
    (Config, {"minibatch_size": 1}),
    (Config, {"minibatch_size": 9, "episode_length": 8}),
    (Config, {"reinit_period": 15}),
    (Config, {"reinit_period": 20, "profile_length": 20, "warmup_updates": 19}),
    (Config, {"warmup_updates": 8}),
    (Config, {"predictor_width": 0}),
    (Config, {"predictor_width": 1.1}),
    (Config, {"predictor_crop": 16}),
    (Config, {"predictor_crop": 300}),
    (Config, {"buffer_updates": 9}),
    (DetectorConfig, {"image_size": 200}),
    (DetectorConfig, {"paste_share": 1.0}),
    (DetectorConfig, {"segmenter_size": 63}),
    (DetectorConfig, {"segmenter_crop": 40}),
    (DetectorConfig, {"segmenter_crop": 16}),
    (DetectorConfig, {"segmenter_crop": 272}),
    (DetectorConfig, {"segmenter_crop": 96, "segmenter_size": 80}),
]


@pytest.mark.parametrize(("kind", "changes"), WRONG)
def test_what_does_not_fit_together_is_named(kind: type, changes: dict[str, Any]) -> None:
    name, value = next(iter(changes.items()))
    with pytest.raises(ConfigError, match=rf"^{name} is {value}; "):
        kind(**changes)


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
    share: Annotated[float, Share()] = 0.5
    rate: Rate = 0.5
    least: Annotated[int, AtLeast(2)] = 2
    config: Config = PAPER

    def __post_init__(self) -> None:
        check_types(self, KeyError)


def test_check_follows_any_annotations() -> None:
    made = Anything(np.int64(3), [4, np.int8(5)], ["b", 2], "x/y", np.True_, "high")  # type: ignore[arg-type]
    assert made == Anything(3, (4, 5), ("b", 2.0), Path("x/y"), True, "high")
    for share in (0, 1):  # the limits themselves
        assert Anything(share=share).share == share
    for changes, message in (
        ({"count": 1.5}, "count is 1.5; it must be a whole number, or it must be None"),
        ({"sides": 4}, "sides is 4; it must be a tuple"),
        ({"sides": (4, True)}, "sides is (4, True); it must be a whole number"),
        ({"pair": ("a",)}, "pair is ('a',); it must have 2 elements"),
        ({"flag": 1}, "flag is 1; it must be True or False"),
        ({"level": True}, "level is True; choose one of 1, high"),
        ({"share": 1.5}, "share is 1.5; choose a value from 0 to 1"),
        ({"rate": 1.0}, "rate is 1.0; choose a value between 0 and 1"),
        ({"least": 1}, "least is 1; it must be at least 2"),
        ({"config": "paper"}, "config is 'paper'; it must be a Config"),
    ):
        with pytest.raises(KeyError) as caught:
            Anything(**changes)  # type: ignore[arg-type]
        assert caught.value.args == (message,)


def test_whole_numbers() -> None:
    for value in (3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)):
        assert type(whole_number(value)) is int
        assert whole_number(value) == 3
    for value in (3.5, 3.0, True, np.True_, torch.tensor(True), torch.tensor([3]), np.array([3]), "3", None):
        assert whole_number(value) is None
