"""Networks, training against one of four noises, and scoring (paper section 3, Algorithm 1).

The paper gives the networks' sizes alone: 1.12 million parameters for the denoiser and 9.87 million for both
at 28x28. The layers are ours: strided convolutions down to at most four pixels, a dense bottleneck, and back.
The denoiser normalises each image by itself (InstanceNorm): BatchNorm's running averages, gathered over
blends of many contrasts, fit none of them in evaluation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from baselines.classes.networks import down, up
from baselines.models import Model, ModelConfig, image_batches, sides
from nbs_env.common.errors import RunError
from nbs_env.common.settings import AtLeast, Count, Positive, Share

NoiseName = Literal["none", "speckle", "gaussian", "alcn"]
NOISES: tuple[NoiseName, ...] = ("none", "speckle", "gaussian", "alcn")
NOISE_LATENT = 256
"""Gaussian numbers that the noise generator starts from."""
_WIDTHS = (64, 128, 256)
_NOISE_WIDTHS = (704, 512, 256, 128)
_LEAST_STD = 1 / 255
"""An image of less contrast than one grey level is not blown up."""


@dataclass(frozen=True)
class ALCNConfig(ModelConfig):
    """The model and its training; learning rates and batch size are the paper's for MNIST and CIFAR-10."""

    noise: NoiseName = "alcn"
    """Noise that the denoiser learns to remove."""
    bottleneck: Count = 32
    """Numbers that the denoiser reduces an image to; 32 gives the paper's size."""
    batch_size: Annotated[int, AtLeast(2)] = 4096
    """Images of a step; fewer images than that make one batch."""
    epochs: Count = 500
    """Passes over the normal images, at most."""
    patience: Annotated[int, AtLeast(0)] = 50
    """Epochs without a lower error on held-out normal images after which training ends; 0: never."""
    denoiser_lr: Positive = 1e-5
    """Adam's learning rate for the denoiser."""
    noise_lr: Positive = 8e-3
    """Adam's learning rate for the noise generator."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Whether both rates fall to zero along a cosine."""
    noise_width: Positive = 1.0
    """Factor on the noise generator's channels: with 1 it costs six times the denoiser."""
    alpha_low: Annotated[float, Share()] = 0.2
    """Lowest share of the image in the blend."""
    alpha_high: Annotated[float, Share()] = 0.9
    """Highest share of the image in the blend."""
    test_draws: Count = 8
    """Blends that a score with test noise is averaged over, alpha evenly between its bounds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha_low > self.alpha_high:
            raise RunError(f"alpha_low is {self.alpha_low}; it must not be above alpha_high")


def _widths(widths: tuple[int, ...], layers: int, factor: float) -> list[int]:
    """So many of `widths`, of which the last goes on, times `factor`."""
    return [max(1, round(factor * each)) for each in [*widths, *[widths[-1]] * layers][:layers]]


class Denoiser(nn.Module):
    """Images (B, channels, size, size) to `bottleneck` numbers and back; `factor` is on all widths."""

    def __init__(self, size: int, channels: int, bottleneck: int = 32, factor: float = 1.0) -> None:
        super().__init__()
        side = sides(size)
        width = [channels, *_widths(_WIDTHS, len(side) - 1, factor)]
        layers: list[nn.Module] = []
        for (i, o), s in zip(pairwise(width), side, strict=False):
            layers += [down(i, o, s), nn.InstanceNorm2d(o, affine=True), nn.LeakyReLU(0.2, True)]
        flat = width[-1] * side[-1] ** 2
        layers += [nn.Flatten(), nn.Linear(flat, bottleneck), nn.Linear(bottleneck, flat)]
        layers += [nn.Unflatten(1, (width[-1], side[-1], side[-1]))]
        for number in range(len(side) - 1, 0, -1):
            layers += [nn.InstanceNorm2d(width[number], affine=True), nn.ReLU(True)]
            layers.append(up(width[number], width[number - 1], side[number - 1]))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


class NoiseGenerator(nn.Module):
    """Gaussian vectors (B, 256) to noise (B, channels, size, size) in [0, 1]; `factor` as above."""

    def __init__(self, size: int, channels: int, factor: float = 1.0) -> None:
        super().__init__()
        side = sides(size)[::-1]
        width = _widths(_NOISE_WIDTHS, len(side), factor)
        layers: list[nn.Module] = [
            nn.Linear(NOISE_LATENT, width[0] * side[0] ** 2),
            nn.Unflatten(1, (width[0], side[0], side[0])),
            nn.BatchNorm2d(width[0]),
            nn.ReLU(True),
        ]
        for (i, o), s in zip(pairwise(width), side[1:], strict=True):
            layers += [up(i, o, s), nn.BatchNorm2d(o), nn.ReLU(True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width[-1], channels, 3, padding=1), nn.Sigmoid())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.layers(vectors)


def blend(images: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """noise(x, n) = alpha x + (1 - alpha) n, with one alpha for all or one for each image (B, 1, 1, 1)."""
    return alpha * images + (1 - alpha) * noise


class Errors(NamedTuple):
    """Errors of reconstruction (n,)."""

    squared: np.ndarray
    """Mean over the pixels, in units of the range 0 to 1 (the paper's score)."""
    relative: np.ndarray
    """The same over the variance of the image's own pixels."""


class ALCN(Model):
    """Denoiser and noise; after each epoch `held_out` images (n, C, S, S) uint8 are looked at."""

    COUNTS = ("done", "stale", "best")
    UNIT = "epoch"
    LOG_EVERY = 1

    config: ALCNConfig

    def __init__(self, config: ALCNConfig, seed: int, device: torch.device | str = "cpu") -> None:
        super().__init__(config, config.epochs, seed, device)
        self.held_out: np.ndarray | None = None
        self.stale, self.best = 0, math.inf

    def build(self) -> dict[str, torch.optim.Optimizer]:
        """A noise generator only where its noise is wanted."""
        config = self.config
        shape = config.size, config.channels
        self.denoiser = Denoiser(*shape, config.bottleneck, config.width)
        optimizers: dict[str, torch.optim.Optimizer] = {
            "denoiser": self.adam(config.denoiser_lr, self.denoiser)
        }
        if config.noise == "alcn":
            self.noise = NoiseGenerator(*shape, config.noise_width)
            optimizers["noise"] = self.adam(config.noise_lr, self.noise)
        return optimizers

    def contrast(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (B, C, S, S) uint8 in [0, 1], and the mean and standard deviation (B, 1, 1, 1) of each."""
        values = data.to(self.device).float() / 255
        std, mean = torch.std_mean(values, dim=(1, 2, 3), keepdim=True)
        return values, mean, std.clamp_min(_LEAST_STD)

    def standardize(self, data: torch.Tensor) -> torch.Tensor:
        """Images (B, C, S, S) uint8 as values of zero mean and unit variance, each by itself."""
        values, mean, std = self.contrast(data)
        return (values - mean) / std

    def draw_noise(self, images: torch.Tensor, random: torch.Generator) -> torch.Tensor | None:
        """Noise for images (B, C, S, S), or None for no corruption at all (Table 1)."""
        if self.config.noise == "speckle":  # pixels black or white, 0 or 1, all channels alike
            shape = (len(images), 1, *images.shape[2:])
            draws = torch.rand(shape, generator=random, device=images.device) < 0.5
            return draws.to(images).expand_as(images)
        if self.config.noise == "gaussian":  # a standard deviation of one half in every value
            return 0.5 * torch.randn(images.shape, generator=random, device=images.device)
        if self.config.noise == "alcn":
            vectors = torch.randn((len(images), NOISE_LATENT), generator=random, device=images.device)
            return self.noise(vectors)
        return None

    def draw_alpha(self) -> torch.Tensor:
        """One alpha for a step, (), uniform between its bounds."""
        low, high = self.config.alpha_low, self.config.alpha_high
        return low + (high - low) * torch.rand((), generator=self.random, device=self.device)

    def error(self, images: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """Mean squared error of reconstructing `images` (B, C, S, S), standardised, from a new corruption."""
        with self.autocast():
            noise = self.draw_noise(images, self.random)
            given = images if noise is None else blend(images, noise, alpha)
            again = self.denoiser(given).float()
        return F.mse_loss(again, images)

    def step(self, images: torch.Tensor, pace: float = 1) -> dict[str, torch.Tensor]:
        """Algorithm 1 on a standardised batch: the noise ascends the error, then the denoiser descends it."""
        alpha, figures = self.draw_alpha(), {}
        if "noise" in self.networks:
            loss = self.error(images, alpha)
            self.descend(-loss, "noise", pace=pace)
            figures["noise_error"] = loss.detach()
        loss = self.error(images, alpha)
        self.descend(loss, "denoiser", pace=pace)
        return figures | {"error": loss.detach()}

    def advance(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        """One pass over `data` (n, C, S, S) uint8 in a random order, then the held-out; the mean figures."""
        for network in self.networks.values():
            network.train()
        order = torch.randperm(len(data), generator=self.random, device=self.device)
        size = min(self.config.batch_size, len(data))
        totals: dict[str, torch.Tensor] = {}
        # Whole batches alone: the generator's BatchNorm is not fond of small ones.
        batches = [batch for batch in order.split(size) if len(batch) == size]
        for number, batch in enumerate(batches):
            done = (self.done + number / len(batches)) / self.config.epochs
            pace = (1 + math.cos(math.pi * done)) / 2 if self.config.schedule == "cosine" else 1
            for name, value in self.step(self.standardize(data[batch.to(data.device)]), pace).items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value
        self.done += 1
        figures = {name: total / len(batches) for name, total in totals.items()}
        if self.held_out is not None:
            error = float(self.errors(self.held_out, test_noise=True).relative.mean())
            self.watch(error)
            figures["held_out_error"] = torch.tensor(error)
        return figures

    def watch(self, error: float) -> None:
        """Count epochs in which the error on held-out images, now `error`, has not fallen."""
        self.stale = 0 if error < self.best else self.stale + 1
        self.best = min(self.best, error)

    @property
    def finished(self) -> bool:
        """Whether all epochs are over, or patience has run out."""
        return super().finished or 0 < self.config.patience <= self.stale

    @torch.no_grad()
    def reconstruct(self, given: torch.Tensor) -> torch.Tensor:
        """What the denoiser makes of standardised, perhaps corrupted images (B, C, S, S)."""
        self.denoiser.eval()
        with self.autocast():
            return self.denoiser(given).float()

    @torch.no_grad()
    def test_noises(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The blends that every test image is corrupted with: alpha () and noise (1, C, S, S) of each."""
        for network in self.networks.values():
            network.eval()  # a model that was just restored still trains
        config = self.config
        shape = (config.test_draws, config.channels, config.size, config.size)
        random = torch.Generator(self.device).manual_seed(0)  # models are compared under the same draws
        noise = self.draw_noise(torch.zeros(shape, device=self.device), random)
        alphas = torch.linspace(config.alpha_low, config.alpha_high, config.test_draws, device=self.device)
        return [] if noise is None else [*zip(alphas, noise.split(1), strict=True)]

    def errors(self, images: np.ndarray, test_noise: bool = False) -> Errors:
        """Errors of reconstructing `images` (n, C, S, S) uint8, or of their `test_noises` in the mean."""
        blends = self.test_noises() if test_noise else []
        parts = []
        for part in image_batches(images):
            values, mean, std = self.contrast(part)
            wanted = (values - mean) / std
            given = (blend(wanted, noise, alpha) for alpha, noise in blends) if blends else (wanted,)
            again = (self.reconstruct(each) * std + mean for each in given)
            each = [(one - values).square().mean(dim=(1, 2, 3)) for one in again]
            squared = torch.stack(each).mean(dim=0)
            relative = squared / values.var(dim=(1, 2, 3)).clamp_min(_LEAST_STD**2)
            parts.append((squared.cpu().numpy(), relative.cpu().numpy()))
        return Errors(*(np.concatenate(each) for each in zip(*parts, strict=True)))
