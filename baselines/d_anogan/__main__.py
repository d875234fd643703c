"""Train and score D-AnoGAN: `python -m baselines.d_anogan`; `--help` lists every setting.

Without arguments: wheels of 64 pixels, made on the fly, in six to seven minutes on two CPU cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from baselines.d_anogan.config import FAST, HALF, QUICK, DAnoGANConfig
from baselines.d_anogan.detector import DAnoGANDetector, mean_scores
from baselines.d_anogan.networks import layer_channels
from baselines.d_anogan.trainer import DAnoGAN
from baselines.d_anogan.watch import look, query_sheet, sample_sheet
from baselines.image_level import Figures, ImageLevelArgs, names_in, open_run, parse, run_all
from baselines.tables import markdown, paper_rows, row
from baselines.tasks import Task, auroc, class_tasks
from nbs_env.common import checkpoint
from nbs_env.common.curves import Curves
from nbs_env.common.errors import RunError
from nbs_env.common.networks import keep_freed_memory, pick_device
from nbs_env.common.pictures import new_figure
from nbs_env.common.runs import command
from nbs_env.common.settings import Count


@dataclass(frozen=True)
class Args(ImageLevelArgs):
    """What to train on, and where to put it."""

    dataset: Literal["wheel", "mnist", "fashion_mnist", "cifar10", "folder"] = "wheel"
    """Data set; `folder` has a folder for each class."""
    anomalous_class: str = "9"
    """Class that is left out of training and to be found; several, separated by commas, or `all`: each in
    turn. Wheel has two: both are."""
    per_class: Count = 250
    """Images of each class of wheel."""
    checkpoint_every: Count = 200
    """Generator steps, then encoder steps, between checkpoints."""
    preset: Literal["quick", "half", "paper"] = "quick"
    """Where `--model` starts from: minutes on a CPU, two hours at half width, or the thesis."""
    members: Count = 1
    """Models of a class, seeds from `seed` up, trained one after the other, whose scores are averaged: what
    one alone finds hangs on chance. With `--resume` more can be added."""
    model: DAnoGANConfig = field(default_factory=lambda: QUICK)
    """The model and its training."""

    CHOICES = ("anomalous_class", "preset", "members")


def train_one(args: Args, task: Task, name: str, directory: Path) -> Figures:
    """Train without the anomalous classes of `task`, score, and write everything into `directory`.

    The first model's checkpoint is there, those of further ones in folders of their own.
    """
    device, data = str(pick_device(args.device)), task.data
    rows, test, truths = task.draw(args.limit, 0, np.random.default_rng(args.seed))
    if len(rows) < args.model.batch_size:
        raise RunError(
            f"{len(rows)} normal images to train on are fewer than model.batch_size "
            f"({args.model.batch_size}); lower it"
        )
    images = torch.from_numpy(data.images[rows]).to(device)
    places = [directory, *(directory / f"member-{number}" for number in range(1, args.members))]
    models = [DAnoGAN(args.model, args.seed + number, device) for number in range(args.members)]
    saves = []  # all before the first is trained: one that does not fit ends the command now
    for number, (model, place) in enumerate(zip(models, places, strict=True)):
        more = {"anomalous": task.anomalous} | ({"member": number} if number else {})
        saves.append(open_run(args, model, data, place, **more))
    for model, place, save in zip(models, places, saves, strict=True):
        _train(model, images, data.labels[rows], args, place, save)
    # The share of the divergence in a score (thesis 5.4) is fixed before any test image is seen.
    detector = DAnoGANDetector(models, alpha=1.0 if args.dataset == "wheel" else 0.9)
    detector.save(directory / "detector.pt")
    return _score(detector, data.images[test], {k or name: truth for k, truth in truths.items()}, places)


def _train(
    model: DAnoGAN,
    images: torch.Tensor,
    labels: np.ndarray,
    args: Args,
    directory: Path,
    save: Callable[[], None],
) -> None:
    """Both phases, from where `model` stands; each counts its own steps."""
    some = np.random.default_rng(args.seed).permutation(len(images))[:1000]
    wanted, batches = (args.model.generator_steps, args.model.xzx_steps), None
    bar = tqdm(total=sum(wanted), initial=model.steps + model.xzx_steps, unit="step")
    with Curves(directory, model.steps + 1) as writer, bar:
        while (model.steps, model.xzx_steps) < wanted:
            adversarial = model.steps < wanted[0]
            if adversarial:
                figures = model.step(images)
            else:
                batches = batches or model.xzx_batches(images)
                figures = model.xzx_step(*next(batches))
            step = model.steps if adversarial else model.xzx_steps
            last = step == wanted[not adversarial]
            if step % 50 == 0 or last:
                values = model.check(figures)
                if adversarial:
                    seen = look(model, images[some], labels[some])
                    bar.set_postfix(
                        clusters=len(model.clusters), dead=int(seen["dead"]), purity=f"{seen['purity']:.2f}"
                    )
                    values |= seen
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
            if step % args.checkpoint_every == 0 or last:
                save()
            bar.update()


def _score(
    detector: DAnoGANDetector, images: np.ndarray, truths: dict[str, np.ndarray], places: list[Path]
) -> Figures:
    """AUC at the fixed alpha, for each anomalous class of `truths` against all normal ones, and pictures."""
    error, divergence = detector.parts(images)

    def aucs(alpha: float, some: slice = slice(None)) -> dict[str, float]:
        scores = mean_scores(error[some], divergence[some], alpha)
        return {name: auroc(scores, truth) for name, truth in truths.items()}

    normal = np.flatnonzero(next(iter(truths.values())) == 0)
    first = np.concatenate([normal[:6], *(np.flatnonzero(truth == 1)[:3] for truth in truths.values())])
    members: list[Figures] = []
    for number, (model, place) in enumerate(zip(detector.models, places, strict=True)):
        known = {name: model.history[-1][name] for name in ("purity", "nmi") if model.history}
        alone = aucs(detector.alpha, slice(number, number + 1))
        members.append({"auc": alone, "clusters": len(model.clusters)} | known)
        shown = torch.from_numpy(images[first]).to(model.device)
        checkpoint.save_picture(query_sheet(model, shown), place / "queries.png")
        checkpoint.save_picture(sample_sheet(model), place / "samples.png")
    figures = members[0] if len(members) == 1 else {"auc": aucs(detector.alpha), "members": members}
    alphas = np.linspace(0, 1, 101).tolist()
    by_alpha = [aucs(alpha) for alpha in alphas]
    swept = {"alpha": alphas} | {name: [each[name] for each in by_alpha] for name in truths}
    figures |= {"alpha": detector.alpha, "swept": swept}
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for name in truths:
        axes.plot(alphas, swept[name], label=name)
    axes.axvline(detector.alpha, color="grey", linewidth=0.8)
    axes.set(xlabel="alpha", ylabel="AUC on the test set", title="not to be quoted: chosen on test images")
    axes.legend()
    checkpoint.save_figure(figure, places[0] / "curves.png", dpi=90)
    checkpoint.save_json(figures, places[0] / "metrics.json")
    return figures


def table(args: Args, results: list[Figures]) -> str:
    """AUC by anomalous class, those of single members, and the thesis's, as Markdown."""
    auc = {name: value for figures in results for name, value in figures["auc"].items()}
    names = list(auc)
    rows = [["", *names, "mean"], row("AUC", auc, names)]
    for number in range(args.members if args.members > 1 else 0):
        alone = {name: value for each in results for name, value in each["members"][number]["auc"].items()}
        rows.append(row(f"seed {args.seed + number} alone", alone, names))
    known = paper_rows(args.dataset, 1, "d_anogan", names, False)
    return markdown([*rows, *([source, *cells] for source, cells in known)])


def run(args: Args) -> None:
    """Train one model, or one for each class."""
    config, wheels = args.model, args.dataset == "wheel"
    layer_channels(config.size, config.width)
    tasks = class_tasks(
        args.dataset, args.data_root, config.size, config.channels, 1, args.seed, args.per_class
    )
    names = names_in("all" if wheels else args.anomalous_class, tasks, "class")
    directory = args.run_dir or Path("runs") / f"d_anogan-{args.dataset}-{args.seed}"
    jobs = {directory if len(names) == 1 else directory / name: (args, tasks[name], name) for name in names}
    run_all(args, directory, train_one, jobs, tasks, lambda results: table(args, results))


def default(chosen: Args) -> Args:
    """What the command line starts from, by its preset and data set."""
    clusters = 15 if chosen.preset == "paper" else 30  # more than digits, and than the thesis has
    shape: dict[str, Any] = {}
    if chosen.dataset in ("mnist", "fashion_mnist"):
        shape = {"size": 28, "clusters": clusters}
    elif chosen.dataset == "cifar10":
        shape = {"size": 32, "clusters": clusters, "channels": 3}
    elif chosen.preset != "quick":
        shape = {"size": 256, "clusters": 12}
    if shape and chosen.preset == "quick":  # fakes of each cluster in every step
        shape |= {"batch_size": 64, "generator_steps": 8000, "xzx_steps": 1000}
    start = {"quick": QUICK, "half": HALF, "paper": DAnoGANConfig(bfloat16=FAST)}[chosen.preset]
    return replace(chosen, model=replace(start, **shape))


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    keep_freed_memory()
    run(parse(Args, default, __doc__, argv))


if __name__ == "__main__":
    main()
