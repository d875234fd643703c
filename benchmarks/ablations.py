"""What each part of a method is worth: the same runs with one thing changed at a time.

    python -m benchmarks.ablations --dataset crackforest --data-root DATA --seeds 3 --out DIR
    python -m benchmarks.ablations --part segmenter --dataset crackforest --data-root DATA --out DIR

Further options go to `nbs train` and hold for all runs (`--preset standard`, `--agent ppo`). Results that DIR
already holds are not computed again. DIR gets ablations.csv and table.md; the CRF is left out by reading
another figure of the same run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tyro

from agents.run import parse
from benchmarks import frame
from benchmarks.frame import Cell, FrameArgs
from benchmarks.policies import play, trained
from benchmarks.report import Table, report
from benchmarks.statistics import mean, shown
from nbs_env.common.runs import command

NO_CRF = "no CRF"
Variants = dict[str, Callable[[Any], list[str]]]
SAMPLING: Variants = {
    "all parts": lambda config: [],
    "profiles of one loss": lambda config: ["--profile-length", "1"],
    "no re-initialisation": lambda config: ["--reinit-period", str(config.updates)],
    "masks of one cycle": lambda config: ["--snapshot-cycles", "1"],
    "anomaly_weight balanced": lambda config: ["--anomaly-weight", "balanced"],
    "anomaly_weight as_printed": lambda config: ["--anomaly-weight", "as_printed"],
    "reward_profiles buffer": lambda config: ["--reward-profiles", "buffer"],
    "seams still": lambda config: ["--seams", "still"],
    "a quarter of the width": lambda config: ["--autoencoder-width", "16", "--bottleneck-channels", "64"],
}
"""Options of `nbs train` that take a part away, by what the table calls that and of the game's settings; the
first has all."""
SEGMENTER: Variants = {
    "as it is": lambda config: [],
    "no pasted defects": lambda config: ["--paste-share", "0"],
    "twice the steps": lambda config: ["--segmenter-steps", str(2 * config.segmenter_steps)],
}
"""Options that change what the segmenter is taught with."""
PARTS = {
    "sampling": (SAMPLING, ["--agent", "reinforce", "--segmenter-steps", "0"], "nbs_crf"),
    "segmenter": (SEGMENTER, [], "segmenter"),
}
"""Variants, what all runs have in common, and the method whose figures count."""


@dataclass(frozen=True, kw_only=True)
class AblationArgs(FrameArgs):
    """What to run, and where to put it."""

    part: Literal["sampling", "segmenter"] = "sampling"
    """What to take apart: batch sampling, or what the segmenter is taught with."""


def cells(args: AblationArgs, words: Sequence[str]) -> Iterator[Cell]:
    """Every variant under every seed; all variants of a seed one after another."""
    variants, common, _ = PARTS[args.part]
    for seed in range(args.seeds):
        line = [*common, *words, "--seed", str(seed)]
        run, detector, game = parse(line)
        settings = game.config if game and args.part == "sampling" else detector
        for number, (variant, change) in enumerate(variants.items()):
            dataset = run.dataset + (f":{run.category}" if run.category else "")
            key = {
                "variant": variant,
                "agent": game.agent_name if game else "",
                "dataset": dataset,
                "seed": seed,
            }
            yield trained(key, args.runs / f"{seed}-{number}", [*line, *change(settings)], play)


def table(rows: list[dict[str, Any]], part: str) -> Table:
    """Mean F1 and AP of each variant, and differences from the first in pairs of the same split."""
    variants, _, method = PARTS[part]
    first, *others = variants
    read = {variant: (variant, method) for variant in variants}
    read |= {NO_CRF: (first, "nbs")} if part == "sampling" else {}
    found = {
        (name, row["seed"]): row
        for name, (variant, _) in read.items()
        for row in rows
        if row["variant"] == variant and not row["error"] and f"{method}.pixel_f1" in row
    }
    lines = [["", "splits", "F1", "difference [95 %]", "AP", "difference [95 %]"]]
    for name in sorted(read, key=[first, NO_CRF, *others].index):
        seeds = [seed for each, seed in found if each == name and (first, seed) in found]
        cells: list[str] = []
        for figure in ("pixel_f1", "pixel_ap"):
            values = np.array([found[name, seed][f"{read[name][1]}.{figure}"] for seed in seeds])
            base = np.array([found[first, seed][f"{method}.{figure}"] for seed in seeds])
            cells.append(f"{values.mean():.3f}" if seeds else "-")
            cells.append(shown([values - base], mean, "+") if seeds and name != first else "-")
        lines.append([name, str(len(seeds)), *cells])
    return lines


@command("interrupted; the same command goes on")
def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the table."""
    args, words = tyro.cli(AblationArgs, args=argv, description=__doc__, return_unknown_args=True)
    played = frame.play(cells(args, words), args, "ablations.csv")
    failed = played.failed()
    device = parse([*PARTS[args.part][1], *words])[0].device
    report(args.out, "ablations", argv, device, [table(played.rows(), args.part)], failed, {})
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
