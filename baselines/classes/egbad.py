"""EGBAD (Zenati et al. 2018): anomalies by a BiGAN (Donahue et al. 2017), the thesis's "BiGAN".

A discriminator of pairs, (image, its code) against (generated image, its latent vector). The score is 0.9 of
the reconstruction error and 0.1 of the distance between the discriminator's features, both as sums. 7 749 258
parameters at 28x28 (ALCN's Table 5: 8.65 million, thesis Table 5.5: 12 036 490). BatchNorm in the generator
alone: in the discriminator it tells real batches from fake ones, and training gets nowhere.
"""

from __future__ import annotations

import torch
from torch import nn

from baselines.classes.method import Method
from baselines.classes.networks import Decoder, Encoder, fake, real

LATENT = 200
SHARE = 0.9
"""Of the reconstruction error in a score."""


class PairCritic(nn.Module):
    """Images (B, C, S, S) and latent vectors (B, 200) to logits (B, 1)."""

    def __init__(self, size: int, channels: int, width: int) -> None:
        super().__init__()
        self.images = Encoder(size, channels, width, 1)
        del self.images.head
        self.latents = nn.Sequential(nn.Linear(LATENT, 8 * width), nn.LeakyReLU(0.2))
        self.joint = nn.Sequential(nn.Linear(self.images.flat + 8 * width, 16 * width), nn.LeakyReLU(0.2))
        self.head = nn.Linear(16 * width, 1)

    def features(self, images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The last layer but one, (B, 16 * width)."""
        return self.joint(torch.cat([self.images.features(images), self.latents(latents)], dim=1)).float()

    def forward(self, images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Logits."""
        features = self.features(images, latents)
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features)


class EGBAD(Method):
    """Generator, encoder, and the discriminator of pairs."""

    def build(self) -> dict[str, nn.Module]:
        """64 channels in the first layer."""
        size, channels, width = self.config.size, self.config.channels, self.channels(64)
        self.generator = Decoder(size, channels, width, LATENT, norm=True)
        self.encoder = Encoder(size, channels, width, LATENT)
        self.critic = PairCritic(size, channels, width)
        return {"generator": self.generator, "encoder": self.encoder, "critic": self.critic}

    def optimize(self) -> dict[str, torch.optim.Optimizer]:
        """Twenty times the paper's 1e-5, for shorter budgets."""
        return {"both": self.adam(2e-4, "generator", "encoder"), "critic": self.adam(2e-4, "critic")}

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The discriminator, then generator and encoder with the labels exchanged."""
        drawn = self.normal(len(images), LATENT)
        made, codes = self.generator(drawn), self.encoder(images)
        verdict = real(self.critic(images, codes.detach())) + fake(self.critic(made.detach(), drawn))
        self.descend("critic", verdict)
        adversarial = real(self.critic(made, drawn)) + fake(self.critic(images, codes))
        self.descend("both", adversarial)
        return {"critic": verdict.detach(), "adversarial": adversarial.detach()}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Weighted sum of both distances."""
        codes = self.encoder(images)
        again = self.generator(codes)
        error = (again - images).abs().flatten(1).sum(dim=1)
        features = (self.critic.features(again, codes) - self.critic.features(images, codes)).abs()
        return SHARE * error + (1 - SHARE) * features.sum(dim=1)
