"""Training against one of four noises, and scoring (paper section 3, Algorithm 1)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from baselines.alcn.networks import Denoiser, NoiseGenerator, Norm
from baselines.alcn.noise import Adversarial, Gaussian, Noise, NoiseName, NoNoise, Speckle, blend
from baselines.common import finite, image_batches, load_training_state, training_state
from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.runs import at_least, positive
from nbs_env.common.settings import check_types

_LEAST_STD = 1 / 255
"""An image of less contrast than one grey level is not blown up."""
_TEST_SEED = 0
"""Of the noise on test images: models are compared under the same draws."""


@dataclass(frozen=True)
class ALCNConfig:
    """The model and its training; learning rates and batch size are the paper's for MNIST and CIFAR-10."""

    size: int = 28
    """Side of the square images in pixels."""
    channels: int = 1
    """1 (grey) or 3 (RGB)."""
    noise: NoiseName = "alcn"
    """Noise that the denoiser learns to remove."""
    standardize: Literal["image", "data"] = "image"
    """Zero mean and unit variance of each image, or of all training images together."""
    norm: Norm = "instance"
    """Of the denoiser's features; `batch` is kept to show what it does."""
    bottleneck: int = 32
    """Numbers that the denoiser reduces an image to; 32 gives the paper's size."""
    width: float = 1.0
    """Factor on the denoiser's channels; 1 gives the paper's size."""
    batch_size: int = 4096
    """Images of a step; fewer images than that make one batch."""
    epochs: int = 500
    """Passes over the normal images, at most."""
    patience: int = 50
    """Epochs without a lower error on held-out normal images after which training ends; 0: never."""
    denoiser_lr: float = 1e-5
    """Adam's learning rate for the denoiser."""
    noise_lr: float = 8e-3
    """Adam's learning rate for the noise generator."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Whether both rates fall to zero along a cosine."""
    noise_width: float = 1.0
    """Factor on the noise generator's channels: with 1 it costs six times the denoiser."""
    alpha_low: float = 0.2
    """Lowest share of the image in the blend."""
    alpha_high: float = 0.9
    """Highest share of the image in the blend."""
    test_draws: int = 8
    """Blends that a score with test noise is averaged over, alpha evenly between its bounds."""
    bfloat16: bool = False
    """Run the convolutions in bfloat16."""

    def __post_init__(self) -> None:
        """Check types first, then values."""
        check_types(self, RunError)
        at_least(1, batch_size=self.batch_size, epochs=self.epochs, test_draws=self.test_draws)
        at_least(1, bottleneck=self.bottleneck)
        at_least(0, patience=self.patience)
        positive(denoiser_lr=self.denoiser_lr, noise_lr=self.noise_lr)
        positive(width=self.width, noise_width=self.noise_width)
        if self.channels not in (1, 3):
            raise RunError(f"channels is {self.channels}; choose 1 (grey) or 3 (RGB)")
        if not 0 <= self.alpha_low <= self.alpha_high <= 1:
            raise RunError(
                f"alpha_low is {self.alpha_low} and alpha_high {self.alpha_high}; choose shares of which the "
                "first is not above the second"
            )


class Errors(NamedTuple):
    """Errors of reconstruction (n,).

    Attributes:
        squared: mean over the pixels, in units of the range 0 to 1 (the paper's score).
        relative: the same over the variance of the image's own pixels.
    """

    squared: np.ndarray
    relative: np.ndarray


class ALCN:
    """Denoiser, noise, optimisers and generators of random numbers.

    Args:
        config: all settings.
        seed: of weights and draws.
        device: where everything lives.
    """

    def __init__(self, config: ALCNConfig, seed: int, device: torch.device | str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        with torch.random.fork_rng(devices=[]):  # PyTorch draws its default weights from the global generator
            torch.manual_seed(seed)
            self.denoiser = Denoiser(
                config.size, config.channels, config.bottleneck, config.width, config.norm
            ).to(device)
            networks: dict[str, nn.Module] = {"denoiser": self.denoiser}
            if config.noise == "alcn":
                networks["noise"] = NoiseGenerator(config.size, config.channels, config.noise_width).to(
                    device
                )
        self.networks = networks
        simple: dict[str, Callable[[], Noise]] = {"none": NoNoise, "speckle": Speckle, "gaussian": Gaussian}
        noise = networks.get("noise")
        self.noise: Noise = (
            Adversarial(noise) if isinstance(noise, NoiseGenerator) else simple[config.noise]()
        )
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(network.parameters(), getattr(config, f"{name}_lr"), fused=True)
            for name, network in networks.items()
        }
        self.random = torch.Generator(device).manual_seed(seed)
        self.epoch = self.stale = 0
        self.best = math.inf
        shape = (1, config.channels, 1, 1)
        self.mean, self.std = torch.zeros(shape, device=device), torch.ones(shape, device=device)

    def fit_scale(self, data: torch.Tensor) -> None:
        """Take mean and standard deviation of `data` (n, C, S, S) uint8, by channel, for `standardize`."""
        values = data.float() / 255
        self.mean = values.mean(dim=(0, 2, 3), keepdim=True)
        self.std = values.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)

    def scale(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation that images (B, C, S, S) of 0 to 1 are standardised with."""
        if self.config.standardize == "data":
            return self.mean, self.std
        std, mean = torch.std_mean(data, dim=(1, 2, 3), keepdim=True)
        return mean, std.clamp_min(_LEAST_STD)

    def standardize(self, data: torch.Tensor) -> torch.Tensor:
        """Images (B, C, S, S) uint8 as values of zero mean and unit variance."""
        values = data.to(self.device).float() / 255
        mean, std = self.scale(values)
        return (values - mean) / std

    def autocast(self) -> torch.autocast:
        """The arithmetic that the configuration asks for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16)

    def corrupt(self, images: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """`images` (B, C, S, S), standardised, blended with a new noise."""
        noise = self.noise.sample(images, self.random)
        return images if noise is None else blend(images, noise, alpha)

    def draw_alpha(self) -> torch.Tensor:
        """One alpha for a step, (), uniform between its bounds."""
        low, high = self.config.alpha_low, self.config.alpha_high
        return low + (high - low) * torch.rand((), generator=self.random, device=self.device)

    def error(self, images: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """Mean squared error of reconstructing `images` from a corruption."""
        with self.autocast():
            again = self.denoiser(self.corrupt(images, alpha)).float()
        return F.mse_loss(again, images)

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Algorithm 1 on a standardised batch: the noise ascends the error, then the denoiser descends it."""
        alpha, figures = self.draw_alpha(), {}
        if "noise" in self.networks:
            loss = self.error(images, alpha)
            self._descend("noise", -loss)
            figures["noise_error"] = loss.detach()
        loss = self.error(images, alpha)
        self._descend("denoiser", loss)
        return figures | {"error": loss.detach()}

    def _descend(self, name: str, loss: torch.Tensor) -> None:
        weights = list(self.networks[name].parameters())
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = slope
        self.optimizers[name].step()

    def train_epoch(self, data: torch.Tensor) -> dict[str, float]:
        """One pass over `data` (n, C, S, S) uint8 in a random order; the mean figures.

        Raises:
            TrainingError: one is not finite.
        """
        for network in self.networks.values():
            network.train()
        order = torch.randperm(len(data), generator=self.random, device=self.device)
        size = min(self.config.batch_size, len(data))
        totals: dict[str, torch.Tensor] = {}
        batches = list(order.split(size))
        if len(batches) > 1 and len(batches[-1]) < size:  # BatchNorm is not fond of small batches
            batches.pop()
        for number, batch in enumerate(batches):
            if self.config.schedule == "cosine":
                done = (self.epoch + number / len(batches)) / self.config.epochs
                self._set_rates((1 + math.cos(math.pi * done)) / 2)
            for name, value in self.step(self.standardize(data[batch.to(data.device)])).items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value
        self.epoch += 1
        means = {name: total / len(batches) for name, total in totals.items()}
        return finite(means, f"in epoch {self.epoch}", "lower the learning rates")

    def _set_rates(self, factor: float) -> None:
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = factor * getattr(self.config, f"{name}_lr")

    def held_out_error(self, images: torch.Tensor) -> float:
        """Mean error on held-out normal images (n, C, S, S) uint8, as they are scored."""
        return float(self.errors(images.cpu().numpy(), test_noise=True).relative.mean())

    def should_stop(self, error: float) -> bool:
        """Whether the error on held-out images, now `error`, has not fallen for `patience` epochs."""
        self.stale = 0 if error < self.best else self.stale + 1
        self.best = min(self.best, error)
        return self.stopped

    @property
    def stopped(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.config.patience <= self.stale

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
        blank = torch.zeros(
            (config.test_draws, config.channels, config.size, config.size), device=self.device
        )
        noise = self.noise.sample(blank, torch.Generator(self.device).manual_seed(_TEST_SEED))
        alphas = torch.linspace(config.alpha_low, config.alpha_high, config.test_draws, device=self.device)
        return [] if noise is None else [*zip(alphas, noise.split(1), strict=True)]

    def errors(self, images: np.ndarray, test_noise: bool = False) -> Errors:
        """Errors of reconstructing `images` (n, C, S, S) uint8: each a function of the image alone.

        Args:
            images: as they are.
            test_noise: give the denoiser blends with `test_noises`, and average over them.
        """
        blends = self.test_noises() if test_noise else []
        parts = []
        for part in image_batches(images):
            wanted = self.standardize(part)
            given = (blend(wanted, noise, alpha) for alpha, noise in blends) if blends else (wanted,)
            parts.append(self.compare(part, (self.reconstruct(each) for each in given)))
        return Errors(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def compare(self, images: torch.Tensor, again: Iterable[torch.Tensor]) -> Errors:
        """Mean errors of standardised reconstructions of `images` (B, C, S, S) uint8."""
        values = images.to(self.device).float() / 255
        mean, std = self.scale(values)
        each = [(one * std + mean - values).square().mean(dim=(1, 2, 3)) for one in again]
        squared = torch.stack(each).mean(dim=0)
        relative = squared / values.var(dim=(1, 2, 3)).clamp_min(_LEAST_STD**2)
        return Errors(squared.cpu().numpy(), relative.cpu().numpy())

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes."""
        return {
            "kind": "baselines.ALCN",
            "config": json.dumps(asdict(self.config)),
            **training_state(self),
            "scale": (self.mean, self.std),
            "progress": {"epoch": self.epoch, "stale": self.stale, "best": self.best},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        load_training_state(self, state)
        self.mean, self.std = (value.to(self.device) for value in state["scale"])
        self.epoch, self.stale, self.best = (state["progress"][name] for name in ("epoch", "stale", "best"))

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> ALCN:
        """Read a model.

        Raises:
            CheckpointError: the file is absent, truncated, or holds something else.
        """
        state = checkpoint.load(path, device)
        if state.get("kind") != "baselines.ALCN":
            raise checkpoint.CheckpointError(f"{path} holds no ALCN; expected the checkpoint.pt of a run")
        model = cls(ALCNConfig(**json.loads(state["config"])), 0, device)
        model.load_state_dict(state)
        return model
