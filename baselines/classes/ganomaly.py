"""GANomaly (Akcay et al. 2018): encoder, decoder, encoder.

The score is the distance between the latent vectors of an image and of its reconstruction. 2 949 962
parameters at 28x28 (thesis Table 5.5: 6 400 768, ALCN's Table 5: 3.86 million).
"""

from __future__ import annotations

import torch
from torch import nn

from baselines.classes.method import Method
from baselines.classes.networks import Decoder, Encoder, absolute, fake, real, squared

LATENT = 100
CONTENT = 50.0
"""Weight of the reconstruction; the other two losses have 1."""


class GANomaly(Method):
    """The discriminator's last features are matched, rather than its verdict."""

    def build(self) -> dict[str, nn.Module]:
        """64 channels in the first layer, BatchNorm throughout."""
        size, channels, width = self.config.size, self.config.channels, self.channels(64)
        self.encoder = Encoder(size, channels, width, LATENT, norm=True)
        self.decoder = Decoder(size, channels, width, LATENT, norm=True)
        self.second = Encoder(size, channels, width, LATENT, norm=True)
        self.critic = Encoder(size, channels, width, 1, norm=True)
        return {"encoder": self.encoder, "decoder": self.decoder, "second": self.second,
                "critic": self.critic}  # fmt: skip

    def optimize(self) -> dict[str, torch.optim.Optimizer]:
        """The paper's rates."""
        return {"generator": self.adam(2e-4, "encoder", "decoder", "second"),
                "critic": self.adam(2e-4, "critic")}  # fmt: skip

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The discriminator on images and reconstructions, then the rest on three losses."""
        latent = self.encoder(images)
        again = self.decoder(latent)
        verdict = (real(self.critic(images)) + fake(self.critic(again.detach()))) / 2
        self.descend("critic", verdict)
        match = squared(self.critic.features(again), self.critic.features(images).detach()).mean()
        content = absolute(again, images).mean()
        code = squared(self.second(again), latent).mean()
        self.descend("generator", match + CONTENT * content + code)
        losses = {"critic": verdict, "match": match, "content": content, "code": code}
        return {name: value.detach() for name, value in losses.items()}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Distance of the two latent vectors."""
        latent = self.encoder(images)
        return squared(self.second(self.decoder(latent)), latent)
