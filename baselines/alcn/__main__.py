"""Train and score ALCN and the noises it is compared with: `python -m baselines.alcn`.

A model for each class and each noise; `table.md` has their AUC beside the paper's. Without arguments: wheels
of 32 pixels, made on the fly.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from baselines.alcn.networks import sides
from baselines.alcn.trainer import ALCN, NOISES, ALCNConfig
from baselines.common import (
    ClassesArgs,
    claim_all,
    home,
    markdown,
    open_run,
    parse,
    read_classes,
    train_all,
)
from baselines.d_anogan import wheel
from nbs_env import checkpoint
from nbs_env.curves import Curves
from nbs_env.data import GOOD, cifar10
from nbs_env.data.classes import ClassDataset, read_mvtec, read_plant_village
from nbs_env.env import pick_device
from nbs_env.metrics import image_auroc
from nbs_env.runs import RunError, at_least, command

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

Task = tuple[ClassDataset, tuple[str, ...], float]
"""Images, the classes that are anomalous, and the share of each other class that is trained on."""


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
    noise: str = "alcn,none"
    """Noises (alcn, none, gaussian, speckle), separated by commas."""
    test_limit: int = 0
    """Images to test on, drawn at random; 0: all."""
    model: ALCNConfig = field(
        default_factory=lambda: ALCNConfig(
            size=32,
            batch_size=32,
            epochs=100,
            patience=0,
            denoiser_lr=1e-3,
            noise_lr=1e-3,
            noise_width=0.25,
            bfloat16=torch.cpu._is_avx512_bf16_supported(),
        )
    )
    """The model and its training; other data sets begin with the paper's settings."""

    def __post_init__(self) -> None:
        """Check types first, then values."""
        super().__post_init__()
        at_least(0, test_limit=self.test_limit)


def tasks(args: Args) -> dict[str, Task]:
    """What can be trained for, by the name that `--classes` takes."""
    size, channels = args.model.size, args.model.channels
    sides(size)
    if args.dataset == "mvtec":
        data = read_mvtec(home(args.dataset, args.data_root), size, channels)
        return {name: (each, each.names[1:], 0.7) for name, each in data.items()}
    if args.dataset == "plant_village":
        data = read_plant_village(home(args.dataset, args.data_root), size, channels)
        return {n: (each, tuple(k for k in each.names if k != GOOD), 0.8) for n, each in data.items()}
    if args.dataset == "synthetic":
        images, labels, _ = wheel.make(200, size, args.seed)
        pool = ClassDataset(images[:, None].repeat(channels, 1), labels, wheel.CLASSES)
    else:
        pool = read_classes(args.dataset, args.data_root, size, channels)
    others = {name: tuple(other for other in pool.names if other != name) for name in pool.names}
    return {name: (pool, (name,) if args.protocol == 1 else others[name], 0.8) for name in pool.names}


def train_one(args: Args, task: Task, name: str, directory: Path) -> dict[str, float]:
    """Train one model, score it, and write everything into `directory`; AUC without and with test noise."""
    device = str(pick_device(args.device))
    rng = np.random.default_rng(args.seed)
    data, anomalous, share = task
    train, test = data.split(anomalous, share, rng)
    if args.limit:
        train = rng.permutation(train)[: args.limit]
    if args.test_limit:
        test = np.sort(rng.permutation(test)[: args.test_limit])
    truth = np.isin(data.labels[test], [data.names.index(each) for each in anomalous])
    if truth.all() or not truth.any():
        raise RunError(f"test_limit is {args.test_limit}: all images drawn are of one kind; raise it")
    held_out, train = np.split(rng.permutation(train), [max(1, len(train) // 10)])
    saved = open_run(args, ("classes", "noise"), data, directory, device, **{"class": name})
    model = ALCN(args.model, args.seed, device)
    saved.restore(model)
    images, kept = (torch.from_numpy(data.images[rows]).to(device) for rows in (train, held_out))
    model.fit_scale(images)
    with Curves(directory) as writer:
        title = f"{args.model.noise} {name}"
        left = 0 if model.stopped else args.model.epochs - model.epoch
        epochs = tqdm(range(model.epoch, model.epoch + left), desc=title, unit="epoch")
        for epoch in epochs:
            figures = model.train_epoch(images)
            for key, value in figures.items():
                writer.add_scalar(key, value, epoch + 1)
            stop = model.should_stop(kept)
            writer.add_scalar("held_out_error", model.best, epoch + 1)
            epochs.set_postfix({key: f"{value:.4f}" for key, value in figures.items()})
            last = stop or epoch + 1 == args.model.epochs
            if (epoch + 1) % args.checkpoint_every == 0 or last:
                saved.save(model)
            if last:
                break
    checkpoint.save_picture(pictures(model, data.images[test[:8]]), directory / "pictures.png")
    figures = {}
    for key, test_noise in (("auc", False), ("auc_test_noise", True)):
        auc = image_auroc(model.scores(data.images[test], test_noise), truth)
        assert auc is not None, "both kinds are in the test set"
        figures[key] = auc
    checkpoint.save_json(figures | {"epochs": model.epoch}, directory / "metrics.json")
    return figures


def pictures(model: ALCN, images: np.ndarray) -> np.ndarray:
    """Input, noise, their blend and the output (the paper's Figure 3), a row for each of `images`, uint8."""
    wanted = model.standardize(torch.from_numpy(images))
    for network in model.networks.values():
        network.eval()  # a model that was just restored still trains
    with torch.no_grad():
        noise = model.noise.sample(wanted, model.random)
    given, again = model.reconstruct(wanted, test_noise=True)
    parts = [wanted, torch.zeros_like(wanted) if noise is None else noise, given, again]
    columns = [(part * model.std + model.mean).mean(dim=1).flatten(0, 1).cpu() for part in parts]
    return (torch.cat(columns, dim=1) * 255).clamp(0, 255).to(torch.uint8).numpy()


def published(args: Args, noise: str) -> dict[str, float]:
    """The paper's AUC by class, as far as it has them."""
    if args.dataset == "mvtec":
        return PUBLISHED_MVTEC if noise == "alcn" else {}
    names = map(str, range(10)) if args.dataset == "mnist" else cifar10.NAMES
    values = PUBLISHED.get((args.dataset, args.protocol), {}).get(noise, ())
    return dict(zip(names, values, strict=False))


def table(args: Args, results: dict[str, dict[str, dict[str, float]]]) -> str:
    """AUC by noise and class as Markdown, without and with noise on the test images."""
    names, whole = list(next(iter(results.values()))), args.classes == "all"
    rows = [["", *names, "mean"], ["---"] * (len(names) + 2)]
    for noise, by_class in results.items():
        known = published(args, noise)
        for key, title in (("auc", noise), ("auc_test_noise", f"{noise}, test noise")):
            values = [by_class[name][key] for name in names]
            rows.append([title, *(f"{value:.3f}" for value in values), f"{np.mean(values):.3f}"])
        cells = [f"{known[name]:.2f}" if name in known else "-" for name in names]
        if set(names) <= set(known):
            rows.append([f"{noise}, paper", *cells, f"{np.mean([known[name] for name in names]):.2f}"])
        elif noise == "alcn" and whole and (args.dataset, args.protocol) in PUBLISHED_MEANS:
            rows.append(["alcn, paper", *cells, f"{PUBLISHED_MEANS[args.dataset, args.protocol]}"])
    return markdown(rows)


def run(args: Args) -> dict[str, dict[str, dict[str, float]]]:
    """Train all models; their figures by noise and class."""
    directory = args.run_dir or Path("runs") / f"alcn-{args.dataset}-{args.protocol}-{args.seed}"
    noises = args.noise.split(",")
    for noise in noises:
        if noise not in NOISES:
            raise RunError(f"there is no noise {noise!r}; choose from {', '.join(NOISES)}")
    found = tasks(args)
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
        results = {noise: {name: next(figures) for name in names} for noise in noises}
        text = table(args, results)
        checkpoint.save_text(text + "\n", directory / "table.md")
    print(text)
    return results


def default(dataset: str) -> Args:
    """The defaults for a data set: quick ones for wheels, the paper's for all others."""
    if dataset == "synthetic":
        return Args()
    large = dataset in ("mvtec", "plant_village", "folder")
    model = ALCNConfig(
        size=256 if large else 28,
        channels=3 if large or dataset == "cifar10" else 1,
        batch_size=16 if large else 4096,
    )
    return Args(protocol=1, classes="all", noise="alcn,none,gaussian,speckle", model=model)


@command()
def main() -> None:
    """Run what the command line says."""
    run(parse(Args, lambda chosen: default(chosen.dataset), __doc__))


if __name__ == "__main__":
    main()
