"""Rivals that reconstruct an image, or pull its code to a centre: PCA, VAE, Deep SVDD, OLED, ARAE."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA as Components
from torch import nn

from baselines.classes.method import Method
from baselines.classes.networks import Decoder, Encoder, depths, down, squared, up
from baselines.models import ModelConfig, sides


class PCA(Method):
    """Principal components: the row that everything else has to beat.

    Fitted in one step, on all images. The score is the squared distance from the space of 32 components;
    (32 + 1) x pixels numbers, 25 872 at 28x28.
    """

    COMPONENTS = 32

    def __init__(self, config: ModelConfig, steps: int, seed: int, device: torch.device | str) -> None:
        super().__init__(config, 1, seed, device)

    def build(self) -> dict[str, torch.optim.Optimizer]:
        """Mean (1, d) and components (32, d) as the weights of a module."""
        pixels = self.config.channels * self.config.size**2
        shapes = {"mean": (1, pixels), "components": (self.COMPONENTS, pixels)}
        self.space = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(shape), requires_grad=False) for name, shape in shapes.items()}
        )
        return {}

    def advance(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        """Fit; fewer than 32 images have fewer components."""
        values = self.scale(data).flatten(1).cpu().numpy()
        count = min(self.COMPONENTS, *values.shape)
        found = Components(count, svd_solver="randomized", random_state=self.seed).fit(values)
        self.space["mean"].copy_(torch.from_numpy(found.mean_))
        self.space["components"][:count] = torch.from_numpy(found.components_)
        self.done = 1
        return {"explained": torch.tensor(found.explained_variance_ratio_.sum())}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        values, components = images.flatten(1) - self.space["mean"], self.space["components"]
        return squared(values @ components.T @ components, values)


class VAE(Method):
    """Variational autoencoder (Kingma and Welling 2014).

    Pixels in [0, 1] are Bernoulli. The score is the negative evidence lower bound at the mean of the latent
    vector, less the image's own entropy: grey pixels have some whatever the model says, and that would drown
    the rest (MNIST, protocol 2, 1 500 steps at half width: AUC of 0 and 8 0.951 and 0.788 with it, 0.995 and
    0.892 without). 232 993 parameters at 28x28 (thesis Table 5.5: 237 656).
    """

    LATENT = 24

    def build(self) -> dict[str, torch.optim.Optimizer]:
        """Encoder to mean and log variance, decoder to logits; 24 channels in the first layer."""
        shape = self.shape(24)
        self.encoder = Encoder(*shape, 2 * self.LATENT)
        self.decoder = Decoder(*shape, self.LATENT, bounded=False)
        return {"both": self.adam(1e-3, self.encoder, self.decoder)}

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Descend the bound, at a latent vector drawn for each image."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        latent = mean + (log_variance / 2).exp() * self.normal(*mean.shape)
        error, divergence = self._error(images, latent).mean(), self._divergence(mean, log_variance).mean()
        self.descend(error + divergence, "both")
        return {"error": error, "divergence": divergence}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return self._error(images, mean) + self._divergence(mean, log_variance)

    def _error(self, images: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """Kullback-Leibler divergence of the decoder's pixels from each image's, (B,)."""
        shares = (images + 1) / 2
        cross = F.binary_cross_entropy_with_logits(self.decoder(latent), shares, reduction="none")
        own = torch.special.entr(shares) + torch.special.entr(1 - shares)
        return (cross - own).flatten(1).sum(dim=1)

    @staticmethod
    def _divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
        """Kullback-Leibler divergence from N(0, 1), (B,)."""
        return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


class DeepSVDD(Method):
    """One-class Deep SVDD (Ruff et al. 2018).

    An encoder without biases that pulls normal images towards a fixed centre; the score is the squared
    distance from it. The first half of the steps trains it as an autoencoder, as the paper does; the centre
    is the mean over all training images right after that. 347 681 parameters at 28x28, the autoencoder's
    decoder included.
    """

    LATENT = 32
    DECAY = 1e-6
    NEAREST = 0.1
    """A coordinate of the centre keeps this distance from 0, which zero weights would reach (section 3.3)."""

    def build(self) -> dict[str, torch.optim.Optimizer]:
        """32 channels in the first layer; the second half goes slower."""
        shape = self.shape(32)
        self.encoder = Encoder(*shape, self.LATENT, norm=True, bias=False)
        self.encoder.register_buffer("centre", torch.zeros(self.LATENT))
        self.decoder = Decoder(*shape, self.LATENT, norm=True)
        both = self.adam(1e-3, self.encoder, self.decoder, decay=self.DECAY)
        return {"autoencoder": both, "encoder": self.adam(1e-4, self.encoder, decay=self.DECAY)}

    def advance(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        """A step; before the first of the second half, the centre."""
        if self.done == self.steps // 2:
            self.encoder.eval()
            with torch.no_grad():
                total = sum(self.encoder(self.scale(part)).sum(dim=0) for part in data.split(512))
            centre = total / len(data)
            away = torch.where(centre < 0, -self.NEAREST, self.NEAREST)
            self.encoder.centre = torch.where(centre.abs() < self.NEAREST, away, centre)
        return super().advance(data)

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Descend the reconstruction error, or the distance."""
        latent = self.encoder(images)
        if self.done < self.steps // 2:
            loss, name = squared(self.decoder(latent), images).mean(), "autoencoder"
        else:
            loss, name = self._distance(latent).mean(), "encoder"
        self.descend(loss, name)
        return {f"{name}_loss": loss}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        return self._distance(self.encoder(images))

    def _distance(self, latent: torch.Tensor) -> torch.Tensor:
        return (latent - self.encoder.centre).square().sum(dim=1)


class MaskModule(nn.Module):
    """Images (B, channels, size, size) to ratings (B, 1, size, size); convolutions alone."""

    HIDDEN = 0.125
    """Share of the pixels that is hidden."""

    def __init__(self, size: int, channels: int, width: int) -> None:
        super().__init__()
        side = sides(size)[:3]
        widths = [channels, *depths(width, 2)]
        layers: list[nn.Module] = []
        for (i, o), larger in zip(pairwise(widths), side, strict=False):
            layers += [down(i, o, larger), nn.LeakyReLU(0.2)]
        layers += [up(widths[2], widths[1], side[1]), nn.LeakyReLU(0.2), up(widths[1], 1, side[0])]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """1 where a pixel is to be hidden, 0 elsewhere, (B, 1, size, size)."""
        ratings = self.layers(images).float()
        limit = ratings.flatten(1).quantile(1 - self.HIDDEN, dim=1)[:, None, None, None]
        soft = torch.sigmoid(ratings - limit)
        return (ratings > limit).float() + soft - soft.detach()


class OLED(Method):
    """OLED (Jewell et al. 2022): an autoencoder against a network that hides the parts that matter.

    The Mask Module rates pixels; the eighth of an image that it rates highest is set to grey, and it is paid
    for the autoencoder's error. A threshold has no slope, so the gradient is that of a sigmoid in its place.
    The score is the squared error of the image as it is and of the masked one. 1 449 794 parameters at 28x28.
    """

    def build(self) -> dict[str, torch.optim.Optimizer]:
        """64 channels in the first layer of the one, 32 of the other."""
        self.encoder, self.decoder = self.autoencoder(64, latent=64)
        self.mask = MaskModule(*self.shape(32))
        return {
            "autoencoder": self.adam(1e-3, self.encoder, self.decoder),
            "mask": self.adam(1e-3, self.mask),
        }

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The autoencoder descends both errors; in each third step the Mask Module ascends the masked one."""
        with torch.no_grad():
            mask = self.mask(images)
        clear, hidden = squared(self.again(images), images).mean(), self._masked_error(images, mask)
        self.descend(clear + hidden, "autoencoder")
        if self.done % 3 == 0:
            self.descend(-self._masked_error(images, self.mask(images)), "mask")
        return {"error": clear, "masked_error": hidden}

    def _masked_error(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        again = self.again(images * (1 - mask))
        return squared(again, images).mean() + 12.5 * (mask * (again - images)).abs().mean()

    def score(self, images: torch.Tensor) -> torch.Tensor:
        masked = images * (1 - self.mask(images))
        return super().score(images) + squared(self.again(masked), images)


class ARAE(Method):
    """ARAE (Salehi et al. 2021): an autoencoder trained on the worst inputs near each image.

    A latent adversary, which has no weights, looks for the image within a cube around the given one whose
    code is farthest away; the autoencoder has to draw the given one from that code, and to keep both codes
    together. The score is the reconstruction error. 1 907 457 parameters at 28x28, convolutions where the
    paper has dense layers.
    """

    RADIUS = 0.4
    """Half the cube's side, in images from -1 to 1: the paper's 0.2 for digits, which go from 0 to 1."""
    ATTACK_STEPS = 5
    """Of projected gradient ascent; the paper takes 40, with as long a way in all."""

    def build(self) -> dict[str, torch.optim.Optimizer]:
        """64 channels in the first layer."""
        self.encoder, self.decoder = self.autoencoder(64, latent=128)
        return {"both": self.adam(1e-3, self.encoder, self.decoder)}

    def attack(self, images: torch.Tensor) -> torch.Tensor:
        """Images within `RADIUS` of the given ones, in every pixel, whose codes are far from theirs."""
        with torch.no_grad():
            codes = self.encoder(images)
        near = (images + self.RADIUS * self.uniform(*images.shape)).clamp(-1, 1)
        for _ in range(self.ATTACK_STEPS):
            near.requires_grad_()
            (gradient,) = torch.autograd.grad(squared(self.encoder(near), codes).sum(), near)
            moved = near.detach() + 2.5 * self.RADIUS / self.ATTACK_STEPS * gradient.sign()
            near = torch.clamp(moved, images - self.RADIUS, images + self.RADIUS).clamp(-1, 1)
        return near

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Attack, then descend the error of what comes of it and the distance of the codes."""
        codes, attacked = self.encoder(images), self.encoder(self.attack(images))
        error, distance = squared(self.decoder(attacked), images).mean(), squared(attacked, codes).mean()
        self.descend(error + 0.1 * distance, "both")
        return {"error": error, "code_distance": distance}
