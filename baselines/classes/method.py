"""What a method is: networks, optimisers, one training step, one score an image."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from baselines.classes.networks import Decoder, Encoder, squared
from baselines.models import Model, ModelConfig, image_batches


class Method(Model):
    """A detector that learns from random batches of normal images.

    A subclass makes `networks` and `optimizers`, and says what a step and a score are. Images are handed to
    both as floats (B, C, S, S) in [-1, 1]. A score is a function of the weights and of its image alone:
    BatchNorm is in evaluation mode, and nothing is drawn. Without `steps` it trains for its `BUDGET`.
    """

    encoder: Any
    decoder: Any

    BUDGET: ClassVar[int] = 3000
    """Steps of training where no number is given."""
    REMEDY = "try --model.no-bfloat16, or another --seed"

    def __init__(self, config: ModelConfig, steps: int, seed: int, device: torch.device | str) -> None:
        super().__init__(config, steps or self.BUDGET, seed, device)

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Update all networks with a batch; losses by name. `advance` calls it."""
        raise NotImplementedError

    def again(self, images: torch.Tensor) -> torch.Tensor:
        """The reconstructions of an autoencoder."""
        return self.decoder(self.encoder(images))

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """How anomalous each image is, (B,); the error of reconstruction where a method has no other."""
        return squared(self.again(images), images)

    def differentiate(self, loss: torch.Tensor, parameters: list[nn.Parameter]) -> None:
        # Not laid out as their parameters, where a convolution is thin; the figures on record are made so.
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient

    def shape(self, base: int) -> tuple[int, int, int]:
        """Size and channels of the images, and channels of a first layer: `base`, times the factor."""
        return self.config.size, self.config.channels, max(1, round(base * self.config.width))

    def autoencoder(self, base: int, latent: int, norm: bool = False) -> tuple[Encoder, Decoder]:
        """To vectors (B, latent) and back, `base` channels in the first layer."""
        return Encoder(*self.shape(base), latent, norm), Decoder(*self.shape(base), latent, norm)

    def normal(self, *shape: int) -> torch.Tensor:
        """Independent N(0, 1)."""
        return torch.randn(shape, generator=self.random, device=self.device)

    def advance(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step with a random batch of `data` (n, C, S, S) uint8; the losses."""
        for network in self.networks.values():
            network.train()
        with self.autocast(cache=False):  # weights change within a step
            losses = self.step(self.batch(data))
        self.done += 1
        return {name: loss.detach() for name, loss in losses.items()}

    @torch.no_grad()
    def scores(self, images: np.ndarray) -> np.ndarray:
        """Scores (n,), higher for what is anomalous, of `images` (n, C, S, S) uint8; always in float32."""
        for network in self.networks.values():
            network.eval()
        scores = [self.score(self.scale(part)).float().cpu() for part in image_batches(images)]
        return torch.cat(scores).numpy()

    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(p.numel() for network in self.networks.values() for p in network.parameters())
