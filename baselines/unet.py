"""U-Net on the labelled images, the supervised rival of the thesis's tables: `python -m baselines.unet`.

Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015, with padding and
batch normalisation. How long to train, and the threshold, are chosen on labelled images that were left
out, one at a time where there are five; masks of other images serve for the figures alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from baselines.models import FAST, Trainable
from baselines.segmentation import Problem, SegmentationArgs, command, leave_some_out, prepare, score
from nbs_env.common.errors import RunError
from nbs_env.common.networks import place
from nbs_env.common.settings import Count, Positive, check_types
from nbs_env.common.symmetries import dihedral, inverse
from nbs_env.detect.metrics import best_threshold
from nbs_env.detect.teaching import bounded_threshold
from nbs_env.predictor import class_weights


@dataclass(frozen=True)
class UNetConfig:
    """The network and its training; the thesis gives neither."""

    width: Count = 16
    """Channels at full resolution; each of four levels below has twice as many."""
    crop: Count = 128
    """Side in pixels of the random crops that it trains on, a multiple of 16."""
    batch_size: Count = 8
    """Crops of a step."""
    learning_rate: Positive = 1e-3
    """Adam's."""
    steps: Count = 400
    """Steps at most."""
    check_every: Count = 25
    """Steps between looks at the image that is left out."""

    def __post_init__(self) -> None:
        check_types(self, RunError)


def _convolutions(i: int, o: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (i, o):
        layers += [nn.Conv2d(before, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to logits (B, H, W); H and W are multiples of 16."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(_convolutions(i, o) for i, o in pairwise([3, *widths]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[-2::-1])
        self.merge = nn.ModuleList(_convolutions(2 * w, w) for w in widths[-2::-1])
        self.output = nn.Conv2d(width, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x, skipped = images, []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skipped.append(x)
        for up, merge, skip in zip(self.up, self.merge, skipped[-2::-1], strict=True):
            x = merge(torch.cat([up(x), skip], dim=1))
        return self.output(x)[:, 0]


class Trainer(Trainable):
    """A U-Net that learns from a few images (n, S, S, 3) uint8 and their masks (n, S, S) bool."""

    def __init__(
        self, images: np.ndarray, masks: np.ndarray, config: UNetConfig, seed: int, device: str
    ) -> None:
        self.config, self.rng = config, np.random.default_rng(seed)
        super().__init__(seed, device)
        self.images, self.masks = images, masks
        weight, _ = class_weights(torch.from_numpy(masks), "sqrt")
        self.weight = torch.tensor(weight, device=device)
        self.half = torch.autocast(self.device.type, torch.bfloat16, enabled=device != "cpu" or FAST)

    def build(self) -> dict[str, torch.optim.Optimizer]:
        self.network = place(UNet(self.config.width), self.device)
        return {"network": self.adam(self.config.learning_rate, self.network)}

    def crops(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Random crops under random symmetries, brightness, contrast: (B, 3, c, c), and masks (B, c, c)."""
        images, masks, side = [], [], self.config.crop
        for _ in range(self.config.batch_size):
            index = self.rng.integers(len(self.images))
            top, left = self.rng.integers(self.images.shape[1] - side + 1, size=2)
            image = self.images[index, top : top + side, left : left + side].astype(np.float32) / 255
            mask = self.masks[index, top : top + side, left : left + side]
            turns, mirrored = int(self.rng.integers(4)), self.rng.integers(2)
            image, mask = np.rot90(image, turns), np.rot90(mask, turns)
            if mirrored:
                image, mask = image[:, ::-1], mask[:, ::-1]
            contrast, brightness = self.rng.uniform(0.8, 1.25), self.rng.uniform(-0.1, 0.1)
            images.append((image - 0.5) * contrast + 0.5 + brightness)
            masks.append(mask)
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return batch.to(self.device), torch.from_numpy(np.stack(masks)).float().to(self.device)

    def steps(self, count: int) -> Iterator[int]:
        """Train, yielding the number of steps done after each."""
        for step in range(1, count + 1):
            images, masks = self.crops()
            self.network.train()
            with self.half:
                logits = self.network(images).float()
            loss = F.binary_cross_entropy_with_logits(logits, masks, pos_weight=self.weight)
            self.descend(loss, "network")
            yield step

    @torch.no_grad()
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """(n, S, S) float32 of `images` (n, S, S, 3) uint8: the mean over the symmetries of the square."""
        self.network.eval()
        parts = []
        for part in torch.from_numpy(images).split(8):
            batch = part.permute(0, 3, 1, 2).float().to(self.device) / 255
            turned = []
            for k in range(8):
                with self.half:
                    logits = self.network(dihedral(batch, k)).float()
                turned.append(dihedral(torch.sigmoid(logits), inverse(k)))
            parts.append(torch.stack(turned).mean(dim=0).cpu())
        return torch.cat(parts).numpy()


def leave_out(
    images: np.ndarray, masks: np.ndarray, config: UNetConfig, seed: int, device: str
) -> tuple[int, float]:
    """How many steps to train, and the threshold: the best F1 on images left out.

    The threshold keeps to the segmenter's bounds. Where no image can be left out, all steps and 0.5.
    """
    checks = list(range(config.check_every, config.steps + 1, config.check_every)) or [config.steps]

    def learn(kept: np.ndarray, part: np.ndarray) -> list[np.ndarray]:
        trainer = Trainer(images[kept], masks[kept], config, seed, device)
        return [trainer.probabilities(images[part]) for s in trainer.steps(config.steps) if s in checks]

    found, truth = leave_some_out(masks, learn)
    if not truth.any():
        return config.steps, 0.5
    scores = [np.concatenate(each) for each in zip(*found, strict=True)]
    best = int(np.argmax([best_f1(each, truth) for each in scores]))
    weight, _ = class_weights(torch.from_numpy(masks), "sqrt")
    return checks[best], bounded_threshold(scores[best], truth, weight)


def best_f1(scores: np.ndarray, truth: np.ndarray) -> float:
    """Pooled F1 of `scores` (n, S, S) at their best threshold."""
    predicted = scores >= best_threshold(scores, truth)
    return 2 * float((predicted & truth).sum() / (predicted.sum() + truth.sum()))


@dataclass(frozen=True)
class Args(SegmentationArgs):
    """What to train on, and where to put it; the split is that of `train.py` with the same seed."""

    model: UNetConfig = field(default_factory=UNetConfig)
    """The network and its training."""


def run(args: Args) -> dict[str, Any]:
    """Train, score, and write the results; the content of metrics.json."""
    crop = args.model.crop
    if crop % 16 or crop > args.image_size:
        raise RunError(f"model.crop is {crop}; choose a multiple of 16 up to {args.image_size}")
    with prepare(args, "unet") as problem:
        return fit(problem, args.model, args.seed)


def fit(problem: Problem, config: UNetConfig, seed: int) -> dict[str, Any]:
    """Train on the labelled images, and score the others."""
    images, masks = problem.data.images[problem.labeled], problem.data.masks[problem.labeled]
    steps, threshold = leave_out(images, masks, config, seed, problem.device)
    trainer = Trainer(images, masks, config, seed, problem.device)
    for _ in tqdm(trainer.steps(steps), total=steps, desc="all labelled images", unit="step"):
        pass
    return score(problem, "unet", trainer.probabilities, threshold, steps=steps)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    command(Args, run, __doc__, argv)


if __name__ == "__main__":
    main()
