"""Training against one of four noises, and scoring (paper section 3, Algorithm 1)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from baselines.alcn.networks import NOISE_LATENT, Denoiser, NoiseGenerator
from baselines.common import set_generator
from nbs_env import checkpoint
from nbs_env.config import check_types
from nbs_env.runs import RunError, TrainingError, at_least, positive

NoiseName = Literal["none", "speckle", "gaussian", "alcn"]
NOISES: tuple[NoiseName, ...] = ("none", "speckle", "gaussian", "alcn")


@dataclass(frozen=True)
class ALCNConfig:
    """The model and its training; learning rates and batch size are the paper's for MNIST and CIFAR-10."""

    size: int = 28
    """Side of the square images in pixels."""
    channels: int = 1
    """1 (grey) or 3 (RGB)."""
    noise: NoiseName = "alcn"
    """Noise that the denoiser learns to remove."""
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
    noise_width: float = 1.0
    """Factor on the noise generator's channels: with 1 it costs six times the denoiser."""
    alpha_low: float = 0.2
    """Lowest share of the image in the blend."""
    alpha_high: float = 0.9
    """Highest share of the image in the blend."""
    test_draws: int = 4
    """Noises that a score with `test_noise` is averaged over."""
    bfloat16: bool = False
    """Run the convolutions in bfloat16."""

    def __post_init__(self) -> None:
        """Check types first, then values."""
        check_types(self, RunError)
        at_least(1, batch_size=self.batch_size, epochs=self.epochs, test_draws=self.test_draws)
        at_least(0, patience=self.patience)
        positive(denoiser_lr=self.denoiser_lr, noise_lr=self.noise_lr, noise_width=self.noise_width)
        if self.channels not in (1, 3):
            raise RunError(f"channels is {self.channels}; choose 1 (grey) or 3 (RGB)")
        if not 0 <= self.alpha_low <= self.alpha_high <= 1:
            raise RunError(
                f"alpha_low is {self.alpha_low} and alpha_high {self.alpha_high}; choose shares of which the "
                "first is not above the second"
            )


def blend(images: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """noise(x, n) = alpha x + (1 - alpha) n, with one alpha for all or one for each image (B, 1, 1, 1)."""
    return alpha * images + (1 - alpha) * noise


class Noise(Protocol):
    """A strategy: corrupts a batch, and may learn from the denoiser's error."""

    def sample(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
        """Noise of the shape of `images` (B, C, S, S), or None for no corruption at all."""


class NoNoise:
    """The plain autoencoder."""

    def sample(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
        """Nothing."""
        return None


class Speckle:
    """Pixels that are black or white at random, all channels alike: 0 or 1."""

    def sample(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
        """Bernoulli(1/2)."""
        shape = (len(images), 1, *images.shape[2:])
        draws = torch.rand(shape, generator=generator, device=images.device) < 0.5
        return draws.to(images).expand_as(images)


class Gaussian:
    """Independent N(0, 0.5) in every value."""

    def sample(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
        """Normal with a standard deviation of one half."""
        return 0.5 * torch.randn(images.shape, generator=generator, device=images.device)


class Adversarial:
    """The learnt noise of the paper."""

    def __init__(self, network: NoiseGenerator) -> None:
        self.network = network

    def sample(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
        """The generator's answer to Gaussian vectors."""
        shape = (len(images), NOISE_LATENT)
        return self.network(torch.randn(shape, generator=generator, device=images.device))


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
            self.denoiser = Denoiser(config.size, config.channels).to(device)
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
        rates = {"denoiser": config.denoiser_lr, "noise": config.noise_lr}
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), rates[name], fused=True)
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

    def standardize(self, data: torch.Tensor) -> torch.Tensor:
        """Images (B, C, S, S) uint8 as values of zero mean and unit variance."""
        return (data.to(self.device).float() / 255 - self.mean) / self.std

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
        for network in self.networks.values():
            network.zero_grad(set_to_none=True)
        loss.backward()
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
        for batch in batches:
            for name, value in self.step(self.standardize(data[batch.to(data.device)])).items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value
        self.epoch += 1
        means = {name: float(total) / len(batches) for name, total in totals.items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise TrainingError(f"{name} became {mean} in epoch {self.epoch}; lower the learning rates")
        return means

    def should_stop(self, held_out: torch.Tensor) -> bool:
        """Whether the error on held-out normal images has not fallen for `patience` epochs."""
        error = float(self.scores(held_out.cpu().numpy()).mean())
        self.stale = 0 if error < self.best else self.stale + 1
        self.best = min(self.best, error)
        return self.stopped

    @property
    def stopped(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.config.patience <= self.stale

    @torch.no_grad()
    def reconstruct(self, images: torch.Tensor, test_noise: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The input that the denoiser is given and its output, for standardised `images` (B, C, S, S)."""
        for network in self.networks.values():
            network.eval()
        given = self.corrupt(images, self.draw_alpha()) if test_noise else images
        with self.autocast():
            return given, self.denoiser(given).float()

    def scores(self, images: np.ndarray, test_noise: bool = False) -> np.ndarray:
        """Mean squared error of each reconstruction (n,), for `images` (n, C, S, S) uint8.

        With `test_noise` the inputs are corrupted as in training, and `test_draws` such errors averaged.
        """
        draws = self.config.test_draws if test_noise else 1
        errors = []
        for part in torch.from_numpy(images).split(1024):
            wanted = self.standardize(part)
            each = [
                (self.reconstruct(wanted, test_noise)[1] - wanted).square().mean(dim=(1, 2, 3))
                for _ in range(draws)
            ]
            errors.append(torch.stack(each).mean(dim=0).cpu())
        return torch.cat(errors).numpy()

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes."""
        return {
            "kind": "baselines.ALCN",
            "config": json.dumps(asdict(self.config)),
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "random": self.random.get_state(),
            "scale": (self.mean, self.std),
            "progress": {"epoch": self.epoch, "stale": self.stale, "best": self.best},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        set_generator(self.random, state["random"])
        self.mean, self.std = (value.to(self.device) for value in state["scale"])
        self.epoch, self.stale, self.best = (state["progress"][name] for name in ("epoch", "stale", "best"))

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> ALCN:
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
