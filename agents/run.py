"""Masks from about five labelled images: teach a detector, and play the game first if an agent is named.

`nbs train --dataset folder --data-root FOLDER` plays none; `python train.py --agent reinforce` does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from agents.base import AgentError, file_name
from agents.game import AgentGame
from agents.load import agent_class
from nbs_env.common.errors import ConfigError, RunError
from nbs_env.common.options import parse as parse_options
from nbs_env.common.options import parse_first
from nbs_env.common.runs import command
from nbs_env.common.settings import Count, check_types
from nbs_env.config import PRESETS, Config
from nbs_env.desk.run import FIXED, SHOWN, RunArgs, check_known, groups, merged, run, stored_run
from nbs_env.detect import config as detect

SHARED = ("image_size", "precision")
"""Settings of the game that are the detector's as well."""


@dataclass(frozen=True)
class AgentArgs:
    """Who plays the game."""

    agent: str | None = None
    """A built-in agent (reinforce, ppo, a2c, ...; docs/reference/environment.md has all), trained:FILE or
    module:Class; None: no game is played, and the detector is taught at once."""
    checkpoint_every: Count = 25
    """Updates between checkpoints."""

    def __post_init__(self) -> None:
        """Check types and bounds."""
        check_types(self, ConfigError)


def parse(argv: Sequence[str]) -> tuple[RunArgs, detect.DetectorConfig, AgentGame | None]:
    """What `nbs_env.desk.run.run` is to do, from the command line of `nbs train`.

    The preset gives the defaults of the settings, and `paper` those of the agent's options that have
    `AS_PRINTED`; with `--resume` the stored run gives all defaults.
    """
    args, who = parse_first(RunArgs, argv), parse_first(AgentArgs, argv)
    if who.agent is None:
        argv = _without_no_updates(argv)
    detector, config, options = detect.PRESETS[args.preset], PRESETS[args.preset], None
    directory = args.directory(file_name(who.agent) if who.agent else "")
    stored = stored_run(directory) if args.resume else None
    if stored is not None:
        args, detector, played = stored
        who, config, options = _stored_game(played, directory / "config.json")
    parts = groups(args) | {"detector": detector, "game": who}
    fixed: dict[str, Any] = dict(FIXED)
    if who.agent is not None:
        parts["rules"] = config
        fixed["rules"] = SHARED
        kind = getattr(agent_class(who.agent), "Options", None)
        if kind is not None:
            if options is None:
                options = getattr(kind, "AS_PRINTED", {}) if args.preset == "paper" else {}
            try:
                parts["options"] = kind(**options)
            except TypeError as error:
                raise AgentError(f"{who.agent}: {error}; give every field of Options a default") from error
            taken = {
                field.name for name, part in parts.items() if name != "options" for field in fields(part)
            }
            for field in fields(kind):
                if field.name in taken:
                    raise AgentError(
                        f"option {field.name} of agent {who.agent!r} is also a setting; rename the option"
                    )
    parsed = parse_options(argv, parts, __doc__ or "", SHOWN, fixed)
    detector, who = parsed["detector"], parsed["game"]
    if who.agent is None:
        return merged(parsed), detector, None
    shared = {name: getattr(detector, name) for name in SHARED}
    game = AgentGame(
        who.agent, replace(parsed["rules"], **shared), parsed.get("options"), who.checkpoint_every
    )
    return merged(parsed), detector, game


def _without_no_updates(argv: Sequence[str]) -> list[str]:
    """The words without `--updates 0`, which says the same as no `--agent`."""
    at = [number for number, pair in enumerate(pairwise(argv)) if pair == ("--updates", "0")]
    return [w for n, w in enumerate(argv) if w != "--updates=0" and not {n, n - 1}.intersection(at)]


def _stored_game(game: dict[str, Any], file: Path) -> tuple[AgentArgs, Config, dict[str, Any]]:
    """Who played what, with which options, from the settings in config.json."""
    if not game:
        return AgentArgs(), Config(), {}
    try:
        check_known(game["config"], file, Config)
        return AgentArgs(game["agent"]), Config(**game["config"]), dict(game["options"])
    except (ConfigError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{file} does not hold the settings of a run; choose another --run-dir") from error


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    run(*parse(sys.argv[1:] if argv is None else argv))
