"""f-AnoGAN (Schlegl et al. 2019): a Wasserstein GAN, then an encoder into its latent space.

Two thirds of the steps are the GAN's, each of five critic updates and one of the generator; the rest train
the encoder by the error of image and of the critic's features (izi_f), which also is the score. 148 530
parameters at 28x28 (thesis Table 5.5: 149 505), plain convolutions where the paper has residual ones.
"""

from __future__ import annotations

import torch
from torch import nn

from baselines.classes.method import Method
from baselines.classes.networks import Decoder, Encoder, squared

LATENT = 32
CRITIC_UPDATES = 5
PENALTY = 10.0
"""Weight of the gradient penalty."""


class FAnoGAN(Method):
    """Critic, generator, encoder."""

    BUDGET = 4500

    def build(self) -> dict[str, nn.Module]:
        """16 channels in the first layer."""
        size, channels, width = self.config.size, self.config.channels, self.channels(16)
        self.generator = Decoder(size, channels, width, LATENT)
        self.critic = Encoder(size, channels, width, 1)
        self.encoder = Encoder(size, channels, width, LATENT)
        return {"generator": self.generator, "critic": self.critic, "encoder": self.encoder}

    def optimize(self) -> dict[str, torch.optim.Optimizer]:
        """Adam with the betas of WGAN-GP, at five times the paper's 1e-4, for narrower networks."""
        return {
            "generator": self.adam(5e-4, "generator", first=0.0),
            "critic": self.adam(5e-4, "critic", first=0.0),
            "encoder": self.adam(1e-3, "encoder", first=0.9),
        }

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """A cycle of the GAN, or an update of the encoder."""
        if self.done >= self.steps * 2 // 3:
            loss = self._errors(images).mean()
            self.descend("encoder", loss)
            return {"encoder": loss.detach()}
        for _ in range(CRITIC_UPDATES):
            with torch.no_grad():
                drawn = self.generator(self.normal(len(images), LATENT))
            distance = self.critic(images).mean() - self.critic(drawn).mean()
            self.descend("critic", PENALTY * self._penalty(images, drawn) - distance)
        self.descend("generator", -self.critic(self.generator(self.normal(len(images), LATENT))).mean())
        return {"wasserstein": distance.detach()}

    def _penalty(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """How far the critic's gradient between images and drawn ones is from a length of 1."""
        share = (self.uniform(len(images), 1, 1, 1) + 1) / 2
        between = (share * images + (1 - share) * drawn).requires_grad_()
        (gradient,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    def _errors(self, images: torch.Tensor) -> torch.Tensor:
        again = self.generator(self.encoder(images))
        return squared(again, images) + squared(self.critic.features(again), self.critic.features(images))

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Squared error of the image, and of the critic's features."""
        return self._errors(images)
