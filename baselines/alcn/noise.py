"""The noises that images are blended with (paper section 3, Table 1)."""

from __future__ import annotations

from typing import Literal, Protocol

import torch

from baselines.alcn.networks import NOISE_LATENT, NoiseGenerator

NoiseName = Literal["none", "speckle", "gaussian", "alcn"]
NOISES: tuple[NoiseName, ...] = ("none", "speckle", "gaussian", "alcn")


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
