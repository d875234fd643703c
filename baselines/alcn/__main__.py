"""Train and score ALCN and the noises it is compared with: `python -m baselines.alcn`.

A model for each class and each noise; `table.md` has their AUC beside the paper's. Without arguments: wheels
of 32 pixels, made on the fly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy import stats

from baselines.alcn.trainer import ALCN, NOISES, ALCNConfig, blend
from baselines.image_level import Figures, MethodsArgs, names_in, open_run, parse, run_methods, train
from baselines.models import FAST
from baselines.tables import markdown, paper_rows, row
from baselines.tasks import Task, auroc
from nbs_env.common import checkpoint
from nbs_env.common.networks import pick_device
from nbs_env.common.runs import command

SCORES = {
    "auc_test_noise": ", test noise",
    "auc": "",
    "auc_test_noise_relative": ", test noise, relative error",
    "auc_relative": ", relative error",
}
"""Scores, the headline first, and what they are called in the table."""
QUICK = ALCNConfig(
    batch_size=64,
    patience=0,
    denoiser_lr=1e-3,
    noise_lr=1e-3,
    schedule="cosine",
    bottleneck=16,
    width=0.5,
    noise_width=0.125,
    bfloat16=FAST,
)
"""What quick presets share."""


@dataclass(frozen=True)
class Args(MethodsArgs):
    """What to train on, and where to put it."""

    dataset: Literal["synthetic", "mnist", "fashion_mnist", "cifar10", "mvtec", "plant_village", "folder"] = (
        "synthetic"
    )
    """Data set; `synthetic` is wheels of 32 pixels, made on the fly; `folder` has a folder for each class."""
    noise: str = "none,alcn"
    """`all`, or noises (none, gaussian, speckle, alcn), separated by commas."""
    preset: Literal["quick", "paper"] = "quick"
    """`quick`: minutes a model on a CPU core; `paper`: sizes, batches and learning rates as published."""
    model: ALCNConfig = field(default_factory=lambda: replace(QUICK, size=32, batch_size=32, epochs=100))
    """The model and its training; what it begins with depends on data set, protocol and preset."""

    CHOICES = ("classes", "noise", "preset")


def train_one(args: Args, noise: str, task: Task, name: str, directory: Path) -> Figures:
    """Train one model, score it, and write everything into `directory`; AUC by score."""
    args = replace(args, model=replace(args.model, noise=noise))  # type: ignore[arg-type]
    device, data = str(pick_device(args.device)), task.data
    rng = np.random.default_rng(args.seed)
    rows, test, truths = task.draw(args.limit, args.test_limit, rng)
    # Of the normal images for training, 256 at most say when to stop.
    held_out, rows = np.split(rng.permutation(rows), [max(1, min(256, len(rows) // 10))])
    model = ALCN(args.model, args.seed, device)
    save = open_run(args, model, data, directory, **{"class": name})
    model.held_out = data.images[held_out]
    images = torch.from_numpy(data.images[rows]).to(device)
    train(model, images, directory, save, args.checkpoint_every, f"{noise} {name}")
    checkpoint.save_picture(pictures(model, data.images[test[:8]]), directory / "pictures.png")
    figures: Figures = {}
    for key, noisy in (("auc", False), ("auc_test_noise", True)):
        if not noisy or noise != "none":
            errors = model.errors(data.images[test], noisy)
            figures[key] = auroc(errors.squared, truths[""])
            figures[f"{key}_relative"] = auroc(errors.relative, truths[""])
    checkpoint.save_json(figures | {"epochs": model.done}, directory / "metrics.json")
    return figures


def pictures(model: ALCN, images: np.ndarray) -> np.ndarray:
    """Input, noise, their blend and the output (the paper's Figure 3), a row for each of `images`, uint8."""
    values, mean, std = model.contrast(torch.from_numpy(images))
    wanted = given = (values - mean) / std
    noise = torch.zeros_like(wanted)
    if blends := model.test_noises():
        alpha, one = blends[len(blends) // 2]
        given, noise = blend(wanted, one, alpha), one.expand_as(wanted)
    parts = [wanted, noise, given, model.reconstruct(given)]
    columns = [(part * std + mean).mean(dim=1).flatten(0, 1).cpu() for part in parts]
    return (torch.cat(columns, dim=1) * 255).clamp(0, 255).to(torch.uint8).numpy()


def table(args: Args, results: dict[str, dict[str, Figures]]) -> str:
    """AUC by method, score and class as Markdown, beside the paper's.

    Noises are compared with none class by class; brackets are 95 % of Student's t over the classes.
    """
    names, plain = list(next(iter(results.values()))), results.get("none")
    rows = [["", *names, "mean"]]
    for method, by_class in results.items():
        for key, title in SCORES.items():
            auc = {name: figures[key] for name, figures in by_class.items() if key in figures}
            if not auc:
                continue
            rows.append(row(method + title, auc, names))
            if plain and method != "none" and len(names) > 1:
                same = "auc_relative" if "relative" in key else "auc"
                ahead = [auc[name] - plain[name][same] for name in names]
                low, high = stats.ttest_1samp(ahead, 0).confidence_interval()
                mean = f"{np.mean(ahead):+.3f} [{low:+.3f}, {high:+.3f}]"
                rows.append([f"{method}{title}, less none", *(f"{value:+.3f}" for value in ahead), mean])
        known = paper_rows(args.dataset, args.protocol, method, names, args.classes == "all")
        rows += [[f"{method}, paper", *cells] for _, cells in known]
    return markdown(rows)


def default(given: Args) -> Args:
    """The defaults for a data set, protocol and preset."""
    if given.dataset == "synthetic" and given.preset == "quick":
        return Args()
    large = given.dataset in ("mvtec", "plant_village", "folder")
    if given.preset == "paper":
        model = ALCNConfig(size=256 if large else 28, batch_size=16 if large else 4096)
    elif large:
        model = replace(QUICK, size=128, batch_size=16, bottleneck=64, epochs=100)
    else:
        alone = 16 if given.dataset == "cifar10" else 8  # of one class; MNIST's are larger
        model = replace(QUICK, epochs=alone if given.protocol == 2 else 2)
    grey = given.dataset in ("mnist", "fashion_mnist", "synthetic")
    return Args(classes="all", noise="all", model=replace(model, channels=1 if grey else 3))


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    args = parse(Args, default, __doc__, argv)
    run_methods(args, "alcn", names_in(args.noise, NOISES, "noise"), NOISES, train_one, table)


if __name__ == "__main__":
    main()
