"""OCGAN (Perera et al. 2019): a denoising autoencoder whose whole latent cube decodes to normal images.

Latent vectors lie in (-1, 1). One discriminator makes codes uniform there, another makes images decoded from
uniform vectors look real, and a classifier finds vectors whose images do not (informative-negative mining).
The score is the reconstruction error. 2 780 932 parameters at 28x28 (thesis Table 5.5: 3 353 842).
"""

from __future__ import annotations

import torch
from torch import nn

from baselines.classes.method import Method
from baselines.classes.networks import Decoder, Encoder, fake, real, squared

LATENT = 128
CONTENT = 10.0
"""Weight of the reconstruction; the adversarial losses have 1."""
NOISE = 0.2**0.5
"""Standard deviation of the noise on the inputs."""
MINING_STEPS, MINING_RATE = 5, 0.1
"""Of the walk to bad images; our choice."""


class OCGAN(Method):
    """Encoder and decoder, two discriminators, a classifier."""

    def build(self) -> dict[str, nn.Module]:
        """64 channels in the first layer."""
        size, channels, width = self.config.size, self.config.channels, self.channels(64)
        self.encoder = Encoder(size, channels, width, LATENT)
        self.decoder = Decoder(size, channels, width, LATENT)
        self.visual, self.classifier = (Encoder(size, channels, width, 1) for _ in range(2))
        layers = [nn.Linear(LATENT, 64), nn.LeakyReLU(0.2), nn.Linear(64, 32), nn.LeakyReLU(0.2)]
        self.latent = nn.Sequential(*layers, nn.Linear(32, 1))
        return {"encoder": self.encoder, "decoder": self.decoder, "visual": self.visual,
                "classifier": self.classifier, "latent": self.latent}  # fmt: skip

    def optimize(self) -> dict[str, torch.optim.Optimizer]:
        """One for the autoencoder, one for both discriminators, one for the classifier."""
        return {"autoencoder": self.adam(2e-4, "encoder", "decoder"),
                "critics": self.adam(2e-4, "visual", "latent"),
                "classifier": self.adam(2e-4, "classifier")}  # fmt: skip

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Codes (B, 128) in (-1, 1)."""
        return torch.tanh(self.encoder(images))

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Classifier, discriminators, mining, autoencoder, in the paper's order."""
        drawn = self.uniform(len(images), LATENT)
        codes = self.encode(images + NOISE * self.normal(*images.shape))
        again = self.decoder(codes)
        made = self.decoder(drawn).detach()
        seen = real(self.classifier(again.detach())) + fake(self.classifier(made))
        self.descend("classifier", seen)
        verdict = real(self.latent(drawn).float()) + fake(self.latent(codes.detach()).float())
        verdict = verdict + real(self.visual(images)) + fake(self.visual(made))
        self.descend("critics", verdict)
        mined = self._mine(drawn)
        adversarial = real(self.latent(codes).float()) + real(self.visual(self.decoder(mined)))
        content = squared(again, images).mean()
        self.descend("autoencoder", CONTENT * content + adversarial)
        losses = {"classifier": seen, "critics": verdict, "adversarial": adversarial, "content": content}
        return {name: value.detach() for name, value in losses.items()}

    def _mine(self, drawn: torch.Tensor) -> torch.Tensor:
        """Walk from latent vectors to where the classifier is surest that the image is no normal one."""
        for _ in range(MINING_STEPS):
            drawn = drawn.detach().requires_grad_()
            loss = fake(self.classifier(self.decoder(drawn))) * len(drawn)  # each vector has its own gradient
            drawn = (drawn - MINING_RATE * torch.autograd.grad(loss, drawn)[0]).clamp(-1, 1)
        return drawn.detach()

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Squared error, without noise."""
        return squared(self.decoder(self.encode(images)), images)
