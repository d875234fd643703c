"""What each part of a method is worth: the same runs with one thing changed at a time.

    python -m benchmarks.ablations --dataset crackforest --data-root DATA --seeds 3 --out DIR
    python -m benchmarks.ablations --part segmenter --dataset crackforest --data-root DATA --out DIR

Further options go to `train.py` and hold for all runs (`--preset standard`, `--agent ppo`). Results that DIR
already holds are not computed again. DIR gets ablations.csv and table.md; the CRF is left out by reading
another figure of the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro

import train
from agents.run import run_once
from benchmarks.engine import EngineArgs, check, execute, tidy
from benchmarks.policies import row
from benchmarks.report import INTERVALS, finish, paired
from benchmarks.tables import markdown
from nbs_env.common import checkpoint
from nbs_env.common.networks import pick_device
from nbs_env.common.runs import command
from nbs_env.config import Config

NO_CRF = "no CRF"
Variants = dict[str, Callable[[Config], list[str]]]
SAMPLING: Variants = {
    "all parts": lambda config: [],
    "profiles of one loss": lambda config: ["--profile-length", "1"],
    "no re-initialisation": lambda config: ["--reinit-period", str(config.updates)],
    "masks of one cycle": lambda config: ["--snapshot-cycles", "1"],
    "anomaly_weight balanced": lambda config: ["--anomaly-weight", "balanced"],
    "anomaly_weight as_printed": lambda config: ["--anomaly-weight", "as_printed"],
    "reward_profiles buffer": lambda config: ["--reward-profiles", "buffer"],
    "seams still": lambda config: ["--seams", "still"],
    "seams by the cycle": lambda config: ["--seams", "cycle"],
    "pre-trained features": lambda config: ["--reconstruct", "features"],
    "a quarter of the width": lambda config: ["--autoencoder-width", "16", "--bottleneck-channels", "64"],
}
"""Options of `train.py` that take a part away, by what the table calls that; the first has all."""
SEGMENTER: Variants = {
    "as it is": lambda config: [],
    "no pasted defects": lambda config: ["--paste-share", "0"],
    "+ good images": lambda config: ["--good-share", "0.25"],
    "+ made-up defects": lambda config: ["--synthetic-share", "0.25"],
    "+ soft targets": lambda config: ["--soft-targets"],
    "twice the steps": lambda config: ["--segmenter-steps", str(2 * config.segmenter_steps)],
    "random weights": lambda config: ["--segmenter-scratch"],
    "+ batch sampling's targets": lambda c: ["--updates", str(c.beta_horizon), "--sampling-targets"],
}
"""Options that change what the segmenter is taught with; two rounds take twice the steps, so these stand
there as well. Batch sampling has as many updates as its preset's beta has."""
PARTS = {
    "sampling": (SAMPLING, ["--segmenter-steps", "0"], "nbs_crf"),
    "segmenter": (SEGMENTER, ["--updates", "0"], "segmenter"),
}
"""Variants, what all runs have in common, and the method whose figures count."""


@dataclass(frozen=True, kw_only=True)
class AblationArgs(EngineArgs):
    """What to run, and where to put it."""

    out: Path
    """Folder for runs and table."""
    part: Literal["sampling", "segmenter"] = "sampling"
    """What to take apart: batch sampling, or what the segmenter is taught with."""


def jobs(args: AblationArgs, words: list[str]) -> list[tuple[str, Any]]:
    """Each variant with the arguments of `agents.run.run_once`; all variants of a seed one after another."""
    check(args)
    variants, common, _ = PARTS[args.part]
    out = args.out.resolve()  # Ray's workers stand elsewhere
    found = []
    for seed in range(args.seeds):
        for number, (variant, change) in enumerate(variants.items()):
            line = [*common, *words, "--seed", str(seed)]
            line += ["--run-dir", str(out / "runs" / f"{seed}-{number}")]
            _, config, _ = train.parse(line)
            found.append((variant, train.parse([*line, *change(config)])))
    return found


def table(rows: list[dict[str, Any]], part: str) -> list[list[str]]:
    """Mean figures of each variant, and differences from the first in pairs of the same split."""
    variants, _, method = PARTS[part]
    (first, *others), found = variants, {}

    def figures(each: dict[str, Any], method: str) -> dict[str, float]:
        return {"f1": each[f"{method}.pixel_f1"], "ap": each[f"{method}.pixel_ap"]}

    for each in rows:
        if not each["error"] and f"{method}.pixel_f1" in each:
            found[each["variant"], each["seed"]] = figures(each, method)
            if part == "sampling" and each["variant"] == first:
                found[NO_CRF, each["seed"]] = figures(each, "nbs")
    names = [first, *([NO_CRF] if part == "sampling" else []), *others]
    return paired(found, names, first)


@command("interrupted; the same command goes on")
def main() -> None:
    """Run what is missing, and write the table."""
    args, words = tyro.cli(AblationArgs, description=__doc__, return_unknown_args=True)
    todo = jobs(args, words)
    args.out.mkdir(parents=True, exist_ok=True)
    errors: dict[int, str] = {}
    tasks = [(f"{variant}, seed {job[0].seed}", partial(run_once, *job)) for variant, job in todo]
    for index, problem in execute(tasks, args):
        errors[index] = problem
        if not problem:
            tidy(todo[index][1][0].directory())
        rows = [
            {"variant": variant} | row(job, errors.get(number, ""))
            for number, (variant, job) in enumerate(todo)
        ]
        checkpoint.save_csv(rows, args.out / "ablations.csv")
    failed = [f"{tasks[index][0]}: {each}" for index, each in errors.items() if each]
    parts = [markdown(table(rows, args.part)), INTERVALS]
    finish(args.out, "ablations", str(pick_device(todo[0][1][0].device)), parts, failed)


if __name__ == "__main__":
    main()
