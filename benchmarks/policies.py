"""Compare samplers: every agent on every data set with every seed, and what they come to.

    python -m benchmarks.policies --agents random,normal-only,reinforce,ppo \\
        --datasets synthetic,crackforest --data-root DATA --seeds 5 --out DIR

What follows is handed to `nbs train`: `--preset standard`, `--updates 200`, and so on. Runs that DIR already
holds are not repeated, interrupted ones are resumed, and one that fails is reported and stops no other.
DIR gets `runs.csv`, a row for each run, `table.md`, and curves as PNG.

`--engine ray` spreads the runs over a Ray cluster: a new one on this machine, or the one that RAY_ADDRESS
names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from agents.base import file_name
from agents.game import AgentGame
from agents.run import parse
from benchmarks import frame
from benchmarks.frame import Cell, DataArgs
from benchmarks.report import Table, report
from benchmarks.statistics import interquartile_mean, mean, probability_of_improvement, shown
from nbs_env.common import checkpoint
from nbs_env.common.pictures import new_figure
from nbs_env.common.runs import command
from nbs_env.common.settings import Count
from nbs_env.desk.run import RunArgs, run_once, settings
from nbs_env.detect.config import DetectorConfig

PASSING = ("checkpoint.pt", "detector.pt", "nbs.pt", "teaching.pt")
"""What a finished run no longer needs, most of what it takes on disc."""


@dataclass(frozen=True, kw_only=True)
class PoliciesArgs(DataArgs):
    """What to compare, and where to put it."""

    agents: str = "random,normal-only,reinforce,ppo"
    """Agents, separated by commas; probabilities of improvement are over the first."""
    datasets: str = "synthetic"
    """Data sets, separated by commas; a category follows a colon (mvtec:grid)."""
    seeds: Count = 5
    """Runs of each agent on each data set, with the seeds 0, 1, ...; each has labelled images of its own."""
    metric: str = "nbs_crf.pixel_f1"
    """Figure that the table compares."""


def run_metrics(
    run: RunArgs, config: DetectorConfig, game: AgentGame | None
) -> tuple[dict[str, Any], dict[str, float]]:
    """What `nbs train` comes to, unless it did before: the content of metrics.json and of timing.json."""
    metrics = run_once(run, config, game)
    for name in PASSING:
        (run.directory() / name).unlink(missing_ok=True)
    return metrics, json.loads((run.directory() / "timing.json").read_text(encoding="utf-8"))


def play(run: RunArgs, config: DetectorConfig, game: AgentGame | None) -> dict[str, Any]:
    """A run's figures, as a row of the CSV has them."""
    metrics, seconds = run_metrics(run, config, game)
    history = metrics["history"]
    values: dict[str, Any] = {"wall_seconds": sum(seconds.values())}
    if game:
        values["env_steps"] = len(history) * (game.config.cloning_length + game.config.episode_length)
    for name in ("R_clone_mean", "R_cover_mean", "autoencoder_loss") if history else ():
        values[name] = float(np.mean([episode[name] for episode in history]))
    paid = [episode["R_pred"] for episode in history if not episode["warmup"]]
    values["R_pred_mean"] = float(np.mean(paid)) if paid else ""
    for method, figures in metrics["methods"].items():
        values |= {f"{method}.{name}": value for name, value in figures.items()}
    return values


def trained(key: Mapping[str, Any], place: Path, words: Sequence[str], play: Callable[..., Any]) -> Cell:
    """The cell of a run of `nbs train` with these options; `play` gets what `parse` makes of them."""
    job = parse([*words, "--run-dir", str(place)])
    return Cell(dict(key), place, settings(*job), partial(play, *job))


def cells(args: PoliciesArgs, words: Sequence[str]) -> Iterator[Cell]:
    """Every combination; `words` are options of `nbs train`."""
    for dataset, seed, split in args.splits():
        for agent in args.agents.split(","):
            place = args.runs / f"{dataset.replace(':', '')}-{file_name(agent)}-{seed}"
            key = {"agent": agent, "dataset": dataset, "seed": seed}
            yield trained(key, place, [*split, "--segmenter-steps", "0", *words, "--agent", agent], play)


def score_matrix(rows: list[dict[str, Any]], agent: str, datasets: list[str], metric: str) -> np.ndarray:
    """Scores (seeds, data sets) of the seeds that all agents have finished on all of these data sets.

    Agents that have finished none of them do not count.
    """
    scores = {
        (row["agent"], row["dataset"], row["seed"]): row[metric]
        for row in rows
        if row.get(metric) not in (None, "")
    }
    agents = {name for name, dataset, _ in scores if dataset in datasets} | {agent}
    seeds = sorted({row["seed"] for row in rows})
    whole = [seed for seed in seeds if all((a, d, seed) in scores for a in agents for d in datasets)]
    return np.array([[scores[agent, dataset, seed] for dataset in datasets] for seed in whole])


def table(rows: list[dict[str, Any]], metric: str) -> Table:
    """Each data set, then all together."""
    agents = list(dict.fromkeys(row["agent"] for row in rows))
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    first = agents[0]
    head = [f"{metric}, interquartile mean", f"difference from {first}", f"P(better than {first})"]
    lines = [["data set", "agent", "runs", *(f"{each} [95 %]" for each in head), "seconds a run"]]
    for group in [[name] for name in names] + ([names] if len(names) > 1 else []):
        base = score_matrix(rows, first, group, metric)
        for agent in agents:
            scores = score_matrix(rows, agent, group, metric)
            cells = ["-", "-", "-"]
            if len(scores):
                cells[0] = shown(list(scores.T), interquartile_mean)
                if agent != first and len(base):  # the same seed is the same labelled images: pairs
                    cells[1] = shown(list((scores - base).T), mean, "+")
                    cells[2] = shown([*scores.T, *base.T], probability_of_improvement)
            seconds = [
                row["wall_seconds"]
                for row in rows
                if row["agent"] == agent and row["dataset"] in group and row.get("wall_seconds")
            ]
            where = group[0] if len(group) == 1 else "all"
            wall = f"{np.median(seconds):.0f}" if seconds else "-"
            lines.append([where, agent, str(len(scores)), *cells, wall])
    return lines


def smooth(values: np.ndarray, span: int = 9) -> np.ndarray:
    """Mean over the last `span` values that are numbers, (T,) to (T,)."""
    parts = [values[max(0, t - span + 1) : t + 1] for t in range(len(values))]
    return np.array([np.nanmean(part) if np.isfinite(part).any() else np.nan for part in parts])


def curves(histories: Mapping[tuple[str, str, int], list[dict[str, float]]], out: Path) -> dict[str, Path]:
    """What is learnt over updates, mean and range of the seeds: a picture of each data set."""
    pictures = {}
    panels = {
        "R_clone_mean": "R_clone, mean of a segment",
        "R_cover_mean": "R_cover, mean of a segment",
        "prediction_loss": "l_pred",
        "autoencoder_loss": "autoencoder's loss",
    }
    for dataset in dict.fromkeys(key[0] for key in histories):
        figure = new_figure(11, 7)
        axes = figure.subplots(2, 2)
        for agent in dict.fromkeys(agent for name, agent, _ in histories if name == dataset):
            runs = [h for (name, a, _), h in histories.items() if (name, a) == (dataset, agent)]
            length = min(map(len, runs))
            for (name, title), panel in zip(panels.items(), axes.flat, strict=True):
                values = np.array([[row.get(name, np.nan) for row in run[:length]] for run in runs], float)
                smoothed, updates = np.array([smooth(run) for run in values]), np.arange(1, length + 1)
                panel.set(title=title, xlabel="update", yscale="log" if name.endswith("loss") else "linear")
                (line,) = panel.plot(updates, smoothed.mean(0), label=agent)
                band = {"alpha": 0.15, "color": line.get_color(), "linewidth": 0}
                panel.fill_between(updates, smoothed.min(0), smoothed.max(0), **band)
        axes.flat[0].legend()
        pictures[dataset] = out / f"curves-{dataset.replace(':', '-')}.png"
        checkpoint.save_figure(figure, pictures[dataset], dpi=110)
    return pictures


@command("interrupted; the same command goes on")
def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the report."""
    args, words = tyro.cli(PoliciesArgs, args=argv, description=__doc__, return_unknown_args=True)
    played = frame.play(cells(args, words), args, "runs.csv")
    histories = {}
    for cell in played.figures:
        metrics = json.loads((cell.place / "metrics.json").read_text(encoding="utf-8"))
        histories[cell.key["dataset"], cell.key["agent"], cell.key["seed"]] = metrics["history"]
    device = parse(["--agent", args.agents.split(",")[0], *words])[0].device
    tables, failed = [table(played.rows(), args.metric)], played.failed()
    report(args.out, "policies", argv, device, tables, failed, curves(histories, args.out))
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
