"""OLED (Jewell et al. 2022): an autoencoder against a network that hides the parts that matter.

The Mask Module rates pixels; the eighth of an image that it rates highest is set to grey, and it is paid for
the autoencoder's error. A threshold has no slope, so the gradient is that of a sigmoid in its place. The
score is the squared error of the image as it is and of the masked one. 1 449 794 parameters at 28x28.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from baselines.classes.method import Method
from baselines.classes.networks import Decoder, Encoder, depths, down, squared, up
from baselines.common import sides

LATENT = 64
HIDDEN = 0.125
"""Share of the pixels that is hidden."""
CONTEXT = 12.5
"""Weight of the absolute error within the mask; the squared errors have 1."""
MASK_EVERY = 3
"""Steps of the autoencoder to one of the Mask Module."""


class MaskModule(nn.Module):
    """Images (B, channels, size, size) to ratings (B, 1, size, size); convolutions alone."""

    def __init__(self, size: int, channels: int, width: int) -> None:
        super().__init__()
        side = sides(size)[:3]
        widths = [channels, *depths(width, 2)]
        layers: list[nn.Module] = []
        for (i, o), larger in zip(pairwise(widths), side, strict=False):
            layers += [down(i, o, larger), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(
            *layers, up(widths[2], widths[1], side[1]), nn.LeakyReLU(0.2), up(widths[1], 1, side[0])
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """1 where a pixel is to be hidden, 0 elsewhere, (B, 1, size, size)."""
        ratings = self.layers(images).float()
        limit = ratings.flatten(1).quantile(1 - HIDDEN, dim=1)[:, None, None, None]
        soft = torch.sigmoid(ratings - limit)
        return (ratings > limit).float() + soft - soft.detach()


class OLED(Method):
    """Reconstructor and Mask Module."""

    def build(self) -> dict[str, nn.Module]:
        """64 channels in the first layer of the one, 32 of the other."""
        size, channels, width = self.config.size, self.config.channels, self.channels(64)
        self.encoder = Encoder(size, channels, width, LATENT)
        self.decoder = Decoder(size, channels, width, LATENT)
        self.mask = MaskModule(size, channels, self.channels(32))
        return {"encoder": self.encoder, "decoder": self.decoder, "mask": self.mask}

    def optimize(self) -> dict[str, torch.optim.Optimizer]:
        """One for each side."""
        return {"autoencoder": self.adam(1e-3, "encoder", "decoder", first=0.9),
                "mask": self.adam(1e-3, "mask", first=0.9)}  # fmt: skip

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The autoencoder descends both errors; the Mask Module ascends that of the masked image."""
        with torch.no_grad():
            mask = self.mask(images)
        clear, hidden = squared(self._again(images), images).mean(), self._masked_error(images, mask)
        self.descend("autoencoder", clear + hidden)
        if self.done % MASK_EVERY == 0:
            self.descend("mask", -self._masked_error(images, self.mask(images)))
        return {"error": clear.detach(), "masked_error": hidden.detach()}

    def _again(self, images: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(images))

    def _masked_error(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        again = self._again(images * (1 - mask))
        return squared(again, images).mean() + CONTEXT * (mask * (again - images)).abs().mean()

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Squared errors of the image and of the masked image."""
        masked = images * (1 - self.mask(images))
        return squared(self._again(images), images) + squared(self._again(masked), images)
