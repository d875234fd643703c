"""Train and score ALCN and the noises it is compared with: `python -m baselines.alcn --dataset mnist ...`.

A model for each class and each noise; `table.md` has their AUC beside the paper's.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from baselines.alcn.networks import SizeError, sides
from baselines.alcn.trainer import ALCN, NOISES, ALCNConfig, TrainingError
from baselines.common import ERRORS, RunError, open_run, pick_device, read_classes, train_all
from nbs_env import checkpoint
from nbs_env.data.classes import ClassDataset
from nbs_env.metrics import image_auroc

PUBLISHED = {
    "none": (0.84, 0.97, 0.79, 0.64, 0.53, 0.61, 0.66, 0.55, 0.71, 0.57),
    "speckle": (0.84, 0.93, 0.66, 0.66, 0.52, 0.62, 0.72, 0.56, 0.75, 0.53),
    "gaussian": (0.88, 0.97, 0.77, 0.66, 0.55, 0.62, 0.75, 0.55, 0.71, 0.57),
    "alcn": (0.97, 0.97, 0.96, 0.89, 0.85, 0.88, 0.92, 0.80, 0.93, 0.76),
}
"""AUC of the paper's Table 1: MNIST, protocol 1, by anomalous class. Protocol 2 has a mean alone, 0.989."""


FAILURES = (*ERRORS, SizeError, TrainingError)


@dataclass(frozen=True)
class Args:
    """What to train on, and where to put it."""

    dataset: Literal["mnist", "fashion_mnist", "folder"] = "mnist"
    """Data set; `folder` has a folder for each class."""
    data_root: Path | None = None
    """Its folder, or the one that holds it."""
    protocol: Literal[1, 2] = 1
    """1: the class is anomalous and all others are normal; 2: it is normal and all others are anomalous."""
    classes: str = "all"
    """Classes, separated by commas; each takes its turn."""
    noise: str = "alcn,none,gaussian,speckle"
    """Noises, separated by commas."""
    limit: int = 0
    """Normal images to train on, drawn at random; 0: all."""
    seed: int = 0
    """Of everything."""
    run_dir: Path | None = None
    """Folder for all results; default: runs/alcn-DATASET-PROTOCOL-SEED."""
    resume: bool = False
    """Go on from the last checkpoint; finished models are only scored again."""
    device: str = "auto"
    """cpu, cuda or auto."""
    workers: int = 1
    """Models that train at the same time."""
    checkpoint_every: int = 10
    """Epochs between checkpoints."""
    model: ALCNConfig = field(default_factory=ALCNConfig)
    """The model and its training; `--noise` sets its noise."""


def train_one(args: Args, data: ClassDataset, name: str, directory: Path) -> dict[str, float]:
    """Train one model, score it, and write everything into `directory`; AUC without and with test noise."""
    device = pick_device(args.device)
    rng = np.random.default_rng(args.seed)
    others = tuple(other for other in data.names if other != name)
    train, test = data.split((name,) if args.protocol == 1 else others, 0.8, rng)
    if args.limit:
        train = rng.permutation(train)[: args.limit]
    held_out, train = np.split(rng.permutation(train), [max(1, len(train) // 10)])
    settings = json.dumps(_settings(args) | {"class": name})
    state = open_run(directory, args.resume, settings, device)
    model, file = ALCN(args.model, args.seed, device), directory / "checkpoint.pt"
    if state is not None:
        model.load_state_dict(state)
    images, kept = (torch.from_numpy(data.images[rows]).to(device) for rows in (train, held_out))
    model.fit_scale(images)
    with SummaryWriter(str(directory)) as writer:
        title = f"{args.model.noise} {name}"
        epochs = tqdm(range(model.epoch, args.model.epochs), desc=title, unit="epoch")
        for epoch in epochs:
            figures = model.train_epoch(images)
            for key, value in figures.items():
                writer.add_scalar(key, value, epoch + 1)
            stop = model.should_stop(kept)
            writer.add_scalar("held_out_error", model.best, epoch + 1)
            epochs.set_postfix({key: f"{value:.4f}" for key, value in figures.items()})
            last = stop or epoch + 1 == args.model.epochs
            if (epoch + 1) % args.checkpoint_every == 0 or last:
                checkpoint.save(model.state_dict() | {"settings": settings}, file)
            if last:
                break
    checkpoint.save_picture(pictures(model, data.images[test[:8]]), directory / "pictures.png")
    anomalous = data.labels[test] == data.names.index(name)
    truth = anomalous if args.protocol == 1 else ~anomalous
    figures = {}
    for key, test_noise in (("auc", False), ("auc_test_noise", True)):
        auc = image_auroc(model.scores(data.images[test], test_noise), truth)
        assert auc is not None, "both kinds are in the test set"
        figures[key] = auc
    checkpoint.save_json(figures | {"epochs": model.epoch}, directory / "metrics.json")
    return figures


def _settings(args: Args) -> dict[str, Any]:
    left_out = ("run_dir", "resume", "device", "workers", "checkpoint_every", "classes", "noise")
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(args).items() if k not in left_out}


def pictures(model: ALCN, images: np.ndarray) -> np.ndarray:
    """Input, noise, their blend and the output (the paper's Figure 3), a row for each of `images`, uint8."""
    wanted = model.standardize(torch.from_numpy(images))
    with torch.no_grad():
        noise = model.noise.sample(wanted, model.random)
    given, again = model.reconstruct(wanted, test_noise=True)
    parts = [wanted, torch.zeros_like(wanted) if noise is None else noise, given, again]
    columns = [(part * model.std + model.mean).mean(dim=1).flatten(0, 1).cpu() for part in parts]
    return (torch.cat(columns, dim=1) * 255).clamp(0, 255).to(torch.uint8).numpy()


def table(args: Args, results: dict[str, dict[str, dict[str, float]]]) -> str:
    """AUC by noise and class as Markdown, without and with noise on the test images."""
    names = list(next(iter(results.values())))
    rows = [["", *names, "mean"], ["---"] * (len(names) + 2)]
    for noise, by_class in results.items():
        for key, title in (("auc", noise), ("auc_test_noise", f"{noise}, test noise")):
            values = [by_class[name][key] for name in names]
            rows.append([title, *(f"{value:.3f}" for value in values), f"{np.mean(values):.3f}"])
        if args.dataset == "mnist" and args.protocol == 1:
            values = [PUBLISHED[noise][int(name)] for name in names]
            rows.append([f"{noise}, paper", *(f"{value:.2f}" for value in values), f"{np.mean(values):.2f}"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def run(args: Args) -> dict[str, dict[str, dict[str, float]]]:
    """Train all models; their figures by noise and class."""
    directory = args.run_dir or Path("runs") / f"alcn-{args.dataset}-{args.protocol}-{args.seed}"
    noises = args.noise.split(",")
    for noise in noises:
        if noise not in NOISES:
            raise RunError(f"there is no noise {noise!r}; choose from {', '.join(NOISES)}")
    sides(args.model.size)
    data = read_classes(args.dataset, args.data_root, args.model.size, args.model.channels)
    names = list(data.names) if args.classes == "all" else args.classes.split(",")
    for name in names:
        if name not in data.names:
            raise RunError(f"there is no class {name!r}; choose from {', '.join(data.names)}")
    jobs = [
        (replace(args, model=replace(args.model, noise=noise)), data, name, directory / noise / name)  # type: ignore[arg-type]
        for noise in noises
        for name in names
    ]
    figures = iter(train_all(train_one, jobs, args.workers))
    results = {noise: {name: next(figures) for name in names} for noise in noises}
    text = table(args, results)
    checkpoint.replace_file(directory / "table.md", lambda part: part.write_text(text + "\n"))
    print(text)
    return results


def main() -> None:
    """Run what the command line says; bad input is one line on standard error and exit code 2."""
    args = tyro.cli(Args, description=__doc__)
    try:
        run(args)
    except FAILURES as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
