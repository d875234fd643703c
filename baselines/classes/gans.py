"""Rivals with a discriminator: GANomaly, Skip-GANomaly, f-AnoGAN, EGBAD, OCGAN."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from baselines.classes.method import Method
from baselines.classes.networks import Decoder, Encoder, absolute, depths, down, fake, real, squared, up
from baselines.models import sides

LOW = (0.5, 0.999)
"""Adam's betas: GANs want the first one low."""


class GANomaly(Method):
    """GANomaly (Akcay et al. 2018): encoder, decoder, encoder.

    The discriminator's last features are matched, rather than its verdict. The score is the distance between
    the latent vectors of an image and of its reconstruction. 2 949 962 parameters at 28x28 (thesis Table 5.5:
    6 400 768, ALCN's Table 5: 3.86 million).
    """

    LATENT = 100

    def build(self) -> dict[str, torch.optim.Optimizer]:
        """64 channels in the first layer, BatchNorm throughout; the paper's rates."""
        self.encoder, self.decoder = self.autoencoder(64, self.LATENT, norm=True)
        self.second = Encoder(*self.shape(64), self.LATENT, norm=True)
        self.critic = Encoder(*self.shape(64), 1, norm=True)
        generator = self.adam(2e-4, self.encoder, self.decoder, self.second, betas=LOW)
        return {"generator": generator, "critic": self.adam(2e-4, self.critic, betas=LOW)}

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The discriminator on images and reconstructions, then the rest on three losses."""
        latent = self.encoder(images)
        again = self.decoder(latent)
        verdict = (real(self.critic(images)) + fake(self.critic(again.detach()))) / 2
        self.descend(verdict, "critic")
        match = squared(self.critic.features(again), self.critic.features(images).detach()).mean()
        content = absolute(again, images).mean()
        code = squared(self.second(again), latent).mean()
        self.descend(match + 50 * content + code, "generator")
        return {"critic": verdict, "match": match, "content": content, "code": code}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        latent = self.encoder(images)
        return squared(self.second(self.decoder(latent)), latent)


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
        kept = [images]
        for layer in self.downs:
            kept.append(layer(kept[-1]))
        x = kept.pop()
        for number, layer in enumerate(self.ups):
            x = layer(x if number == 0 else torch.cat([x, kept.pop()], dim=1))
        return torch.tanh(x.float())


class SkipGANomaly(Method):
    """Skip-GANomaly (Akcay et al. 2019): a U-Net, and a discriminator whose features are the latent space.

    The score is 0.9 of the reconstruction error and 0.1 of the distance between the discriminator's features.
    The method is known to copy whatever it is shown, anomalies included (ALCN's Figure 2). 1 420 226
    parameters at 28x28.
    """

    SHARE = 0.9
    """Of the reconstruction error in a score."""

    def build(self) -> dict[str, torch.optim.Optimizer]:
        """64 channels in the first layer, BatchNorm throughout; the paper's rates."""
        self.generator = UNet(*self.shape(64))
        self.critic = Encoder(*self.shape(64), 1, norm=True)
        networks = {"generator": self.generator, "critic": self.critic}
        return {name: self.adam(2e-4, network, betas=LOW) for name, network in networks.items()}

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The discriminator on images and reconstructions, then the generator on three losses."""
        again = self.generator(images)
        verdict = (real(self.critic(images)) + fake(self.critic(again.detach()))) / 2
        self.descend(verdict, "critic")
        features = self.critic.features(again)
        adversarial, content = real(self.critic.read(features)), absolute(again, images).mean()
        code = squared(features, self.critic.features(images).detach()).mean()
        self.descend(adversarial + 40 * content + code, "generator")
        return {"critic": verdict, "adversarial": adversarial, "content": content, "code": code}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        again = self.generator(images)
        code = squared(self.critic.features(again), self.critic.features(images))
        return self.SHARE * absolute(again, images) + (1 - self.SHARE) * code


class FAnoGAN(Method):
    """f-AnoGAN (Schlegl et al. 2019): a Wasserstein GAN, then an encoder into its latent space.

    Two thirds of the steps are the GAN's, each of five critic updates and one of the generator; the rest
    train the encoder by the error of image and of the critic's features (izi_f), which also is the score.
    148 530 parameters at 28x28 (thesis Table 5.5: 149 505), plain convolutions where the paper has residual
    ones.
    """

    BUDGET = 4500
    LATENT = 32
    CRITIC_UPDATES = 5

    def build(self) -> dict[str, torch.optim.Optimizer]:
        """16 channels in the first layer; WGAN-GP's betas, at five times its rate, for narrower networks."""
        shape = self.shape(16)
        self.generator = Decoder(*shape, self.LATENT)
        self.critic = Encoder(*shape, 1)
        self.encoder = Encoder(*shape, self.LATENT)
        networks = {"generator": self.generator, "critic": self.critic}
        gan = {name: self.adam(5e-4, network, betas=(0.0, 0.9)) for name, network in networks.items()}
        return {**gan, "encoder": self.adam(1e-3, self.encoder)}

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """A cycle of the GAN, or an update of the encoder."""
        if self.done >= self.steps * 2 // 3:
            loss = self.score(images).mean()
            self.descend(loss, "encoder")
            return {"encoder": loss}
        for _ in range(self.CRITIC_UPDATES):
            with torch.no_grad():
                drawn = self.generator(self.normal(len(images), self.LATENT))
            distance = self.critic(images).mean() - self.critic(drawn).mean()
            self.descend(10 * self._penalty(images, drawn) - distance, "critic")
        made = self.generator(self.normal(len(images), self.LATENT))
        self.descend(-self.critic(made).mean(), "generator")
        return {"wasserstein": distance}

    def _penalty(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """How far the critic's gradient between images and drawn ones is from a length of 1."""
        share = (self.uniform(len(images), 1, 1, 1) + 1) / 2
        between = (share * images + (1 - share) * drawn).requires_grad_()
        (gradient,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    def score(self, images: torch.Tensor) -> torch.Tensor:
        again = self.generator(self.encoder(images))
        return squared(again, images) + squared(self.critic.features(again), self.critic.features(images))


class PairCritic(nn.Module):
    """Images (B, C, S, S) and latent vectors (B, latent) to logits (B, 1)."""

    def __init__(self, size: int, channels: int, width: int, latent: int) -> None:
        super().__init__()
        self.images = Encoder(size, channels, width, 1)
        del self.images.head
        self.latents = nn.Sequential(nn.Linear(latent, 8 * width), nn.LeakyReLU(0.2))
        self.joint = nn.Sequential(nn.Linear(self.images.flat + 8 * width, 16 * width), nn.LeakyReLU(0.2))
        self.head = nn.Linear(16 * width, 1)

    def features(self, images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The last layer but one, (B, 16 * width)."""
        return self.joint(torch.cat([self.images.features(images), self.latents(latents)], dim=1)).float()

    def forward(self, images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        features = self.features(images, latents)
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features)


class EGBAD(Method):
    """EGBAD (Zenati et al. 2018): anomalies by a BiGAN (Donahue et al. 2017), the thesis's "BiGAN".

    A discriminator of pairs, (image, its code) against (generated image, its latent vector). The score is 0.9
    of the reconstruction error and 0.1 of the distance between the discriminator's features, both as sums.
    7 749 258 parameters at 28x28 (ALCN's Table 5: 8.65 million, thesis Table 5.5: 12 036 490). BatchNorm in
    the generator alone: in the discriminator it tells real batches from fake ones, and training gets nowhere.
    """

    LATENT = 200
    SHARE = 0.9
    """Of the reconstruction error in a score."""

    def build(self) -> dict[str, torch.optim.Optimizer]:
        """64 channels in the first layer; twenty times the paper's 1e-5, for shorter budgets."""
        shape = self.shape(64)
        self.generator = Decoder(*shape, self.LATENT, norm=True)
        self.encoder = Encoder(*shape, self.LATENT)
        self.critic = PairCritic(*shape, self.LATENT)
        both = self.adam(2e-4, self.generator, self.encoder, betas=LOW)
        return {"both": both, "critic": self.adam(2e-4, self.critic, betas=LOW)}

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The discriminator, then generator and encoder with the labels exchanged."""
        drawn = self.normal(len(images), self.LATENT)
        made, codes = self.generator(drawn), self.encoder(images)
        verdict = real(self.critic(images, codes.detach())) + fake(self.critic(made.detach(), drawn))
        self.descend(verdict, "critic")
        adversarial = real(self.critic(made, drawn)) + fake(self.critic(images, codes))
        self.descend(adversarial, "both")
        return {"critic": verdict, "adversarial": adversarial}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        codes = self.encoder(images)
        again = self.generator(codes)
        error = (again - images).abs().flatten(1).sum(dim=1)
        features = (self.critic.features(again, codes) - self.critic.features(images, codes)).abs()
        return self.SHARE * error + (1 - self.SHARE) * features.sum(dim=1)


class OCGAN(Method):
    """OCGAN (Perera et al. 2019): a denoising autoencoder whose whole latent cube decodes to normal images.

    Latent vectors lie in (-1, 1). One discriminator makes codes uniform there, another makes images decoded
    from uniform vectors look real, and a classifier finds vectors whose images do not (informative-negative
    mining). The score is the reconstruction error. 2 780 932 parameters at 28x28 (thesis Table 5.5:
    3 353 842).
    """

    LATENT = 128
    MINING_STEPS, MINING_RATE = 5, 0.1
    """Of the walk to bad images; our choice."""

    def build(self) -> dict[str, torch.optim.Optimizer]:
        """64 channels in the first layer."""
        self.encoder, self.decoder = self.autoencoder(64, self.LATENT)
        self.visual, self.classifier = (Encoder(*self.shape(64), 1) for _ in range(2))
        layers = [nn.Linear(self.LATENT, 64), nn.LeakyReLU(0.2), nn.Linear(64, 32), nn.LeakyReLU(0.2)]
        self.latent = nn.Sequential(*layers, nn.Linear(32, 1))
        return {
            "autoencoder": self.adam(2e-4, self.encoder, self.decoder, betas=LOW),
            "critics": self.adam(2e-4, self.visual, self.latent, betas=LOW),
            "classifier": self.adam(2e-4, self.classifier, betas=LOW),
        }

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Codes (B, 128) in (-1, 1)."""
        return torch.tanh(self.encoder(images))

    def again(self, images: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encode(images))

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Classifier, discriminators, mining, autoencoder, in the paper's order."""
        drawn = self.uniform(len(images), self.LATENT)
        codes = self.encode(images + 0.2**0.5 * self.normal(*images.shape))
        again = self.decoder(codes)
        made = self.decoder(drawn).detach()
        seen = real(self.classifier(again.detach())) + fake(self.classifier(made))
        self.descend(seen, "classifier")
        verdict = real(self.latent(drawn).float()) + fake(self.latent(codes.detach()).float())
        verdict = verdict + real(self.visual(images)) + fake(self.visual(made))
        self.descend(verdict, "critics")
        mined = self._mine(drawn)
        adversarial = real(self.latent(codes).float()) + real(self.visual(self.decoder(mined)))
        content = squared(again, images).mean()
        self.descend(10 * content + adversarial, "autoencoder")
        return {"classifier": seen, "critics": verdict, "adversarial": adversarial, "content": content}

    def _mine(self, drawn: torch.Tensor) -> torch.Tensor:
        """Walk from latent vectors to where the classifier is surest that the image is no normal one."""
        for _ in range(self.MINING_STEPS):
            drawn = drawn.detach().requires_grad_()
            loss = fake(self.classifier(self.decoder(drawn))) * len(drawn)  # each vector has its own gradient
            drawn = (drawn - self.MINING_RATE * torch.autograd.grad(loss, drawn)[0]).clamp(-1, 1)
        return drawn.detach()
