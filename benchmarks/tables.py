"""The tables of the thesis: batch sampling beside its rivals, on the same splits.

    python -m benchmarks.tables --datasets crackforest,nanotwice,mvtec:grid,mvtec:screw --data-root DATA \\
        --seeds 3 --out DIR [--agent reinforce]

Further options go to `nbs train` (default: `--preset standard`); batch sampling is played where they name an
agent. Methods: `reconstruction`, an autoencoder on
normal images; `unet` and `forest`, on the labelled images; `final_loss`, thresholding the last loss map;
`nbs` and `nbs_crf`, loss profiles without and with the CRF; `segmenter`, on the labelled images and from
pre-trained features. Results that DIR already holds are not computed again. DIR gets results.csv, and
table.md with every method's pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import tyro

from agents.game import AgentGame
from agents.run import parse
from baselines import forest, reconstruction, unet
from baselines.segmentation import SegmentationArgs, read, settings
from benchmarks import frame
from benchmarks.frame import Cell, DataArgs, Played
from benchmarks.policies import run_metrics, trained
from benchmarks.report import Table, report
from benchmarks.statistics import mean, shown
from nbs_env.common.errors import RunError
from nbs_env.common.runs import check_data, command
from nbs_env.data import GOOD
from nbs_env.desk import run as desk
from nbs_env.detect.config import DetectorConfig

METHODS = ("reconstruction", "unet", "forest", "final_loss", "nbs", "nbs_crf", "memory", "segmenter", "fused")
FIGURES = ("precision", "recall", "f1", "f1_within_2", "f1_within_5", "ap", "auroc", "aupro")
PUBLISHED: dict[str, tuple[tuple[float, ...], ...]] = {
    "mvtec:grid": ((0.01, 0.82, 0.02), (0.07, 0.51, 0.12), (0.10, 0.62, 0.17)),
    "mvtec:screw": ((0.03, 0.42, 0.06), (0.01, 0.07, 0.01), (0.05, 0.29, 0.08)),
    "nanotwice": ((0.02, 0.65, 0.04), (0.37, 0.59, 0.45), (0.21, 0.80, 0.33)),
    "crackforest": ((), (0.15, 0.34, 0.21), (0.26, 0.62, 0.36)),
}
"""Precision, recall and F1 of `reconstruction`, `unet` and `nbs_crf` in the thesis's Tables 4.4 and 4.5."""
WORDS = {"nanotwice": ["--bottleneck-channels", "500"]}
"""What the thesis sets otherwise on a data set (4.2.2), where a game is played."""
RIVALS: dict[str, Any] = {"unet": unet, "forest": forest, "reconstruction": reconstruction}

Key = tuple[str, int, str]  # data set, seed, method
Results = dict[Key, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class TablesArgs(DataArgs):
    """What to compare, and where to put it."""

    labeled: int = 5
    """Labelled images of a split."""
    rivals: str = "unet,forest,reconstruction"
    """What stands beside the segmenter, separated by commas."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        super().__post_init__()
        if unknown := set(self.chosen()) - set(RIVALS):
            raise RunError(f"rivals is {','.join(unknown)}; choose from {', '.join(RIVALS)}")

    def chosen(self) -> list[str]:
        """The rivals' names."""
        return [name for name in self.rivals.split(",") if name]


def cells(args: TablesArgs, words: Sequence[str]) -> Iterator[Cell]:
    """`nbs train` and its rivals on every split; all methods of a split one after another."""
    preset = ["--preset", "standard"] if "--preset" not in words else []
    for dataset, seed, split in args.splits():
        name, _, _ = dataset.partition(":")
        thesis = WORDS.get(name, []) if any(word.startswith("--agent") for word in words) else []
        line = [*split, "--labeled", str(args.labeled), *preset, *thesis, *words]
        place, key = args.runs / f"{dataset.replace(':', '')}-{seed}", {"dataset": dataset, "seed": seed}
        yield trained(key | {"run": "nbs"}, place / "nbs", line, play)
        run, config, _ = parse(line)
        data = {field.name: getattr(run, field.name) for field in fields(desk.DataArgs)}
        for method in args.chosen():
            own = {"image_size": config.image_size, "run_dir": place / method}
            options = RIVALS[method].Args(**data | own, seed=run.seed, device=run.device)
            made = partial(play_rival, method, options)
            yield Cell(key | {"run": method}, place / method, settings(options), made)


def play(run: desk.RunArgs, config: DetectorConfig, game: AgentGame | None) -> dict[str, Any]:
    """What `nbs train` comes to, by method."""
    metrics, seconds = run_metrics(run, config, game)
    filling, teaching = seconds.pop("memory_seconds", 0.0), seconds.pop("teaching_seconds", 0.0)
    own = {"memory": filling, "segmenter": teaching, "fused": filling + teaching}
    rest = sum(seconds.values())
    return figures(metrics, {name: own.get(name, rest) for name in metrics["methods"]})


def play_rival(method: str, args: SegmentationArgs) -> dict[str, Any]:
    """What a rival comes to, unless it did before; where its data have moved they have to be the same."""
    assert args.run_dir is not None
    file = args.run_dir / "metrics.json"
    if not file.is_file():
        RIVALS[method].run(args)
    metrics = json.loads(file.read_text(encoding="utf-8"))
    if metrics["settings"] != settings(args):
        problem = read(args, args.run_dir, "cpu")
        check_data(metrics.get("images"), problem.images, problem.data.name, args.run_dir)
    return figures(metrics, {method: metrics["seconds"]})


def figures(metrics: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Figures of each method from what metrics.json holds; empty where no scored image has a mask."""
    return {
        name: values
        and {
            **values,
            "kinds": metrics["kinds"][name],
            "labeled_kinds": metrics["labeled_kinds"],
            "images": metrics["scored_images"],
            "minutes": seconds[name] / 60,
        }
        for name, values in metrics["methods"].items()
    }


def results(played: Played) -> Results:
    """The figures of every method that has some."""
    return {
        (cell.key["dataset"], cell.key["seed"], name): figures
        for cell in played.cells
        for name, figures in played.figures.get(cell, {}).items()
        if figures
    }


def rows(played: Played) -> list[dict[str, Any]]:
    """The rows of results.csv."""
    return [
        {"dataset": dataset, "seed": seed, "method": method}
        | {name: value for name, value in figures.items() if not isinstance(value, dict | list)}
        for (dataset, seed, method), figures in results(played).items()
    ]


def main_table(results: Results) -> Table:
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
            middle, _, interval = shown([figures["f1"]], mean).partition(" ")
            cells[2] = f"{f'**{middle}**' if method == best else middle} {interval}".strip()
            known = dict(zip(("reconstruction", "unet", "nbs_crf"), PUBLISHED.get(dataset, ()), strict=False))
            thesis = [f"{value:.2f}" for value in known.get(method, ())] or ["-"] * 3
            cells.append(f"{figures['minutes'].mean():.1f}")
            images = f"{figures['images'].mean():.0f}"
            lines.append([dataset, method, str(len(figures["f1"])), images, *cells, *thesis])
    return lines


def differences_table(results: Results) -> Table:
    """What the segmenter, or else batch sampling, is ahead of each other method, in pairs of the same split.

    The last rows have the mean over all data sets; runs are redrawn within each.
    """
    shipped = next(
        m for m in ("fused", "segmenter", "nbs_crf", *METHODS) if any(key[2] == m for key in results)
    )
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
                cells.append(shown(samples, mean, "+"))
            place = datasets[0] if len(datasets) == 1 else "all data sets"
            lines.append([place, method, str(sum(map(len, pairs))), *cells])
    return lines


def kinds_table(results: Results) -> Table:
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


@command("interrupted; the same command goes on")
def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the tables."""
    args, words = tyro.cli(TablesArgs, args=argv, description=__doc__, return_unknown_args=True)
    played = frame.play(cells(args, words), args, "results.csv", rows)
    unknown = [
        (f"{cell.key['dataset']} {name}: no unlabelled image has a mask", cell.key["seed"])
        for cell, methods in played.figures.items()
        for name, figures in methods.items()
        if not figures
    ]
    found, failed = results(played), played.failed(*unknown)
    if not found:
        raise RunError("nothing could be scored: " + "; ".join(failed))
    tables = [each for each in (main_table(found), differences_table(found), kinds_table(found)) if each[1:]]
    overlays = {f"{cell.name} {cell.key['seed']}": cell.place / "overlays.png" for cell in played.figures}
    device = parse(words)[0].device
    report(args.out, "tables", argv, device, tables, failed, overlays)


if __name__ == "__main__":
    main()
