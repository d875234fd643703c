"""ARAE (Salehi et al. 2021): an autoencoder trained on the worst inputs near each image.

A latent adversary looks for the image within a cube around the given one whose code is farthest away; the
autoencoder has to draw the given one from that code, and to keep both codes together. The score is the
reconstruction error. 1 907 457 parameters at 28x28, convolutions where the paper has dense layers.
"""

from __future__ import annotations

import torch
from torch import nn

from baselines.classes.method import Method
from baselines.classes.networks import Decoder, Encoder, squared

LATENT = 128
RADIUS = 0.4
"""Half the cube's side, in images from -1 to 1: the paper's 0.2 for digits, which go from 0 to 1."""
ATTACK_STEPS = 5
"""Of projected gradient ascent; the paper takes 40, with as long a way in all."""
CODE = 0.1
"""Weight of the distance between the codes."""


class ARAE(Method):
    """An autoencoder and its attacker, which has no weights."""

    def build(self) -> dict[str, nn.Module]:
        """64 channels in the first layer."""
        size, channels, width = self.config.size, self.config.channels, self.channels(64)
        self.encoder = Encoder(size, channels, width, LATENT)
        self.decoder = Decoder(size, channels, width, LATENT)
        return {"encoder": self.encoder, "decoder": self.decoder}

    def optimize(self) -> dict[str, torch.optim.Optimizer]:
        """One for both."""
        return {"both": self.adam(1e-3, "encoder", "decoder", first=0.9)}

    def attack(self, images: torch.Tensor) -> torch.Tensor:
        """Images within `RADIUS` of the given ones, in every pixel, whose codes are far from theirs."""
        with torch.no_grad():
            codes = self.encoder(images)
        near = (images + RADIUS * self.uniform(*images.shape)).clamp(-1, 1)
        for _ in range(ATTACK_STEPS):
            near.requires_grad_()
            (gradient,) = torch.autograd.grad(squared(self.encoder(near), codes).sum(), near)
            moved = near.detach() + 2.5 * RADIUS / ATTACK_STEPS * gradient.sign()
            near = torch.clamp(moved, images - RADIUS, images + RADIUS).clamp(-1, 1)
        return near

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Attack, then descend the error of what comes of it and the distance of the codes."""
        codes, attacked = self.encoder(images), self.encoder(self.attack(images))
        error, distance = squared(self.decoder(attacked), images).mean(), squared(attacked, codes).mean()
        self.descend("both", error + CODE * distance)
        return {"error": error.detach(), "code_distance": distance.detach()}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Squared error of the image as it is."""
        return squared(self.decoder(self.encoder(images)), images)
