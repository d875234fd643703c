"""Train a sampler and a detector: `python train.py --agent reinforce`; `--help` lists every setting."""

from __future__ import annotations

import sys
from dataclasses import fields, make_dataclass
from typing import Annotated, Any

import tyro

from agents.base import AgentError
from agents.load import agent_class
from agents.run import RunArgs, run, stored_run
from nbs_env.common.runs import command
from nbs_env.config import PRESETS, Config

FLAT = tyro.conf.arg(name="", prefix_name=False)


def parse(arguments: list[str]) -> tuple[RunArgs, Config, Any]:
    """What to run, the environment's settings and the agent's options, from the command line.

    The preset gives the defaults of the settings, and `paper` those of the agent's options that have
    `AS_PRINTED`; with `--resume` the stored run gives all defaults.
    """
    quiet = [a for a in arguments if a not in ("-h", "--help")]
    args, _ = tyro.cli(RunArgs, args=quiet, return_unknown_args=True, add_help=False)
    config = PRESETS[args.preset]
    options: dict[str, Any] = {}
    stored = stored_run(args.directory()) if args.resume else None
    if stored is not None:
        args, config, options = stored
    options_class = getattr(agent_class(args.agent), "Options", None)
    if stored is None and args.preset == "paper":
        options = getattr(options_class, "AS_PRINTED", {})
    parts: list[tuple[str, Any, Any]] = [("run", RunArgs, args), ("config", Config, config)]
    if options_class is not None:
        try:
            parts.append(("agent_options", options_class, options_class(**options)))
        except TypeError as error:
            raise AgentError(f"{args.agent}: {error}; give every field of Options a default") from error
    names = [field.name for _, kind, _ in parts for field in fields(kind)]
    for name in names:
        if names.count(name) > 1:
            raise AgentError(f"option {name} of agent {args.agent!r} is also a setting; rename the option")
    everything = make_dataclass("Everything", [(name, Annotated[kind, FLAT]) for name, kind, _ in parts])
    default = everything(**{name: value for name, _, value in parts})
    parsed = tyro.cli(everything, args=arguments, default=default, description=__doc__)
    return parsed.run, parsed.config, getattr(parsed, "agent_options", None)


@command()
def main() -> None:
    """Run what the command line says."""
    run(*parse(sys.argv[1:]))


if __name__ == "__main__":
    main()
