"""Train and score the rivals of ALCN and D-AnoGAN: `python -m baselines.classes --method vae,pca`.

A model for each method and each class; `table.md` has their AUC beside the papers'. Data, protocols and
splits are those of `baselines.alcn`, and `wheel` that of `baselines.d_anogan`. Without arguments: wheels of
32 pixels, made on the fly.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from baselines.classes.method import Method, ModelConfig
from baselines.classes.methods import METHODS
from baselines.classes.published import published
from baselines.common import ClassesArgs, Kept, claim_all, markdown, open_run, parse, sides, train_all
from baselines.tasks import Task, class_tasks
from nbs_env.common import checkpoint
from nbs_env.common.curves import Curves
from nbs_env.common.errors import RunError
from nbs_env.common.networks import pick_device
from nbs_env.common.runs import at_least, command
from nbs_env.detect.metrics import image_auroc

FAST = torch.cpu._is_avx512_bf16_supported()
LOG_EVERY = 50
"""Steps from one point of a curve to the next."""


@dataclass(frozen=True)
class Args(ClassesArgs):
    """What to train on, and where to put it."""

    dataset: Literal[
        "synthetic", "wheel", "mnist", "fashion_mnist", "cifar10", "mvtec", "plant_village", "folder"
    ] = "synthetic"
    """Data set; `synthetic` and `wheel` are wheels, made on the fly; `folder` has a folder for each class."""
    protocol: Literal[1, 2] = 2
    """1: the class is anomalous and all others are normal; 2: it is normal and all others are anomalous.
    wheel, mvtec and plant_village say themselves what is normal."""
    classes: str = "3-closed-4,5-forked-5"
    """`all`, or classes (categories of mvtec, species of plant_village), separated by commas."""
    method: str = "pca,vae"
    """`all`, or methods (pca, vae, deep_svdd, ganomaly, skip_ganomaly, f_anogan, egbad, ocgan, oled, arae),
    separated by commas."""
    steps: int = 0
    """Steps of training; 0: the method's own budget, 3000 for most."""
    test_limit: int = 0
    """Images of each kind, normal and anomalous, to test on, drawn at random; 0: all."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    model: ModelConfig = field(default_factory=lambda: ModelConfig(size=32, width=0.5, bfloat16=FAST))
    """What all methods have in common."""

    def __post_init__(self) -> None:
        """Check types first, then values."""
        super().__post_init__()
        at_least(0, test_limit=self.test_limit, steps=self.steps)


def train_one(args: Args, method: str, task: Task, name: str, directory: Path) -> dict[str, Any]:
    """Train one model, score it, and write everything into `directory`.

    Returns:
        `auc` by column of the table, `parameters`, `steps`, and `minutes` of training, earlier runs included.
    """
    device = str(pick_device(args.device))
    train, test, truths = task.draw(args.limit, args.test_limit, np.random.default_rng(args.seed))
    model = METHODS[method](args.model, args.steps, args.seed, device)
    more = {"method": method, "class": name, "steps": model.steps}
    saved = open_run(args, ("classes", "method", "steps"), task.data, directory, device, **more)
    saved.restore(model)
    images = torch.from_numpy(task.data.images[train]).to(device)
    seconds = _train(args, model, images, f"{method} {name}", saved)
    scores = model.scores(task.data.images[test])
    auc = {}
    for kind, truth in truths.items():
        rows = truth >= 0
        value = image_auroc(scores[rows], truth[rows] == 1)
        assert value is not None, "both kinds are in the test set"
        auc[kind or name] = value
    figures = {"parameters": model.parameters(), "steps": model.steps, "minutes": seconds / 60}
    checkpoint.save_json({"auc": auc, **figures}, directory / "metrics.json")
    return {"auc": auc, **figures}


def _train(args: Args, model: Method, images: torch.Tensor, title: str, saved: Kept) -> float:
    """Train to the end of the budget; seconds, those of an interrupted run up to its checkpoint included."""
    directory = saved.file.parent
    timing = directory / "timing.json"  # not in the checkpoint: equal runs have equal bits there
    before = 0.0
    if saved.state and timing.is_file():
        with checkpoint.unpacking(timing):
            before = float(json.loads(timing.read_text(encoding="utf-8"))["seconds"])
    if model.done >= model.steps:
        return before
    start = time.perf_counter()
    with Curves(directory, model.done + 1) as writer:
        bar = tqdm(range(model.done, model.steps), desc=title, unit="step")
        for _ in bar:
            figures = model.advance(images)
            last = model.done == model.steps
            if model.done % LOG_EVERY == 0 or last:
                values = model.check(figures)
                for key, value in values.items():
                    writer.add_scalar(key, value, model.done)
                bar.set_postfix({key: f"{value:.4f}" for key, value in values.items()})
            if model.done % args.checkpoint_every == 0 or last:
                model.check(figures)
                saved.save(model)
                seconds = before + time.perf_counter() - start
                checkpoint.save_json({"seconds": seconds}, timing)
    return seconds


def table(args: Args, results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """AUC by method and class as Markdown, the papers' below each, with sizes and minutes."""
    merged = {
        method: {kind: auc for each in by_class.values() for kind, auc in each["auc"].items()}
        for method, by_class in results.items()
    }
    names = list(next(iter(merged.values())))
    rows = [["", *names, "mean", "parameters", "steps", "minutes"], ["---"] * (len(names) + 5)]
    for method, auc in merged.items():
        figures = list(results[method].values())
        cells = [f"{auc[name]:.3f}" for name in names] + [f"{np.mean(list(auc.values())):.3f}"]
        first, minutes = figures[0], sum(each["minutes"] for each in figures)
        rows.append([method, *cells, f"{first['parameters']:,}", str(first["steps"]), f"{minutes:.1f}"])
        for source, known, mean in published(args.dataset, args.protocol, method):
            shown = [f"{known[name]:.2f}" if name in known else "-" for name in names]
            whole = f"{np.mean([known[name] for name in names]):.2f}" if "-" not in shown else "-"
            if mean is not None and args.classes == "all":
                whole = str(mean)
            if (set(shown) | {whole}) != {"-"}:
                rows.append([f"{method}, {source}", *shown, whole, "", "", ""])
    return markdown(rows)


def chosen(text: str, known: list[str], what: str) -> list[str]:
    """The names in `text`, separated by commas, or all.

    Raises:
        RunError: one is not known.
    """
    names = known if text == "all" else list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in known:
            raise RunError(f"there is no {what} {name!r}; choose from {', '.join(known)}")
    return names


def run(args: Args) -> dict[str, dict[str, dict[str, Any]]]:
    """Train all models; their figures by method and class."""
    directory = args.run_dir or Path("runs") / f"classes-{args.dataset}-{args.protocol}-{args.seed}"
    methods = chosen(args.method, list(METHODS), "method")
    sides(args.model.size)
    config = args.model
    found = class_tasks(args.dataset, args.data_root, config.size, config.channels, args.protocol, args.seed)
    names = chosen(args.classes, list(found), "class")
    jobs = [
        (args, method, found[name], name, directory / method / name) for method in methods for name in names
    ]
    with claim_all(directory, [place for *_, place in jobs], args.resume, list(METHODS)):
        figures = iter(train_all(train_one, jobs, args.workers))
        results = {method: {name: next(figures) for name in names} for method in methods}
        text = table(args, results)
        checkpoint.save_text(text + "\n", directory / "table.md")
    print(text)
    return results


def default(given: Args) -> Args:
    """The defaults for a data set: half the published width and two classes for the built-in wheels."""
    if given.dataset == "synthetic":
        return Args()
    size = {"mnist": 28, "fashion_mnist": 28, "cifar10": 32}.get(given.dataset, 64)
    colour = given.dataset not in ("mnist", "fashion_mnist", "wheel")
    model = ModelConfig(size=size, channels=3 if colour else 1, bfloat16=FAST)
    return Args(protocol=1, classes="all", model=model)


@command()
def main() -> None:
    """Run what the command line says."""
    run(parse(Args, default, __doc__))


if __name__ == "__main__":
    main()
