"""The blocks that all methods are built from: strided convolutions down to four pixels or fewer, and back."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from baselines.models import sides


def down(i: int, o: int, side: int, bias: bool = True) -> nn.Conv2d:
    """A convolution that halves maps of `side` pixels, rounding up."""
    return nn.Conv2d(i, o, 4 - side % 2, stride=2, padding=1, bias=bias)


def up(i: int, o: int, side: int) -> nn.ConvTranspose2d:
    """A transposed convolution to maps of `side` pixels, the reverse of `down`."""
    return nn.ConvTranspose2d(i, o, 4 - side % 2, stride=2, padding=1)


def depths(width: int, layers: int) -> list[int]:
    """Channels of so many layers: `width`, twice and four times that, and then no more."""
    return [width * min(2**layer, 4) for layer in range(layers)]


class Encoder(nn.Module):
    """Images (B, channels, size, size) to vectors (B, out); with `out` 1 a discriminator's logits.

    `width` are the channels of the first layer; `norm` puts BatchNorm behind every convolution but the first.
    Without `bias` neither layers nor BatchNorm can shift anything.
    """

    def __init__(
        self, size: int, channels: int, width: int, out: int, norm: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        side = sides(size)
        widths = [channels, *depths(width, len(side) - 1)]
        layers: list[nn.Module] = []
        for number, (i, o) in enumerate(pairwise(widths)):
            layers.append(down(i, o, side[number], bias))
            if norm and number:
                layers.append(nn.BatchNorm2d(o, affine=bias))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.flat = widths[-1] * side[-1] ** 2
        self.head = nn.Linear(self.flat, out, bias)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the last convolution makes of the images, (B, flat)."""
        return self.layers(images).float()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Vectors (B, out)."""
        return self.read(self.features(images))

    def read(self, features: torch.Tensor) -> torch.Tensor:
        """Vectors (B, out) of what `features` gave."""
        # Logits may drift together far from 0, where bfloat16 would round away the differences that teach.
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features)


class Decoder(nn.Module):
    """Vectors (B, latent) to images (B, channels, size, size), in [-1, 1] if `bounded` by a tanh."""

    def __init__(
        self, size: int, channels: int, width: int, latent: int, norm: bool = False, bounded: bool = True
    ) -> None:
        super().__init__()
        side = sides(size)[::-1]
        widths = [*depths(width, len(side) - 1)[::-1], channels]
        layers: list[nn.Module] = [
            nn.Linear(latent, widths[0] * side[0] ** 2),
            nn.Unflatten(1, (widths[0], side[0], side[0])),
        ]
        for (i, o), larger in zip(pairwise(widths), side[1:], strict=True):
            layers += [nn.BatchNorm2d(i)] if norm else []
            layers += [nn.ReLU(), up(i, o, larger)]
        self.layers = nn.Sequential(*layers)
        self.bounded = bounded

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        # Near -1 bfloat16 rounds to -1, where tanh has no gradient: black images would stay black.
        images = self.layers(vectors).float()
        return torch.tanh(images) if self.bounded else images


def squared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of each image or vector, (B,)."""
    return (a - b).square().flatten(1).mean(dim=1)


def absolute(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of each image or vector, (B,)."""
    return (a - b).abs().flatten(1).mean(dim=1)


def real(logits: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits that should say "real"."""
    return nn.functional.softplus(-logits).mean()


def fake(logits: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits that should say "fake"."""
    return nn.functional.softplus(logits).mean()
