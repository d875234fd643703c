"""The tables of the thesis: batch sampling beside its rivals, on the same splits.

    python -m benchmarks.tables --datasets crackforest,nanotwice,mvtec:grid,mvtec:screw --data-root DATA \\
        --seeds 3 --out DIR

Further options go to `train.py` (default: `--preset standard`). Methods: `reconstruction`, an autoencoder on
normal images; `unet` and `forest`, on the labelled images; `final_loss`, thresholding the last loss map;
`nbs` and `nbs_crf`, loss profiles without and with the CRF; `segmenter`, on the labelled images and from
pre-trained features. Results that DIR already holds are not computed again. DIR gets results.csv, table.md,
and table.html with every method's pictures.
"""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import train
from agents.run import run_once
from baselines import forest, reconstruction, unet
from baselines.segmentation import SegmentationArgs, read, settings
from benchmarks.engine import EngineArgs, check, execute, tidy
from benchmarks.report import INTERVALS, estimate, machine, mean
from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.networks import pick_device
from nbs_env.common.runs import check_data, check_settings, command
from nbs_env.data import GOOD

METHODS = ("reconstruction", "unet", "forest", "final_loss", "nbs", "nbs_crf", "segmenter")
FIGURES = ("precision", "recall", "f1", "f1_within_2", "f1_within_5", "ap", "auroc", "aupro")
PUBLISHED: dict[str, tuple[tuple[float, ...], ...]] = {
    "mvtec:grid": ((0.01, 0.82, 0.02), (0.07, 0.51, 0.12), (0.10, 0.62, 0.17)),
    "mvtec:screw": ((0.03, 0.42, 0.06), (0.01, 0.07, 0.01), (0.05, 0.29, 0.08)),
    "nanotwice": ((0.02, 0.65, 0.04), (0.37, 0.59, 0.45), (0.21, 0.80, 0.33)),
    "crackforest": ((), (0.15, 0.34, 0.21), (0.26, 0.62, 0.36)),
}
"""Precision, recall and F1 of `reconstruction`, `unet` and `nbs_crf` in the thesis's Tables 4.4 and 4.5."""
WORDS = {"nanotwice": ["--bottleneck-channels", "500"]}
"""What the thesis sets otherwise on a data set (4.2.2)."""
RIVALS: tuple[tuple[str, Any], ...] = (("unet", unet), ("forest", forest), ("reconstruction", reconstruction))

Key = tuple[str, int, str]  # data set, seed, method
Results = dict[Key, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class TablesArgs(EngineArgs):
    """What to compare, and where to put it."""

    out: Path
    """Folder for runs and tables."""
    datasets: str = "crackforest"
    """Data sets, separated by commas; a category follows a colon."""
    data_root: Path | None = None
    """Folder that holds the data sets."""
    labeled: int = 5
    """Labelled images of a split."""
    rivals: str = "unet,forest,reconstruction"
    """What stands beside `train.py`, separated by commas."""

    def check(self) -> None:
        """Refuse what could not run."""
        check(self)
        if unknown := set(self.chosen()) - set(dict(RIVALS)):
            raise RunError(f"rivals is {','.join(unknown)}; choose from {', '.join(dict(RIVALS))}")

    def chosen(self) -> list[str]:
        """The rivals' names."""
        return [name for name in self.rivals.split(",") if name]


def jobs(args: TablesArgs, words: list[str]) -> list[tuple[str, int, str, Callable[[], Any], Path]]:
    """Data set, seed, method, what runs it, and its directory; all methods of a split one after another."""
    args.check()
    out = args.out.resolve()  # Ray's workers stand elsewhere
    found: list[tuple[str, int, str, Callable[[], Any], Path]] = []
    for seed in range(args.seeds):
        for dataset in args.datasets.split(","):
            name, _, category = dataset.partition(":")
            root = None if name == "synthetic" else args.data_root
            folder = out / "runs" / f"{name}{category}-{seed}"
            line = ["--dataset", name, "--seed", str(seed), "--run-dir", str(folder / "nbs")]
            line += ["--category", category] if category else []
            line += ["--labeled", str(args.labeled)] + (["--data-root", str(root)] if root else [])
            line += ["--preset", "standard"] if "--preset" not in words else []
            job = train.parse([*line, *WORDS.get(name, []), *words])
            found.append((dataset, seed, "nbs", partial(run_once, *job), folder / "nbs"))
            run, config, _ = job
            for method in args.chosen():
                options = dict(RIVALS)[method].Args(
                    dataset=name,
                    data_root=root,
                    category=run.category,
                    labeled=args.labeled,
                    image_size=config.image_size,
                    difficulty=run.difficulty,
                    mask_values=run.mask_values,
                    seed=run.seed,
                    run_dir=folder / method,
                    device=run.device,
                )
                found.append((dataset, seed, method, partial(rival_once, method, options), folder / method))
    return found


def rival_once(method: str, args: SegmentationArgs) -> None:
    """Run a rival, unless it was run before.

    Raises:
        RunError: the directory holds a run with other settings or data; and whatever the rival raises.
    """
    assert args.run_dir is not None
    file = args.run_dir / "metrics.json"
    if not file.is_file():
        dict(RIVALS)[method].run(args)
        return
    stored, now = json.loads(file.read_text(encoding="utf-8")), settings(args)
    check_settings(stored["settings"], now, file)
    if stored["settings"]["data_root"] != now["data_root"]:
        problem = read(args, args.run_dir, "cpu")
        check_data(stored.get("images"), problem.images, problem.data.name, args.run_dir)


def collect(args: TablesArgs, words: list[str]) -> tuple[Results, list[str]]:
    """Compute what is missing; the figures, and what failed."""
    results: Results = {}
    failed: dict[Path, str] = {}
    reasons: dict[str, list[str]] = {}  # one line for all splits that fail alike
    todo = jobs(args, words)
    tasks = [(f"{place.parent.name} {place.name}", run) for _, _, _, run, place in todo]
    for index, problem in execute(tasks, args):
        place = todo[index][-1]
        failed[place] = problem
        if not problem:
            tidy(place)
    for dataset, seed, method, _, place in todo:
        if problem := failed.get(place, ""):
            reasons.setdefault(f"{dataset} {method}: {problem}", []).append(str(seed))
            continue
        metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
        timing = place / "timing.json"
        seconds = json.loads(timing.read_text(encoding="utf-8")) if timing.is_file() else {}
        teaching = seconds.pop("teaching_seconds", 0.0)
        for name, figures in metrics["methods"].items():
            if not figures:
                reasons.setdefault(f"{dataset} {name}: no unlabelled image has a mask", []).append(str(seed))
                continue
            minutes = teaching if name == "segmenter" else sum(seconds.values()) or metrics["seconds"]
            results[dataset, seed, name] = {
                **figures,
                "kinds": metrics["kinds"][name],
                "labeled_kinds": metrics["labeled_kinds"],
                "images": metrics["scored_images"],
                "minutes": minutes / 60,
                "picture": place / "overlays.png",
            }
    return results, [f"{reason} (seed {', '.join(seeds)})" for reason, seeds in reasons.items()]


def main_table(results: Results) -> list[list[str]]:
    """Mean figures and minutes, with the 95 % interval of F1, beside the thesis.

    The best F1 of the methods that have all splits is bold. `images` is how many were scored in a split.
    """
    lines = [
        ["data set", "method", "splits", "images", *FIGURES, "minutes", "thesis P", "thesis R", "thesis F1"]
    ]
    for dataset in dict.fromkeys(key[0] for key in results):
        rows = {}
        for method in METHODS:
            runs = [figures for (d, _, m), figures in results.items() if (d, m) == (dataset, method)]
            if runs:
                rows[method] = {
                    name: np.array([run[f"pixel_{name}"] for run in runs if run[f"pixel_{name}"] is not None])
                    for name in FIGURES
                } | {name: np.array([run[name] for run in runs]) for name in ("images", "minutes")}
        best = max(rows, key=lambda method: (len(rows[method]["f1"]), rows[method]["f1"].mean()))
        for method, figures in rows.items():
            cells = [f"{figures[name].mean():.3f}" if len(figures[name]) else "-" for name in FIGURES]
            middle, low, high = estimate([figures["f1"]], mean)
            interval = "" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]"
            cells[2] = (f"**{middle:.3f}**" if method == best else f"{middle:.3f}") + interval
            known = dict(zip(("reconstruction", "unet", "nbs_crf"), PUBLISHED.get(dataset, ()), strict=False))
            thesis = [f"{value:.2f}" for value in known.get(method, ())] or ["-"] * 3
            cells.append(f"{figures['minutes'].mean():.1f}")
            images = f"{figures['images'].mean():.0f}"
            lines.append([dataset, method, str(len(figures["f1"])), images, *cells, *thesis])
    return lines


def differences_table(results: Results) -> list[list[str]]:
    """What the segmenter, or else batch sampling, is ahead of each other method, in pairs of the same split.

    The last rows have the mean over all data sets; runs are redrawn within each.
    """
    shipped = next(m for m in ("segmenter", "nbs_crf", *METHODS) if any(key[2] == m for key in results))
    lines = [["data set", f"{shipped} less", "pairs", "F1 [95 %]", "AP [95 %]"]]
    every = list(dict.fromkeys(key[0] for key in results))
    for datasets in [[dataset] for dataset in every] + ([every] if len(every) > 1 else []):
        for method in METHODS:
            pairs = [
                [
                    (results[d, seed, shipped], figures)
                    for (d, seed, m), figures in results.items()
                    if (d, m) == (dataset, method)
                    and (d, seed, shipped) in results
                    and figures["pixel_ap"] is not None  # None: no scored image has a defect
                ]
                for dataset in datasets
            ]
            if method == shipped or not all(pairs):
                continue
            cells = []
            for name in ("pixel_f1", "pixel_ap"):
                samples = [np.array([ours[name] - theirs[name] for ours, theirs in some]) for some in pairs]
                middle, low, high = estimate(samples, mean)
                cells.append(f"{middle:+.3f}" + ("" if np.isnan(low) else f" [{low:+.3f}, {high:+.3f}]"))
            place = datasets[0] if len(datasets) == 1 else "all data sets"
            lines.append([place, method, str(sum(map(len, pairs))), *cells])
    return lines


def kinds_table(results: Results) -> list[list[str]]:
    """Pooled F1 on kinds of defects that the labelled images showed and on others, and recall by kind."""
    lines = [["data set", "method", "F1, kinds seen", "F1, kinds not seen", "recall by kind"]]
    for dataset in dict.fromkeys(key[0] for key in results):
        for method in METHODS:
            pooled = {True: np.zeros(3), False: np.zeros(3)}
            by_kind: dict[str, np.ndarray] = {}
            for (d, _, m), figures in results.items():
                if (d, m) == (dataset, method):
                    for kind, counts in figures["kinds"].items():
                        pooled[kind in figures["labeled_kinds"]] += counts if kind != GOOD else 0
                        by_kind[kind] = by_kind.get(kind, np.zeros(3)) + counts
            defects = {kind: counts for kind, counts in by_kind.items() if kind != GOOD}
            if len(defects) > 1:
                cells = [_f1(pooled[True]), _f1(pooled[False])]
                recalls = [
                    f"{kind} {tp / max(1, tp + fn):.2f}" for kind, (tp, _, fn) in sorted(defects.items())
                ]
                lines.append([dataset, method, *cells, ", ".join(recalls)])
    return lines


def _f1(counts: np.ndarray) -> str:
    tp, fp, fn = counts
    return f"{2 * tp / (2 * tp + fp + fn):.3f}" if tp + fp + fn else "-"


def markdown(lines: list[list[str]]) -> str:
    """A table whose first line is its head."""
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], "|" + " --- |" * len(lines[0]), *text[1:]]) + "\n"


def write(results: Results, failed: list[str], command: str, device: str, out: Path) -> str:
    """Write results.csv, table.md and table.html; the text of table.md."""
    rows = [
        {"dataset": dataset, "seed": seed, "method": method}
        | {name: value for name, value in figures.items() if not isinstance(value, dict | list | Path)}
        for (dataset, seed, method), figures in results.items()
    ]
    checkpoint.save_csv(rows, out / "results.csv")
    tables = [main_table(results), differences_table(results), kinds_table(results)]
    body = "\n".join(markdown(table) for table in tables if len(table) > 1)
    problems = f"\nNot computed: {'; '.join(failed)}\n" if failed else ""
    page = f'<!doctype html><meta charset="utf-8"><title>Tables</title><pre>{html.escape(command)}</pre>'
    for table in tables:
        page += "<table border=1 cellpadding=4>"
        for line in table:
            cells = "".join(f"<td>{html.escape(cell.replace('**', ''))}</td>" for cell in line)
            page += f"<tr>{cells}</tr>"
        page += "</table><br>"
    pictures = {figures["picture"]: key for key, figures in results.items()}  # once for all methods of a run
    for picture, (dataset, seed, _) in pictures.items():
        where = picture.relative_to(out.resolve()).as_posix()
        page += f"<h3>{html.escape(f'{dataset}, seed {seed}: {picture.parent.name}')}</h3>"
        page += f'<img src="{html.escape(where)}" width=700>'
    checkpoint.save_text(page, out / "table.html")
    content = f"`{command}`\n\n{machine(device)}.\n\n{body}\n{INTERVALS}\n{problems}"
    checkpoint.save_text(content, out / "table.md")
    return content


@command("interrupted; the same command goes on")
def main() -> None:
    """Run what is missing, and write the tables."""
    args, words = tyro.cli(TablesArgs, description=__doc__, return_unknown_args=True)
    results, failed = collect(args, words)
    device = str(pick_device(train.parse(words)[0].device))
    if not results:
        raise RunError("nothing could be computed: " + "; ".join(failed))
    line = "python -m benchmarks.tables " + " ".join(sys.argv[1:])
    print(write(results, failed, line, device, args.out))


if __name__ == "__main__":
    main()
