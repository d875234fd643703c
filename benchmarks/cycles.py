"""What a longer run of batch sampling is worth, cycle by cycle.

    python -m benchmarks.cycles --dataset crackforest --data-root DATA --seeds 3 --updates 1500 --out DIR

An agent plays, random moves by default. At the end of every cycle the predictor is asked about the labelled
images, which it learns from, and about others with a known truth: l_pred and average precision of each, and
the average precision that its autoencoders of all cycles so far have by the predictors of their time. Where
l_pred goes on falling on the labelled images alone, the predictor learns them by heart. This is for looking:
a rule that chose by it would have seen test masks.

Further options go to `train.py` (default: `--preset micro`). What DIR holds is not computed again. DIR gets
results.csv and table.md. `--engine ray` spreads the runs over a Ray cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

import train
from agents.load import agent_class
from agents.run import RunArgs, read_images, settings
from benchmarks.engine import EngineArgs, check, gather, is_made
from benchmarks.report import finish
from benchmarks.tables import markdown
from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.networks import keep_freed_memory, pick_device
from nbs_env.common.runs import at_least, command
from nbs_env.config import Config
from nbs_env.detect.metrics import pixel_ap
from nbs_env.env import PatchSamplingEnv
from nbs_env.predictor import prediction_loss


@dataclass(frozen=True, kw_only=True)
class CyclesArgs(EngineArgs):
    """What to look at, and where to put it."""

    out: Path
    """Folder for results and table."""
    images: int = 25
    """Unlabelled images with a known truth that are looked at."""


def play(run: RunArgs, config: Config, options: Any, images: int, file: Path) -> None:
    """Play a whole run and write a row for each cycle, unless they are there.

    Raises:
        RunError: they were made with other settings, or no image that is looked at has a defect.
    """
    now = settings(run, config, options) | {"images": images}
    if is_made(file, now):
        return
    keep_freed_memory()
    data, labeled, scored = read_images(run, config)
    scored = scored[data.has_mask[scored]]
    others = np.random.default_rng(0).permutation(scored)[:images]
    if not data.masks[others].any():
        raise RunError(f"images is {images}; none of these has a defect, so look at more")
    env = PatchSamplingEnv(data, [data.names[i] for i in labeled], config, run.device)
    env.reset(seed=run.seed)
    learner, rows, past = env.learner, [], []

    def say(indices: np.ndarray) -> tuple[float, np.ndarray]:
        found = torch.stack([learner.probability(i) for i in indices.tolist()]).cpu()
        truth = torch.from_numpy(data.masks[indices])
        loss = prediction_loss(torch.logit(found, eps=1e-6), truth, learner.weights)
        return float(loss), found.numpy()

    def look(info: dict[str, Any]) -> None:
        if learner.age != config.reinit_period - 1:  # the next update ends the cycle, and drops what it has
            return
        row: dict[str, float] = {"updates": learner.updates + 1}
        for name, indices in (("labelled", labeled), ("others", others)):
            row[f"l_pred, {name}"], found = say(indices)
            row[f"AP, {name}"] = pixel_ap(found, data.masks[indices]) or 0.0
        past.append(found)
        row["AP, others, all cycles"] = pixel_ap(np.mean(past, axis=0), data.masks[others]) or 0.0
        rows.append(row)

    agent = agent_class(run.agent)(env, run.seed, options)
    agent.learn(env, config.updates, look)
    file.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save_json({"settings": now, "rows": rows}, file)


@command("interrupted; the same command goes on")
def main() -> None:
    """Play what is missing, and write the table."""
    args, words = tyro.cli(CyclesArgs, description=__doc__, return_unknown_args=True)
    check(args)
    at_least(1, images=args.images)
    line = ["--agent", "random", "--preset", "micro", "--segmenter-steps", "0", *words]
    run, config, options = train.parse(line)
    if config.updates < config.reinit_period:
        raise RunError(f"updates is {config.updates}; choose a cycle's at least ({config.reinit_period})")
    files = [args.out.resolve() / "cells" / f"{seed}.json" for seed in range(args.seeds)]
    tasks = [
        (f"seed {seed}", partial(play, replace(run, seed=seed), config, options, args.images, file), file)
        for seed, file in enumerate(files)
    ]
    found, failed = gather(tasks, args)
    rows = [{"seed": seed} | row for seed, content in found.items() for row in content["rows"]]
    checkpoint.save_csv(rows, args.out / "results.csv")
    names = [name for name in rows[0] if name not in ("seed", "updates")]
    table = [["updates", *names]]
    for updates in sorted({row["updates"] for row in rows}):
        some = [row for row in rows if row["updates"] == updates]
        table.append([str(updates), *(f"{np.mean([row[name] for row in some]):.3f}" for name in names)])
    finish(args.out, "cycles", str(pick_device(run.device)), [markdown(table), "Means of the seeds."], failed)


if __name__ == "__main__":
    main()
