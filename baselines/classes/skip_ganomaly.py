"""Skip-GANomaly (Akcay et al. 2019): a U-Net, and a discriminator whose features are the latent space.

The score is 0.9 of the reconstruction error and 0.1 of the distance between the discriminator's features.
The method is known to copy whatever it is shown, anomalies included (ALCN's Figure 2). 1 420 226 parameters
at 28x28.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from baselines.classes.method import Method
from baselines.classes.networks import Encoder, absolute, depths, down, fake, real, squared, up
from baselines.common import sides

CONTENT = 40.0
"""Weight of the reconstruction; the other two losses have 1."""
SHARE = 0.9
"""Of the reconstruction error in a score."""


class UNet(nn.Module):
    """Images (B, channels, size, size) to images in [-1, 1], each layer of the way back fed by its mirror."""

    def __init__(self, size: int, channels: int, width: int) -> None:
        super().__init__()
        side = sides(size)
        widths = [channels, *depths(width, len(side) - 1)]
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for number, (i, o) in enumerate(pairwise(widths)):
            norm = nn.BatchNorm2d(o) if number else nn.Identity()
            self.downs.append(nn.Sequential(down(i, o, side[number]), norm, nn.LeakyReLU(0.2)))
            deepest = number == len(widths) - 2
            norm = nn.BatchNorm2d(i) if number else nn.Identity()
            self.ups.insert(0, nn.Sequential(nn.ReLU(), up(o if deepest else 2 * o, i, side[number]), norm))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Reconstruct."""
        kept = [images]
        for layer in self.downs:
            kept.append(layer(kept[-1]))
        x = kept.pop()
        for number, layer in enumerate(self.ups):
            x = layer(x if number == 0 else torch.cat([x, kept.pop()], dim=1))
        return torch.tanh(x.float())


class SkipGANomaly(Method):
    """Adversarial, contextual and latent loss."""

    def build(self) -> dict[str, nn.Module]:
        """64 channels in the first layer, BatchNorm throughout."""
        size, channels, width = self.config.size, self.config.channels, self.channels(64)
        self.generator = UNet(size, channels, width)
        self.critic = Encoder(size, channels, width, 1, norm=True)
        return {"generator": self.generator, "critic": self.critic}

    def optimize(self) -> dict[str, torch.optim.Optimizer]:
        """The paper's rates."""
        return {name: self.adam(2e-4, name) for name in self.networks}

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The discriminator on images and reconstructions, then the generator on three losses."""
        again = self.generator(images)
        verdict = (real(self.critic(images)) + fake(self.critic(again.detach()))) / 2
        self.descend("critic", verdict)
        features = self.critic.features(again)
        adversarial, content = real(self.critic.read(features)), absolute(again, images).mean()
        code = squared(features, self.critic.features(images).detach()).mean()
        self.descend("generator", adversarial + CONTENT * content + code)
        losses = {"critic": verdict, "adversarial": adversarial, "content": content, "code": code}
        return {name: value.detach() for name, value in losses.items()}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Weighted sum of both distances."""
        again = self.generator(images)
        code = squared(self.critic.features(again), self.critic.features(images))
        return SHARE * absolute(again, images) + (1 - SHARE) * code
