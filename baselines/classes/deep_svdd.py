"""One-class Deep SVDD (Ruff et al. 2018).

An encoder without biases that pulls normal images towards a fixed centre; the score is the squared distance
from it. The first half of the steps trains it as an autoencoder, as the paper does; the centre is the mean
over all training images right after that. 347 681 parameters at 28x28, the autoencoder's decoder included.
"""

from __future__ import annotations

import torch
from torch import nn

from baselines.classes.method import Method
from baselines.classes.networks import Decoder, Encoder, squared

LATENT = 32
DECAY = 1e-6
NEAREST = 0.1
"""A coordinate of the centre keeps this distance from 0, which a zero weight would reach (section 3.3)."""


class CentredEncoder(Encoder):
    """An encoder that keeps the centre with its weights."""

    centre: torch.Tensor

    def __init__(self, size: int, channels: int, width: int) -> None:
        super().__init__(size, channels, width, LATENT, norm=True, bias=False)
        self.register_buffer("centre", torch.zeros(LATENT))


class DeepSVDD(Method):
    """Encoder with a centre, and a decoder for the first half."""

    def build(self) -> dict[str, nn.Module]:
        """32 channels in the first layer."""
        size, channels, width = self.config.size, self.config.channels, self.channels(32)
        self.encoder = CentredEncoder(size, channels, width)
        self.decoder = Decoder(size, channels, width, LATENT, norm=True)
        return {"encoder": self.encoder, "decoder": self.decoder}

    def optimize(self) -> dict[str, torch.optim.Optimizer]:
        """The second half goes slower."""
        both = self.adam(1e-3, "encoder", "decoder", first=0.9, decay=DECAY)
        return {"autoencoder": both, "encoder": self.adam(1e-4, "encoder", first=0.9, decay=DECAY)}

    def advance(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        """A step; before the first of the second half, the centre."""
        if self.done == self.steps // 2:
            self.encoder.eval()
            with torch.no_grad():
                total = sum(self.encoder(self.scale(part)).sum(dim=0) for part in data.split(512))
            centre = total / len(data)
            away = torch.where(centre < 0, -NEAREST, NEAREST)
            self.encoder.centre = torch.where(centre.abs() < NEAREST, away, centre)
        return super().advance(data)

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Descend the reconstruction error, or the distance."""
        latent = self.encoder(images)
        if self.done < self.steps // 2:
            loss, name = squared(self.decoder(latent), images).mean(), "autoencoder"
        else:
            loss, name = self._distance(latent).mean(), "encoder"
        self.descend(name, loss)
        return {f"{name}_loss": loss.detach()}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Squared distance from the centre."""
        return self._distance(self.encoder(images))

    def _distance(self, latent: torch.Tensor) -> torch.Tensor:
        return (latent - self.encoder.centre).square().sum(dim=1)
