"""Train and score D-AnoGAN: `python -m baselines.d_anogan`; `--help` lists every setting.

Without arguments: wheels of 64 pixels, made on the fly, in six to seven minutes on two CPU cores.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.metrics import roc_curve
from tqdm import tqdm

from baselines.common import ClassesArgs, Kept, claim_all, markdown, open_run, parse, train_all
from baselines.d_anogan import wheel
from baselines.d_anogan.config import FAST, HALF, QUICK, DAnoGANConfig
from baselines.d_anogan.detector import DAnoGANDetector, mean_scores
from baselines.d_anogan.networks import layer_channels
from baselines.d_anogan.trainer import DAnoGAN
from baselines.d_anogan.watch import fixed_latents, look
from baselines.tasks import read_classes
from nbs_env.common import checkpoint
from nbs_env.common.curves import Curves
from nbs_env.common.errors import RunError
from nbs_env.common.networks import keep_freed_memory, pick_device
from nbs_env.common.pictures import new_figure
from nbs_env.common.runs import at_least, command
from nbs_env.data.classes import ClassDataset
from nbs_env.detect.metrics import image_auroc

ALPHA = {"mnist": 0.9, "fashion_mnist": 0.9, "cifar10": 0.9, "wheel": 1.0, "folder": 0.9}
"""Share of the divergence in a score (thesis 5.4), fixed before any test image is seen."""
PUBLISHED = {
    "mnist": (0.91, 0.91, 0.92, 0.94, 0.91, 0.88, 0.93, 0.91, 0.94, 0.89),
    "fashion_mnist": (0.62, 0.82, 0.57, 0.73, 0.53, 0.87, 0.57, 0.64, 0.97, 0.81),
    "wheel": (0.88, 0.97),
}
"""AUC of the thesis's Tables 5.1 to 5.3, by anomalous class."""


@dataclass(frozen=True)
class Args(ClassesArgs):
    """What to train on, and where to put it."""

    dataset: Literal["wheel", "mnist", "fashion_mnist", "cifar10", "folder"] = "wheel"
    """Data set; `folder` has a folder for each class."""
    anomalous_class: str = "9"
    """Class that is left out of training and to be found; `all`: each in turn. Wheel has two: both are."""
    per_class: int = 250
    """Images of each class of wheel."""
    checkpoint_every: int = 200
    """Generator steps, then encoder steps, between checkpoints."""
    preset: Literal["quick", "half", "paper"] = "quick"
    """Where `--model` starts from: minutes on a CPU, two hours at half width, or the thesis."""
    members: int = 1
    """Models of a class, seeds from `seed` up, trained one after the other, whose scores are averaged: what
    one alone finds hangs on chance. With `--resume` more can be added."""
    no_xzx: bool = False
    """Leave the encoders' second phase out, as in Table 5.6."""
    no_bandit: bool = False
    """Keep the prior uniform, as in Table 5.6; give `--model.clusters` as many as there are manifolds."""
    model: DAnoGANConfig = field(default_factory=lambda: QUICK)
    """The model and its training."""

    def __post_init__(self) -> None:
        """Check types first, then values."""
        super().__post_init__()
        at_least(1, per_class=self.per_class, members=self.members)


def load(args: Args) -> ClassDataset:
    """The data set, in the size and channels of the model."""
    config = args.model
    layer_channels(config.size, config.width)
    if args.dataset == "wheel":
        images, labels, _ = wheel.make(args.per_class, config.size, args.seed)
        return ClassDataset(images[:, None].repeat(config.channels, 1), labels, wheel.CLASSES)
    return read_classes(args.dataset, args.data_root, config.size, config.channels)


def train_one(args: Args, data: ClassDataset, anomalous: tuple[str, ...], directory: Path) -> dict[str, Any]:
    """Train without the classes `anomalous`, score, and write everything into `directory`.

    The first model's checkpoint is there, those of further ones in folders of their own.
    """
    device = str(pick_device(args.device))
    rng = np.random.default_rng(args.seed)
    train, test = data.split(anomalous, 0.8, rng)
    if args.limit:
        train = rng.permutation(train)[: args.limit]
    if len(train) < args.model.batch_size:
        raise RunError(
            f"{len(train)} normal images to train on are fewer than model.batch_size "
            f"({args.model.batch_size}); lower it"
        )
    images = torch.from_numpy(data.images[train]).to(device)
    places = [directory, *(directory / f"member-{number}" for number in range(1, args.members))]
    left_out = ("anomalous_class", "preset", "members")
    kept = []  # all before the first is trained: one that does not fit ends the command now
    for number, place in enumerate(places):
        more = {"anomalous": anomalous} | ({"member": number} if number else {})
        kept.append(open_run(args, left_out, data, place, device, **more))
    models = []
    for number, (place, saved) in enumerate(zip(places, kept, strict=True)):
        model = DAnoGAN(args.model, args.seed + number, device)
        saved.restore(model)
        with Curves(place, model.steps + 1 if saved.state else None) as writer:
            _first_phase(model, images, data.labels[train], args, writer, saved)
            _second_phase(model, images, args, writer, saved)
        models.append(model)
    detector = DAnoGANDetector(models, ALPHA[args.dataset])
    detector.save(directory / "detector.pt")
    return _score(detector, data, test, anomalous, places)


def _first_phase(
    model: DAnoGAN, images: torch.Tensor, labels: np.ndarray, args: Args, writer: Curves, saved: Kept
) -> None:
    wanted, first, clock = args.model.generator_steps, model.steps, 0.0
    some = np.random.default_rng(args.seed).permutation(len(images))[:1000]
    bar = tqdm(total=wanted, initial=first, desc="adversarial", unit="step")
    while model.steps < wanted:
        figures = model.step(images)
        bar.update()
        if model.steps == first + 1:  # the critic's start is behind
            clock = time.perf_counter()
        elif model.steps == first + 11:
            minutes = (time.perf_counter() - clock) / 10 * (wanted - model.steps) / 60
            bar.write(f"about {minutes:.0f} minutes for {wanted - model.steps} more generator steps")
        if model.steps % 50 == 0 or model.steps == wanted:
            seen = look(model, images[some], labels[some])
            for name, value in (model.check(figures) | seen).items():
                writer.add_scalar(name, value, model.steps)
            bar.set_postfix(
                clusters=len(model.clusters), dead=int(seen["dead"]), purity=f"{seen['purity']:.2f}"
            )
        if model.steps % 500 == 0:
            writer.add_image("samples", sample_sheet(model), model.steps)
            writer.add_image("queries", _queries(model, images[:8]), model.steps)
        if model.steps % args.checkpoint_every == 0 or model.steps == wanted:
            saved.save(model)
    bar.close()


def _second_phase(model: DAnoGAN, images: torch.Tensor, args: Args, writer: Curves, saved: Kept) -> None:
    wanted = args.model.xzx_steps
    if model.xzx_steps >= wanted:
        return
    batches = model.xzx_batches(images)
    for _ in tqdm(range(model.xzx_steps, wanted), desc="encoders", unit="step"):
        figures = model.xzx_step(*next(batches))
        if model.xzx_steps % 50 == 0:
            for name, value in model.check(figures).items():
                writer.add_scalar(name, value, model.xzx_steps)
        if model.xzx_steps % args.checkpoint_every == 0 or model.xzx_steps == wanted:
            saved.save(model)


@torch.no_grad()
def sample_sheet(model: DAnoGAN, columns: int = 8) -> np.ndarray:
    """Generated images, a row for each living cluster, uint8 (rows S, columns S), and of RGB (..., 3)."""
    return _sheet(model.generators(fixed_latents(model, columns), model.active).cpu().numpy())


def _queries(model: DAnoGAN, images: torch.Tensor) -> np.ndarray:
    """A row of query, reconstruction and difference for each of `images` (n, C, S, S) uint8."""
    query = images.float() / 127.5 - 1
    again = model.reconstruct(query, model.assign(query).argmax(dim=1))
    return _sheet(torch.stack([query, again, (query - again).abs() - 1], dim=1).cpu().numpy())


def _sheet(images: np.ndarray) -> np.ndarray:
    """(rows, columns, C, S, S) in [-1, 1] as one picture, (rows S, columns S), and of RGB (..., 3)."""
    rows, columns, channels, side, _ = images.shape
    picture = images.transpose(0, 3, 1, 4, 2).reshape(rows * side, columns * side, channels)
    return ((picture if channels == 3 else picture[..., 0]) * 127.5 + 127.5).clip(0, 255).astype(np.uint8)


def _score(
    detector: DAnoGANDetector,
    data: ClassDataset,
    test: np.ndarray,
    anomalous: tuple[str, ...],
    places: list[Path],
) -> dict[str, Any]:
    """AUC at the fixed alpha, for each anomalous class against all normal test images, and the pictures."""
    images, labels = data.images[test], data.labels[test]
    error, divergence = detector.parts(images)
    wanted = {name: data.names.index(name) for name in anomalous}
    normal = ~np.isin(labels, list(wanted.values()))

    def auc(label: int, alpha: float, some: slice = slice(None)) -> float:
        rows = normal | (labels == label)
        scores = mean_scores(error[some, rows], divergence[some, rows], alpha)
        value = image_auroc(scores, labels[rows] == label)
        assert value is not None, "both kinds are in the test set"
        return value

    def aucs(some: slice = slice(None)) -> dict[str, float]:
        return {name: auc(label, detector.alpha, some) for name, label in wanted.items()}

    first = [np.flatnonzero(normal)[:6], *(np.flatnonzero(labels == k)[:3] for k in wanted.values())]
    shown = torch.from_numpy(images[np.concatenate(first)])
    members: list[dict[str, Any]] = []
    for number, (model, place) in enumerate(zip(detector.models, places, strict=True)):
        known = {name: model.history[-1][name] for name in ("purity", "nmi") if model.history}
        alone = aucs(slice(number, number + 1))
        members.append({"auc": alone, "clusters": len(model.clusters)} | known)
        checkpoint.save_picture(_queries(model, shown.to(model.device)), place / "queries.png")
        checkpoint.save_picture(sample_sheet(model), place / "samples.png")
    figures = members[0] if len(members) == 1 else {"auc": aucs(), "members": members}
    alphas = np.linspace(0, 1, 101)
    swept: dict[str, Any] = {"alpha": alphas.tolist()}
    swept |= {name: [auc(label, alpha) for alpha in alphas] for name, label in wanted.items()}
    figures |= {"alpha": detector.alpha, "swept": swept}
    checkpoint.save_json(figures, places[0] / "metrics.json")
    scores = mean_scores(error, divergence, detector.alpha)
    kinds = {name: (scores[normal], scores[labels == label]) for name, label in wanted.items()}
    whose = " of the first model" if len(members) > 1 else ""
    plot(kinds, swept, detector.alpha, detector.models[0].history, whose, places[0] / "curves.png")
    return figures


def plot(
    scores: dict[str, tuple[np.ndarray, np.ndarray]],
    swept: dict[str, Any],
    alpha: float,
    history: list[dict[str, float]],
    whose: str,
    file: Path,
) -> None:
    """ROC at the fixed alpha, AUC over alpha, and over generator steps the clustering and the prior.

    `scores` are of (normal, anomalous) images by anomalous class; `history` is what `look` has kept, and
    `whose` says in the labels of which model.
    """
    figure = new_figure(10, 9)
    (left, right), (below, last) = figure.subplots(2, 2)
    for name, (normal, anomalous) in scores.items():
        truth = np.repeat([0, 1], [len(normal), len(anomalous)])
        false_positive, true_positive, _ = roc_curve(truth, np.concatenate([normal, anomalous]))
        left.plot(false_positive, true_positive, label=name)
        right.plot(swept["alpha"], swept[name], label=name)
    left.set(xlabel="false positive rate", ylabel="true positive rate", title=f"ROC, alpha {alpha}")
    right.set(xlabel="alpha", ylabel="AUC on the test set", title="not to be quoted: chosen on test images")
    right.axvline(alpha, color="grey", linewidth=0.8)
    for name in history[0] if history else ():
        axes = last if name.startswith("cluster_probability") else below
        if name not in ("step", "dead"):
            axes.plot([row["step"] for row in history], [row[name] for row in history], label=name)
    below.set(xlabel=f"generator steps{whose}", title="clusters and true classes, for looking only")
    last.set(xlabel=f"generator steps{whose}", ylabel="probability", title="prior")
    left.legend()
    below.legend()
    checkpoint.save_figure(figure, file, dpi=100)


def table(args: Args, results: dict[str, float], members: list[dict[str, float]]) -> str:
    """AUC by anomalous class, those of single members, and the thesis's, as Markdown."""
    names = list(results)
    published = dict(zip(wheel.ANOMALIES if args.dataset == "wheel" else map(str, range(10)),
                         PUBLISHED.get(args.dataset, ()), strict=False))  # fmt: skip
    known = [published[name] for name in names if name in published]
    reached = {"AUC": results} | {f"seed {args.seed + k} alone": auc for k, auc in enumerate(members)}
    rows = [
        ["", *names, "mean"],
        ["---"] * (len(names) + 2),
        *([title, *(f"{auc[name]:.3f}" for name in names), f"{np.mean(list(auc.values())):.3f}"]
          for title, auc in reached.items()),
        ["thesis", *(f"{published[n]:.2f}" if n in published else "-" for n in names),
         f"{np.mean(known):.2f}" if known else "-"],
    ]  # fmt: skip
    return markdown(rows)


def run(args: Args) -> dict[str, float]:
    """Train one model, or one for each class; AUC by anomalous class."""
    if args.no_xzx or args.no_bandit:
        xzx = 0 if args.no_xzx else args.model.xzx_steps
        model = replace(args.model, xzx_steps=xzx, bandit=args.model.bandit and not args.no_bandit)
        args = replace(args, model=model)
    directory = args.run_dir or Path("runs") / f"d_anogan-{args.dataset}-{args.seed}"
    data = load(args)
    if args.dataset == "wheel":
        groups: list[tuple[str, ...]] = [wheel.ANOMALIES]
    else:
        groups = [
            (name,) for name in (data.names if args.anomalous_class == "all" else [args.anomalous_class])
        ]
    places = [directory if len(groups) == 1 else directory / group[0] for group in groups]
    jobs = [(args, data, group, place) for group, place in zip(groups, places, strict=True)]
    results: dict[str, float] = {}
    members: list[dict[str, float]] = [{} for _ in range(args.members if args.members > 1 else 0)]
    with claim_all(directory, places, args.resume, data.names):
        for figures in train_all(train_one, jobs, args.workers):
            results |= figures["auc"]
            for auc, each in zip(members, figures.get("members", ()), strict=True):
                auc |= each["auc"]
        text = table(args, results, members)
        checkpoint.save_text(text + "\n", directory / "table.md")
    print(text)
    return results


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
def main() -> None:
    """Run what the command line says."""
    keep_freed_memory()
    run(parse(Args, default, __doc__))


if __name__ == "__main__":
    main()
