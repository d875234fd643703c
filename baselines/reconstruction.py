"""Autoencoder on normal images alone, the thesis's unsupervised rival: `python -m baselines.reconstruction`.

The autoencoder with squared error of Bergmann et al., MVTec AD, 2019, as for its textures: patches of 128
pixels, overlapping ones averaged. The threshold comes from normal images that were held out. Data sets
without normal images of their own have no such figure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from baselines.models import Trainable
from baselines.segmentation import Problem, SegmentationArgs, command, prepare, score
from nbs_env.common.errors import RunError
from nbs_env.common.networks import place
from nbs_env.common.settings import AtLeast, Count, Positive, check_types
from nbs_env.data import GOOD, AnomalyDataset, image_files, load, read_image, resize_image

PATCH = 128


@dataclass(frozen=True)
class ReconstructionConfig:
    """The network and its training."""

    latent: Count = 100
    """Length of the code."""
    steps: Count = 2000
    """Steps of the optimiser; the paper's 200 epochs of 10 000 patches are 15 600 of 128."""
    batch_size: Count = 32
    """Patches of a step."""
    learning_rate: Positive = 2e-4
    """Adam's; weight decay 1e-5."""
    stride: Count = 32
    """Pixels between patches when measuring."""
    smallest_region: Annotated[int, AtLeast(0)] = 64
    """Pixels that a region on a normal image may have at the threshold (the paper has one by category)."""

    def __post_init__(self) -> None:
        check_types(self, RunError)


class Autoencoder(nn.Module):
    """Patches (B, 3, 128, 128) in [0, 1] to their reconstructions."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        half, same = (4, 2, 1), (3, 1, 1)  # kernel, stride, padding
        plan = [
            (3, 32, half), (32, 32, half), (32, 32, same), (32, 64, half), (64, 64, same),
            (64, 128, half), (128, 64, same), (64, 32, same),
        ]  # fmt: skip
        layers: list[nn.Module] = []
        for i, o, shape in plan:
            layers += [nn.Conv2d(i, o, *shape), nn.LeakyReLU(0.2, True)]
        layers += [nn.Conv2d(32, latent, 8), nn.ConvTranspose2d(latent, 32, 8)]
        for i, o, shape in reversed(plan):
            layers += [nn.LeakyReLU(0.2, True), nn.ConvTranspose2d(o, i, *shape)]
        self.layers = nn.Sequential(*layers)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.layers(patches)


class Reconstruction(Trainable):
    """An autoencoder that learns from normal images (n, S, S, 3) uint8, and its error on any."""

    def __init__(self, config: ReconstructionConfig, seed: int, device: str) -> None:
        self.config, self.rng = config, np.random.default_rng(seed)
        super().__init__(seed, device)

    def build(self) -> dict[str, torch.optim.Optimizer]:
        self.network = place(Autoencoder(self.config.latent), self.device)
        return {"network": self.adam(self.config.learning_rate, self.network, decay=1e-5)}

    def train(self, images: np.ndarray) -> None:
        """Train on random patches under random symmetries."""
        for _ in tqdm(range(self.config.steps), desc="autoencoder", unit="step"):
            patches = []
            for _ in range(self.config.batch_size):
                top, left = self.rng.integers(images.shape[1] - PATCH + 1, size=2)
                patch = images[self.rng.integers(len(images)), top : top + PATCH, left : left + PATCH]
                patch = np.rot90(patch, int(self.rng.integers(4)))
                patches.append(patch[:, ::-1] if self.rng.integers(2) else patch)
            batch = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float().to(self.device) / 255
            loss = F.mse_loss(self.network(batch), batch)
            self.descend(loss, "network")

    @torch.no_grad()
    def errors(self, images: np.ndarray) -> np.ndarray:
        """Squared error (n, S, S) float32 of `images`: the mean over RGB and over all patches of a pixel."""
        side = images.shape[1]
        starts = [*range(0, side - PATCH, self.config.stride), side - PATCH]
        places = [(top, left) for top in starts for left in starts]
        result = np.zeros(images.shape[:3], np.float32)
        count = np.zeros((side, side), np.float32)
        for top, left in places:
            count[top : top + PATCH, left : left + PATCH] += 1
        for total, image in zip(result, torch.from_numpy(images), strict=True):
            whole = image.permute(2, 0, 1).float().to(self.device) / 255
            patches = torch.stack([whole[:, t : t + PATCH, x : x + PATCH] for t, x in places])
            error = (self.network(patches) - patches).square().mean(dim=1).cpu().numpy()
            for (top, left), part in zip(places, error, strict=True):
                total[top : top + PATCH, left : left + PATCH] += part
        return result / count


def normal_threshold(errors: np.ndarray, smallest_region: int) -> float:
    """The lowest threshold at which no region in `errors` (n, S, S) has more than `smallest_region` pixels.

    Regions are connected by sides or corners.
    """

    def too_low(threshold: float) -> bool:
        labelled = (scipy.ndimage.label(each, np.ones((3, 3)))[0] for each in errors >= threshold)
        return any(np.bincount(each[each > 0]).max(initial=0) > smallest_region for each in labelled)

    values = np.unique(errors)
    values = np.append(values, np.nextafter(values[-1], np.float32(np.inf)))
    return float(values[bisect_left(values, True, key=lambda value: not too_low(value))])


def normal_images(args: SegmentationArgs, data: AnomalyDataset) -> np.ndarray:
    """Normal images (n, S, S, 3) uint8 that no method is scored on; RunError if the data set has none."""
    if len(data.good):
        return data.good
    if args.dataset == "nanotwice" and args.data_root is not None:
        inside = args.data_root / "nanotwice" / "Normal"
        home = inside if inside.is_dir() else args.data_root / "Normal"
        return np.stack([resize_image(read_image(file), args.image_size) for file in image_files(home)])
    if args.dataset == "synthetic":  # other images than those that are scored
        seed, size = args.seed + 1_000_003, args.image_size
        made = load("synthetic", image_size=size, seed=seed, difficulty=args.difficulty, count=160)
        return made.images[np.array(made.kinds) == GOOD]
    raise RunError(
        f"{args.dataset} has no normal images of its own; add good/ or train/good/, or choose nanotwice or "
        "synthetic"
    )


@dataclass(frozen=True)
class Args(SegmentationArgs):
    """What to train on, and where to put it; scored are the images that `train.py` leaves unlabelled."""

    model: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    """The network and its training."""


def run(args: Args) -> dict[str, Any]:
    """Train, score, and write the results; the content of metrics.json."""
    if args.image_size < PATCH:
        raise RunError(f"image_size is {args.image_size}; it must be at least {PATCH} here")
    with prepare(args, "reconstruction") as problem:
        if args.dataset == "nanotwice":  # its normal images are trained on, so they cannot be scored
            defective = np.array([problem.data.kinds[i] != GOOD for i in problem.unlabeled])
            problem = replace(problem, unlabeled=problem.unlabeled[defective])
        return fit(problem, normal_images(args, problem.data), args.model, args.seed)


def fit(problem: Problem, normal: np.ndarray, config: ReconstructionConfig, seed: int) -> dict[str, Any]:
    """Train on nine tenths of the normal images, take the threshold from the others, and score."""
    if len(normal) < 2:
        raise RunError(f"{len(normal)} normal images are too few: one has to be held out; add some")
    order = np.random.default_rng(seed).permutation(len(normal))
    held_out, train = np.split(order, [max(1, len(normal) // 10)])
    model = Reconstruction(config, seed, problem.device)
    model.train(normal[train])
    threshold = normal_threshold(model.errors(normal[held_out]), config.smallest_region)
    return score(problem, "reconstruction", model.errors, threshold)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    command(Args, run, __doc__, argv)


if __name__ == "__main__":
    main()
