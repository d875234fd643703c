"""The denoising autoencoder and the noise generator (paper section 3).

The paper gives their sizes alone: 1.12 million parameters for the denoiser and 9.87 million for both at
28x28. The layers are ours: strided convolutions down to at most four pixels, a dense bottleneck, and back.
The denoiser normalises each image by itself (InstanceNorm): BatchNorm's running averages, gathered over
blends of many contrasts, fit none of them in evaluation.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from baselines.classes.networks import down, up
from baselines.common import sides

Norm = Literal["instance", "batch"]
NOISE_LATENT = 256
"""Gaussian numbers that the noise generator starts from."""
_WIDTHS = (64, 128, 256)
_NOISE_WIDTHS = (704, 512, 256, 128)


def _norm(norm: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.InstanceNorm2d(channels, affine=True)


def _widths(layers: int) -> list[int]:
    return [*_WIDTHS, *[_WIDTHS[-1]] * layers][:layers]


class Denoiser(nn.Module):
    """Images (B, channels, size, size) to their reconstructions.

    Args:
        size: side of the square images.
        channels: 1 or 3.
        bottleneck: numbers that an image is reduced to.
        factor: on the widths of the layers.
        norm: `instance`; or `batch`, which is kept to show what it does.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        bottleneck: int = 32,
        factor: float = 1.0,
        norm: Norm = "instance",
    ) -> None:
        super().__init__()
        side = sides(size)
        width = [channels, *(max(1, round(factor * each)) for each in _widths(len(side) - 1))]
        layers: list[nn.Module] = []
        for (i, o), s in zip(pairwise(width), side, strict=False):
            layers += [down(i, o, s), _norm(norm, o), nn.LeakyReLU(0.2, True)]
        flat = width[-1] * side[-1] ** 2
        layers += [nn.Flatten(), nn.Linear(flat, bottleneck), nn.Linear(bottleneck, flat)]
        layers += [nn.Unflatten(1, (width[-1], side[-1], side[-1]))]
        for number in range(len(side) - 1, 0, -1):
            layers += [_norm(norm, width[number]), nn.ReLU(True)]
            layers.append(up(width[number], width[number - 1], side[number - 1]))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Reconstruct."""
        return self.layers(images)


class NoiseGenerator(nn.Module):
    """Gaussian vectors (B, 256) to noise (B, channels, size, size) in [0, 1].

    Args:
        size: side of the square images.
        channels: 1 or 3.
        factor: on the widths of the layers.
    """

    def __init__(self, size: int, channels: int, factor: float = 1.0) -> None:
        super().__init__()
        side = sides(size)[::-1]
        width = [*_NOISE_WIDTHS, *[_NOISE_WIDTHS[-1]] * len(side)][: len(side)]
        width = [max(1, round(factor * each)) for each in width]
        layers: list[nn.Module] = [
            nn.Linear(NOISE_LATENT, width[0] * side[0] ** 2),
            nn.Unflatten(1, (width[0], side[0], side[0])),
            nn.BatchNorm2d(width[0]),
            nn.ReLU(True),
        ]
        for (i, o), s in zip(pairwise(width), side[1:], strict=True):
            layers += [up(i, o, s), nn.BatchNorm2d(o), nn.ReLU(True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width[-1], channels, 3, padding=1), nn.Sigmoid())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Noise."""
        return self.layers(vectors)
