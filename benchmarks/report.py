"""Tables and curves of a comparison: interquartile means, stratified bootstrap, probability of improvement.

The statistics are those of Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical
Precipice, 2021.
"""

from __future__ import annotations

import html
import math
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch

from nbs_env.common import checkpoint
from nbs_env.common.pictures import new_figure

REPS = 10_000
History = list[dict[str, float]]
Estimate = tuple[float, float, float]


INTERVALS = "Brackets are 95 % bootstrap intervals; of two or three runs on one data set they are the range."


def estimate(
    samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], reps: int = REPS
) -> Estimate:
    """A statistic and its 95 % interval by the percentile bootstrap, each sample redrawn on its own.

    Args:
        samples: (runs,) each: the scores on one data set, say.
        statistic: of arrays (..., runs), along their last axis.
        reps: how often they are redrawn.

    Returns:
        The statistic and the interval's ends; those are NaN where a sample has fewer than two runs.
    """
    middle = float(statistic(*samples))
    if min(map(len, samples)) < 2:
        return middle, math.nan, math.nan
    interval = scipy.stats.bootstrap(
        samples,
        lambda *drawn, axis: statistic(*drawn),
        n_resamples=reps,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return middle, float(interval.low), float(interval.high)


def finish(out: Path, module: str, device: str, parts: Sequence[str], failed: Sequence[str]) -> None:
    """Write and print table.md: the command, the machine, tables and what could not be computed.

    Ends the program with 1 where something could not.
    """
    line = f"`python -m benchmarks.{module} {' '.join(sys.argv[1:])}`"
    missing = [f"Not computed: {each}" for each in failed]
    text = "\n\n".join([line, f"{machine(device)}.", *(part.strip("\n") for part in parts), *missing]) + "\n"
    checkpoint.save_text(text, out / "table.md")
    print(text)
    if failed:
        sys.exit(1)


def paired(
    found: Mapping[tuple[str, int], Mapping[str, float]], names: Sequence[str], reference: str
) -> list[list[str]]:
    """Mean F1 and AP of samplers or variants, and differences from `reference` in pairs of the same split.

    Args:
        found: `f1` and `ap` by name and seed.
        names: in the table's order.
        reference: what they are compared with.
    """
    lines = [["", "splits", "F1", "difference [95 %]", "AP", "difference [95 %]"]]
    for name in names:
        seeds = [seed for each, seed in found if each == name and (reference, seed) in found]
        cells: list[str] = []
        for figure in ("f1", "ap"):
            if not seeds:
                cells += ["-", "-"]
                continue
            values, base = (
                np.array([found[each, seed][figure] for seed in seeds]) for each in (name, reference)
            )
            middle, low, high = estimate([values - base], mean)
            interval = "" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]"
            cells += [f"{values.mean():.3f}", "-" if name == reference else f"{middle:+.3f}{interval}"]
        lines.append([name, str(len(seeds)), *cells])
    return lines


def machine(device: str) -> str:
    """What figures were measured on, in one line with versions and date."""
    cpu = f"CPU, {torch.get_num_threads()} threads"
    where = cpu if device == "cpu" else torch.cuda.get_device_name(device)
    return f"{where}; PyTorch {torch.__version__}, Python {platform.python_version()}; {date.today()}"


def interquartile_mean(*samples: np.ndarray) -> np.ndarray:
    """Mean of the middle half of all runs on all data sets, arrays (..., runs) each."""
    return scipy.stats.trim_mean(np.concatenate(samples, axis=-1), 0.25, axis=-1)


def mean(*samples: np.ndarray) -> np.ndarray:
    """Mean over the data sets of the mean over the runs, arrays (..., runs) each."""
    return np.mean([sample.mean(axis=-1) for sample in samples], axis=0)


def probability_of_improvement(*samples: np.ndarray) -> np.ndarray:
    """Mean over the data sets of P(x > y), ties half; all the xs, then all the ys, (..., runs) each."""
    half = len(samples) // 2
    shares = []
    for x, y in zip(samples[:half], samples[half:], strict=True):
        above = np.sign(x[..., :, None] - y[..., None, :])
        shares.append((above.mean(axis=(-2, -1)) + 1) / 2)
    return np.mean(shares, axis=0)


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
    seeds = sorted(
        seed
        for seed in {row["seed"] for row in rows}
        if all((a, d, seed) in scores for a in agents for d in datasets)
    )
    return np.array([[scores[agent, dataset, seed] for dataset in datasets] for seed in seeds])


def table(rows: list[dict[str, Any]], metric: str) -> list[list[str]]:
    """The comparison, header first: each data set, then all together."""
    agents = list(dict.fromkeys(row["agent"] for row in rows))
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    first = agents[0]
    lines = [
        [
            "data set",
            "agent",
            "runs",
            f"{metric}, interquartile mean [95 %]",
            f"difference from {first} [95 %]",
            f"P(better than {first}) [95 %]",
            "seconds a run",
        ]
    ]
    for group in [[name] for name in names] + ([names] if len(names) > 1 else []):
        base = score_matrix(rows, first, group, metric)
        for agent in agents:
            scores = score_matrix(rows, agent, group, metric)
            cells = ["-", "-", "-"]
            if len(scores):
                cells[0] = _cell(estimate(list(scores.T), interquartile_mean))
                if agent != first and len(base):  # the same seed is the same labelled images: pairs
                    cells[1] = _cell(estimate(list((scores - base).T), mean), "+")
                    cells[2] = _cell(estimate([*scores.T, *base.T], probability_of_improvement))
            seconds = [
                row["wall_seconds"]
                for row in rows
                if row["agent"] == agent and row["dataset"] in group and row.get("wall_seconds")
            ]
            where = group[0] if len(group) == 1 else "all"
            wall = f"{np.median(seconds):.0f}" if seconds else "-"
            lines.append([where, agent, str(len(scores)), *cells, wall])
    return lines


def _cell(value: Estimate, sign: str = "") -> str:
    middle, low, high = value
    return f"{middle:{sign}.3f} " + ("[-]" if math.isnan(low) else f"[{low:{sign}.3f}, {high:{sign}.3f}]")


def smooth(values: np.ndarray, span: int = 9) -> np.ndarray:
    """Mean over the last `span` values that are numbers, (T,) to (T,)."""
    return np.array(
        [
            np.nanmean(part) if np.isfinite(part).any() else np.nan
            for part in (values[max(0, t - span + 1) : t + 1] for t in range(len(values)))
        ]
    )


def curves(histories: Mapping[tuple[str, str, int], History], steps: int, out: Path) -> None:
    """`curves-DATASET.png`: what is learnt over updates, mean and range of the seeds; and
    `efficiency-DATASET.png`: the lowest l_pred so far over environment steps, `steps` an update,
    interquartile mean and interval.
    """
    panels = {
        "R_clone_mean": "R_clone, mean of a segment",
        "R_cover_mean": "R_cover, mean of a segment",
        "prediction_loss": "l_pred",
        "autoencoder_loss": "autoencoder's loss",
    }
    for dataset in dict.fromkeys(key[0] for key in histories):
        agents = list(dict.fromkeys(agent for name, agent, _ in histories if name == dataset))
        figure, efficiency = new_figure(11, 7), new_figure(6, 4)
        axes, axis = figure.subplots(2, 2), efficiency.subplots()
        for agent in agents:
            runs = [h for (name, a, _), h in histories.items() if (name, a) == (dataset, agent)]
            length = min(map(len, runs))
            values = {
                name: np.array([[row.get(name, np.nan) for row in run[:length]] for run in runs], float)
                for name in panels
            }
            for (name, title), panel in zip(panels.items(), axes.flat, strict=True):
                smoothed = np.array([smooth(run) for run in values[name]])
                panel.set(title=title, xlabel="update", yscale="log" if name.endswith("loss") else "linear")
                low, high = smoothed.min(0), smoothed.max(0)
                _band(panel, np.arange(1, length + 1), smoothed.mean(0), low, high, agent)
            best = np.fmin.accumulate(values["prediction_loss"], axis=1)
            points = np.unique(np.linspace(0, length - 1, 20).round().astype(int))
            points = points[np.isfinite(best[:, points]).all(0)]
            bands = np.array([estimate([best[:, t]], interquartile_mean, 2000) for t in points])
            if len(points):
                _band(axis, (points + 1) * steps, bands[:, 0], bands[:, 1], bands[:, 2], agent)
        axis.set(title=f"{dataset}: lowest l_pred so far", xlabel="environment steps")
        axes.flat[0].legend()
        axis.legend()
        for name, drawn in (("curves", figure), ("efficiency", efficiency)):
            file = out / f"{name}-{dataset.replace(':', '-')}.png"
            checkpoint.save_figure(drawn, file, dpi=110)


def _band(
    axis: Any, x: np.ndarray, middle: np.ndarray, low: np.ndarray, high: np.ndarray, label: str
) -> None:
    (line,) = axis.plot(x, middle, label=label)
    axis.fill_between(x, low, high, alpha=0.15, color=line.get_color(), linewidth=0)


def write_report(
    rows: list[dict[str, Any]],
    histories: Mapping[tuple[str, str, int], History],
    metric: str,
    steps: int,
    command: str,
    out: Path,
) -> str:
    """Write table.md, table.html and the curves into `out`; the text of table.md."""
    lines = table(rows, metric)
    failed = [f"{r['dataset']} {r['agent']} {r['seed']}: {r['error']}" for r in rows if r["error"]]
    text = [f"`{command}`", ""]
    text += ["| " + " | ".join(line) + " |" for line in lines]
    text.insert(3, "|" + " --- |" * len(lines[0]))
    text += ["", INTERVALS]
    text += ["", f"Failed: {'; '.join(failed)}"] if failed else []
    cells = [
        "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
        for tag, line in zip(["th"] + ["td"] * len(lines), lines, strict=False)
    ]
    page = (
        '<!doctype html><meta charset="utf-8"><title>Policies</title>'
        "<style>body{font-family:sans-serif}td,th{padding:2px 12px;text-align:left}</style>"
        f"<p><code>{html.escape(command)}</code></p><table>"
        + "".join(f"<tr>{line}</tr>" for line in cells)
        + "</table>"
        + "".join(f"<p>Failed: {html.escape(line)}</p>" for line in failed)
    )
    curves(histories, steps, out)
    for picture in sorted(out.glob("*.png")):
        page += f'<p><img src="{html.escape(picture.name)}"></p>'
    markdown = "\n".join(text) + "\n"
    checkpoint.save_text(markdown, out / "table.md")
    checkpoint.save_text(page, out / "table.html")
    return markdown
