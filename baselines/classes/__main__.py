"""Train and score the rivals of ALCN and D-AnoGAN: `python -m baselines.classes --method vae,pca`.

A model for each method and each class; `table.md` has their AUC beside the papers'. Data, protocols and
splits are those of `baselines.alcn`, and `wheel` that of `baselines.d_anogan`. Without arguments: wheels of
32 pixels, made on the fly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from baselines.classes.autoencoders import ARAE, OLED, PCA, VAE, DeepSVDD
from baselines.classes.gans import EGBAD, OCGAN, FAnoGAN, GANomaly, SkipGANomaly
from baselines.classes.method import Method
from baselines.image_level import Figures, MethodsArgs, names_in, open_run, parse, run_methods, train
from baselines.models import FAST, ModelConfig
from baselines.tables import markdown, paper_rows, row
from baselines.tasks import Task, auroc
from nbs_env.common import checkpoint
from nbs_env.common.networks import pick_device
from nbs_env.common.runs import command
from nbs_env.common.settings import AtLeast, Count

METHODS: dict[str, type[Method]] = {
    "pca": PCA,
    "vae": VAE,
    "deep_svdd": DeepSVDD,
    "ganomaly": GANomaly,
    "skip_ganomaly": SkipGANomaly,
    "f_anogan": FAnoGAN,
    "egbad": EGBAD,
    "ocgan": OCGAN,
    "oled": OLED,
    "arae": ARAE,
}


@dataclass(frozen=True)
class Args(MethodsArgs):
    """What to train on, and where to put it."""

    dataset: Literal[
        "synthetic", "wheel", "mnist", "fashion_mnist", "cifar10", "mvtec", "plant_village", "folder"
    ] = "synthetic"
    """Data set; `synthetic` and `wheel` are wheels, made on the fly; `folder` has a folder for each class."""
    method: str = "pca,vae"
    """`all`, or methods (pca, vae, deep_svdd, ganomaly, skip_ganomaly, f_anogan, egbad, ocgan, oled, arae),
    separated by commas."""
    steps: Annotated[int, AtLeast(0)] = 0
    """Steps of training; 0: the method's own budget, 3000 for most."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    model: ModelConfig = field(default_factory=lambda: ModelConfig(size=32, width=0.5, bfloat16=FAST))
    """What all methods have in common."""

    CHOICES = ("classes", "method", "steps")


def train_one(args: Args, method: str, task: Task, name: str, directory: Path) -> Figures:
    """Train one model, score it, and write everything into `directory`; `auc` is by column of the table."""
    device = str(pick_device(args.device))
    rows, test, truths = task.draw(args.limit, args.test_limit, np.random.default_rng(args.seed))
    model = METHODS[method](args.model, args.steps, args.seed, device)
    more = {"method": method, "class": name, "steps": model.steps}
    save = open_run(args, model, task.data, directory, **more)
    images = torch.from_numpy(task.data.images[rows]).to(device)
    seconds = train(model, images, directory, save, args.checkpoint_every, f"{method} {name}")
    scores = model.scores(task.data.images[test])
    figures = {
        "auc": {kind or name: auroc(scores, truth) for kind, truth in truths.items()},
        "parameters": model.parameters(),
        "steps": model.steps,
        "minutes": seconds / 60,
    }
    checkpoint.save_json(figures, directory / "metrics.json")
    return figures


def table(args: Args, results: dict[str, dict[str, Figures]]) -> str:
    """AUC by method and class as Markdown, the papers' below each, with sizes and minutes."""
    rows: list[list[str]] = []
    for method, by_class in results.items():
        figures = list(by_class.values())
        auc = {kind: value for each in figures for kind, value in each["auc"].items()}
        names, minutes = list(auc), sum(each["minutes"] for each in figures)
        if not rows:
            rows.append(["", *names, "mean", "parameters", "steps", "minutes"])
        more = [f"{figures[0]['parameters']:,}", str(figures[0]["steps"]), f"{minutes:.1f}"]
        rows.append([*row(method, auc, names), *more])
        known = paper_rows(args.dataset, args.protocol, method, names, args.classes == "all")
        rows += [[f"{method}, {source}", *cells, "", "", ""] for source, cells in known]
    return markdown(rows)


def default(given: Args) -> Args:
    """The defaults for a data set: half the published width and two classes for the built-in wheels."""
    if given.dataset == "synthetic":
        return Args()
    size = {"mnist": 28, "fashion_mnist": 28, "cifar10": 32}.get(given.dataset, 64)
    colour = given.dataset not in ("mnist", "fashion_mnist", "wheel")
    model = ModelConfig(size=size, channels=3 if colour else 1, bfloat16=FAST)
    return Args(protocol=1, classes="all", model=model)


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    args = parse(Args, default, __doc__, argv)
    run_methods(args, "classes", names_in(args.method, METHODS, "method"), METHODS, train_one, table)


if __name__ == "__main__":
    main()
