"""Train and score ALCN and the noises it is compared with: `python -m baselines.alcn`.

A model for each class and each noise; `table.md` has their AUC beside the paper's and that of 32 principal
components. Without arguments: wheels of 32 pixels, made on the fly.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy import stats
from tqdm import tqdm

from baselines.alcn.noise import NOISES, blend
from baselines.alcn.trainer import ALCN, ALCNConfig, Errors
from baselines.classes.pca import fit
from baselines.common import ClassesArgs, claim_all, markdown, open_run, parse, sides, train_all
from baselines.tasks import Task, class_tasks
from nbs_env.common import checkpoint
from nbs_env.common.curves import Curves
from nbs_env.common.errors import RunError
from nbs_env.common.networks import pick_device
from nbs_env.common.runs import at_least, command
from nbs_env.data import cifar10
from nbs_env.data.classes import ClassDataset
from nbs_env.detect.metrics import image_auroc

PUBLISHED: dict[tuple[str, int], dict[str, tuple[float, ...]]] = {
    ("mnist", 1): {
        "none": (0.84, 0.97, 0.79, 0.64, 0.53, 0.61, 0.66, 0.55, 0.71, 0.57),
        "speckle": (0.84, 0.93, 0.66, 0.66, 0.52, 0.62, 0.72, 0.56, 0.75, 0.53),
        "gaussian": (0.88, 0.97, 0.77, 0.66, 0.55, 0.62, 0.75, 0.55, 0.71, 0.57),
        "alcn": (0.97, 0.97, 0.96, 0.89, 0.85, 0.88, 0.92, 0.80, 0.93, 0.76),
    },
    ("cifar10", 1): {
        "none": (0.50, 0.68, 0.61, 0.55, 0.69, 0.53, 0.62, 0.60, 0.63, 0.71),
        "speckle": (0.63, 0.53, 0.54, 0.54, 0.65, 0.59, 0.64, 0.55, 0.66, 0.63),
        "gaussian": (0.57, 0.68, 0.57, 0.54, 0.65, 0.54, 0.55, 0.52, 0.57, 0.53),
    },
}
"""AUC of the paper's Table 1 by data set and protocol, noise, and class in the data set's order."""
PUBLISHED_MVTEC = dict(
    bottle=0.94, cable=0.84, capsule=0.86, carpet=0.84, grid=0.97, hazelnut=0.92, leather=0.62,
    metal_nut=0.86, pill=0.75, screw=1.0, tile=0.79, toothbrush=0.65, transistor=0.73, wood=0.93, zipper=0.70,
)  # fmt: skip
"""AUC of ALCN by category (Table 3)."""
PUBLISHED_MEANS = {
    ("cifar10", 1): 0.67,
    ("mnist", 2): 0.989,
    ("cifar10", 2): 0.742,
    ("plant_village", 1): 0.77,
}
"""AUC of ALCN where the text has the mean over all classes alone."""

HELD_OUT = 256
"""Normal images at most, of those for training, that say when to stop."""

Figures = dict[str, float]
"""AUC by score."""
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
    bfloat16=torch.cpu._is_avx512_bf16_supported(),
)
"""What quick presets share."""


@dataclass(frozen=True)
class Args(ClassesArgs):
    """What to train on, and where to put it."""

    dataset: Literal["synthetic", "mnist", "fashion_mnist", "cifar10", "mvtec", "plant_village", "folder"] = (
        "synthetic"
    )
    """Data set; `synthetic` is wheels of 32 pixels, made on the fly; `folder` has a folder for each class."""
    protocol: Literal[1, 2] = 2
    """1: the class is anomalous and all others are normal; 2: it is normal and all others are anomalous.
    mvtec and plant_village say themselves what is normal."""
    classes: str = "3-closed-4,5-forked-5"
    """`all`, or classes (categories of mvtec, species of plant_village), separated by commas."""
    noise: str = "none,alcn"
    """Noises (none, gaussian, speckle, alcn), separated by commas."""
    preset: Literal["quick", "paper"] = "quick"
    """`quick`: minutes a model on a CPU core; `paper`: sizes, batches and learning rates as published."""
    test_limit: int = 0
    """Images of each kind, normal and anomalous, to test on, drawn at random; 0: all."""
    model: ALCNConfig = field(default_factory=lambda: replace(QUICK, size=32, batch_size=32, epochs=100))
    """The model and its training; what it begins with depends on data set, protocol and preset."""

    def __post_init__(self) -> None:
        """Check types first, then values."""
        super().__post_init__()
        at_least(0, test_limit=self.test_limit)


@dataclass(frozen=True)
class Problem:
    """Rows of images to train on, to say when to stop, and to test; and which of the last are anomalous."""

    data: ClassDataset
    train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray
    truth: np.ndarray

    def figures(self, errors: dict[str, Errors]) -> Figures:
        """AUC of each of the errors on the test images, squared and relative."""
        found = {}
        for name, each in errors.items():
            for key, score in ((name, each.squared), (f"{name}_relative", each.relative)):
                auc = image_auroc(score, self.truth)
                assert auc is not None, "both kinds are in the test set"
                found[key] = auc
        return found


def divide(args: Args, task: Task) -> Problem:
    """Split the images of a task.

    Raises:
        RunError: there is no image of a kind to test on.
    """
    rng = np.random.default_rng(args.seed)
    train, test, found = task.draw(args.limit, args.test_limit, rng)
    held_out, train = np.split(rng.permutation(train), [max(1, min(HELD_OUT, len(train) // 10))])
    return Problem(task.data, train, held_out, test, found[""] == 1)


def pca(args: Args, task: Task) -> Figures:
    """AUC of the error of principal components of the training images, standardised as the model's."""
    problem = divide(args, task)
    model = ALCN(replace(args.model, noise="none"), args.seed)
    train, test = (torch.from_numpy(problem.data.images[rows]) for rows in (problem.train, problem.test))
    model.fit_scale(train)
    fitted = fit(model.standardize(train), args.seed)
    again = fitted.inverse_transform(fitted.transform(model.standardize(test).flatten(1).numpy()))
    again = again.reshape(test.shape)
    return problem.figures({"auc": model.compare(test, [torch.from_numpy(again)])})


def train_one(args: Args, task: Task, name: str, directory: Path) -> Figures:
    """Train one model, score it, and write everything into `directory`."""
    device = str(pick_device(args.device))
    problem = divide(args, task)
    data = problem.data
    left_out = ("classes", "noise", "preset")
    saved = open_run(args, left_out, data, directory, device, **{"class": name})
    model = ALCN(args.model, args.seed, device)
    saved.restore(model)
    images, kept = (
        torch.from_numpy(data.images[rows]).to(device) for rows in (problem.train, problem.held_out)
    )
    model.fit_scale(images)
    with Curves(directory) as writer:
        title = f"{args.model.noise} {name}"
        left = 0 if model.stopped else args.model.epochs - model.epoch
        epochs = tqdm(range(model.epoch, model.epoch + left), desc=title, unit="epoch")
        for epoch in epochs:
            figures = model.train_epoch(images)
            for key, value in figures.items():
                writer.add_scalar(key, value, epoch + 1)
            error = model.held_out_error(kept)
            writer.add_scalar("held_out_error", error, epoch + 1)
            stop = model.should_stop(error)
            epochs.set_postfix({key: f"{value:.4f}" for key, value in figures.items()})
            last = stop or epoch + 1 == args.model.epochs
            if (epoch + 1) % args.checkpoint_every == 0 or last:
                saved.save(model)
            if last:
                break
    test = data.images[problem.test]
    checkpoint.save_picture(pictures(model, test[:8]), directory / "pictures.png")
    errors = {"auc": model.errors(test)}
    if args.model.noise != "none":
        errors["auc_test_noise"] = model.errors(test, test_noise=True)
    figures = problem.figures(errors)
    checkpoint.save_json(figures | {"epochs": model.epoch}, directory / "metrics.json")
    return figures


def pictures(model: ALCN, images: np.ndarray) -> np.ndarray:
    """Input, noise, their blend and the output (the paper's Figure 3), a row for each of `images`, uint8."""
    values = torch.from_numpy(images).to(model.device).float() / 255
    mean, std = model.scale(values)
    wanted = given = (values - mean) / std
    noise = torch.zeros_like(wanted)
    if blends := model.test_noises():
        alpha, one = blends[len(blends) // 2]
        given, noise = blend(wanted, one, alpha), one.expand_as(wanted)
    parts = [wanted, noise, given, model.reconstruct(given)]
    columns = [(part * std + mean).mean(dim=1).flatten(0, 1).cpu() for part in parts]
    return (torch.cat(columns, dim=1) * 255).clamp(0, 255).to(torch.uint8).numpy()


def published(args: Args, noise: str) -> dict[str, float]:
    """The paper's AUC by class, as far as it has them."""
    if args.dataset == "mvtec":
        return PUBLISHED_MVTEC if noise == "alcn" else {}
    names = map(str, range(10)) if args.dataset == "mnist" else cifar10.NAMES
    values = PUBLISHED.get((args.dataset, args.protocol), {}).get(noise, ())
    return dict(zip(names, values, strict=False))


def table(args: Args, results: dict[str, dict[str, Figures]]) -> str:
    """AUC by method, score and class as Markdown, beside the paper's.

    Noises are compared with none class by class; brackets are 95 % of Student's t over the classes.
    """
    names, whole = list(next(iter(results.values()))), args.classes == "all"
    plain = results.get("none")
    rows = [["", *names, "mean"], ["---"] * (len(names) + 2)]

    def add(title: str, values: list[float], places: int = 3) -> None:
        rows.append([title, *(f"{value:.{places}f}" for value in [*values, np.mean(values)])])

    def compare(title: str, differences: list[float]) -> None:
        low, high = stats.ttest_1samp(differences, 0).confidence_interval()
        mean = f"{np.mean(differences):+.3f} [{low:+.3f}, {high:+.3f}]"
        rows.append([title, *(f"{value:+.3f}" for value in differences), mean])

    for method, by_class in results.items():
        known = published(args, method)
        for key, title in SCORES.items():
            if all(key in figures for figures in by_class.values()):
                values = [by_class[name][key] for name in names]
                add(method + title, values)
                if min(values) < 0.5 and "relative" not in key:
                    add(f"({method}{title}, larger of AUC and 1 - AUC)", [max(v, 1 - v) for v in values])
                if plain and method not in ("pca", "none") and len(names) > 1:
                    same = "auc_relative" if "relative" in key else "auc"
                    pairs = zip(values, (plain[name][same] for name in names), strict=True)
                    compare(f"{method}{title}, less none", [value - base for value, base in pairs])
        if set(names) <= set(known):
            add(f"{method}, paper", [known[name] for name in names], 2)
        elif known:
            rows.append([f"{method}, paper", *(f"{known[n]:.2f}" if n in known else "-" for n in names), "-"])
        elif method == "alcn" and whole and (args.dataset, args.protocol) in PUBLISHED_MEANS:
            mean = f"{PUBLISHED_MEANS[args.dataset, args.protocol]}"
            rows.append(["alcn, paper", *["-"] * len(names), mean])
    return markdown(rows)


def run(args: Args) -> dict[str, dict[str, Figures]]:
    """Train all models; their figures by method (the noises and pca) and class."""
    directory = args.run_dir or Path("runs") / f"alcn-{args.dataset}-{args.protocol}-{args.seed}"
    noises = args.noise.split(",")
    for noise in noises:
        if noise not in NOISES:
            raise RunError(f"there is no noise {noise!r}; choose from {', '.join(NOISES)}")
    sides(args.model.size)
    config = args.model
    found = class_tasks(args.dataset, args.data_root, config.size, config.channels, args.protocol, args.seed)
    names = list(found) if args.classes == "all" else args.classes.split(",")
    for name in names:
        if name not in found:
            raise RunError(f"there is no class {name!r}; choose from {', '.join(found)}")
    jobs = [
        (replace(args, model=replace(args.model, noise=noise)), found[name], name, directory / noise / name)  # type: ignore[arg-type]
        for noise in noises
        for name in names
    ]
    with claim_all(directory, [place for *_, place in jobs], args.resume, NOISES):
        figures = iter(train_all(train_one, jobs, args.workers))
        results = {"pca": {name: pca(args, found[name]) for name in names}}
        results |= {noise: {name: next(figures) for name in names} for noise in noises}
        text = table(args, results)
        checkpoint.save_text(text + "\n", directory / "table.md")
    print(text)
    return results


def default(given: Args) -> Args:
    """The defaults for a data set, protocol and preset."""
    if given.dataset == "synthetic" and given.preset == "quick":
        return Args()
    large = given.dataset in ("mvtec", "plant_village", "folder")
    channels = 3 if large or given.dataset == "cifar10" else 1
    if given.preset == "paper":
        model = ALCNConfig(size=256 if large else 28, batch_size=16 if large else 4096)
    elif large:
        model = replace(QUICK, size=128, batch_size=16, bottleneck=64, epochs=100)
    else:
        alone = 16 if given.dataset == "cifar10" else 8  # of one class; MNIST's are larger
        model = replace(QUICK, epochs=alone if given.protocol == 2 else 2)
    return Args(classes="all", noise=",".join(NOISES), model=replace(model, channels=channels))


@command()
def main() -> None:
    """Run what the command line says."""
    run(parse(Args, default, __doc__))


if __name__ == "__main__":
    main()
