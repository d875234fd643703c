"""Compare samplers: every agent on every data set with every seed, and what they come to.

    python -m benchmarks.policies --agents random,normal-only,reinforce,ppo \\
        --datasets synthetic,crackforest --data-root DATA --seeds 5 --out DIR

What follows is handed to `train.py`: `--preset standard`, `--updates 200`, and so on. Runs that DIR already
holds are not repeated, interrupted ones are resumed, and one that fails is reported and stops no other.
DIR gets `runs.csv`, a row for each run, `table.md`, `table.html`, and curves as PNG.

`--engine ray` spreads the runs over a Ray cluster: a new one on this machine, or the one that RAY_ADDRESS
names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import train
from agents.base import file_name
from agents.run import RunArgs, run_once
from benchmarks.engine import EngineArgs, check, execute, tidy
from benchmarks.report import write_report
from nbs_env.common import checkpoint
from nbs_env.common.runs import command
from nbs_env.config import Config

Job = tuple[RunArgs, Config, Any]


@dataclass(frozen=True, kw_only=True)
class PoliciesArgs(EngineArgs):
    """What to compare, and where to put it."""

    out: Path
    """Folder for runs, table and curves; on a cluster one that all its machines see, as for the data."""
    agents: str = "random,normal-only,reinforce,ppo"
    """Agents, separated by commas; probabilities of improvement are over the first."""
    datasets: str = "synthetic"
    """Data sets, separated by commas; a category follows a colon (mvtec:grid)."""
    data_root: Path | None = None
    """Folder that holds the data sets."""
    seeds: int = 5
    """Runs of each agent on each data set, with the seeds 0, 1, ...; each has labelled images of its own."""
    metric: str = "nbs_crf.pixel_f1"
    """Figure that the table compares."""


def jobs(args: PoliciesArgs, words: list[str]) -> Iterator[Job]:
    """Every combination as the arguments of `agents.run.run_once`; `words` are options of train.py."""
    check(args)
    out = args.out.resolve()  # Ray's workers stand elsewhere
    for seed in range(args.seeds):  # all agents of a seed first: an unfinished comparison is a fair one
        for dataset in args.datasets.split(","):
            name, _, category = dataset.partition(":")
            for agent in args.agents.split(","):
                line = ["--agent", agent, "--dataset", name, "--seed", str(seed)]
                line += ["--category", category] if category else []
                line += ["--data-root", str(args.data_root)] if args.data_root and name != "synthetic" else []
                directory = out / "runs" / f"{name}{category}-{file_name(agent)}-{seed}"
                yield train.parse([*line, "--run-dir", str(directory), "--segmenter-steps", "0", *words])


def row(job: Job, error: str = "") -> dict[str, Any]:
    """A run as a row of runs.csv, from what lies in its directory."""
    run, config, _ = job
    directory = run.directory()
    dataset = run.dataset + (f":{run.category}" if run.category else "")
    values: dict[str, Any] = {"agent": run.agent, "dataset": dataset, "seed": run.seed, "error": error}
    if not error and (directory / "metrics.json").is_file():
        metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
        timing = json.loads((directory / "timing.json").read_text(encoding="utf-8"))
        history = metrics["history"]
        values["wall_seconds"] = sum(timing.values())
        values["env_steps"] = len(history) * (config.cloning_length + config.episode_length)
        for name in ("R_clone_mean", "R_cover_mean", "autoencoder_loss") if history else ():
            values[name] = float(np.mean([episode[name] for episode in history]))
        paid = [episode["R_pred"] for episode in history if not episode["warmup"]]
        values["R_pred_mean"] = float(np.mean(paid)) if paid else ""
        for method, figures in metrics["methods"].items():
            values |= {f"{method}.{name}": value for name, value in figures.items()}
    return values


@command("interrupted; the same command goes on")
def main() -> None:
    """Run what is missing, and write the report."""
    args, words = tyro.cli(PoliciesArgs, description=__doc__, return_unknown_args=True)
    todo = list(jobs(args, words))
    args.out.mkdir(parents=True, exist_ok=True)
    errors: dict[Path, str] = {}
    tasks = [(job[0].directory().name, partial(run_once, *job)) for job in todo]
    for index, problem in execute(tasks, args):
        directory = todo[index][0].directory()
        errors[directory] = problem
        if not problem:
            tidy(directory)
        rows = [row(job, errors.get(job[0].directory(), "")) for job in todo]
        checkpoint.save_csv(
            [values for values in rows if len(values) > 4 or values["error"]], args.out / "runs.csv"
        )
    command = "python -m benchmarks.policies " + " ".join(sys.argv[1:])
    histories = {
        (values["dataset"], values["agent"], values["seed"]): json.loads(
            (job[0].directory() / "metrics.json").read_text(encoding="utf-8")
        )["history"]
        for job, values in zip(todo, rows, strict=True)
        if not values["error"]
    }
    _, config, _ = todo[0]
    steps = config.cloning_length + config.episode_length
    print(write_report(rows, histories, args.metric, steps, command, args.out))
    if any(errors.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
