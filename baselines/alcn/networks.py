"""The denoising autoencoder and the noise generator (paper section 3).

The paper gives their sizes alone: 1.12 million parameters for the denoiser and 9.87 million for both at
28x28. The layers are ours: strided convolutions down to at most four pixels, a dense bottleneck, and back.
The denoiser normalises each image by itself (InstanceNorm): BatchNorm's running averages, gathered over
blends of many contrasts, fit none of them in evaluation.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from baselines.classes.networks import down, up
from baselines.models import sides

NOISE_LATENT = 256
"""Gaussian numbers that the noise generator starts from."""
_WIDTHS = (64, 128, 256)
_NOISE_WIDTHS = (704, 512, 256, 128)


def _widths(widths: tuple[int, ...], layers: int, factor: float) -> list[int]:
    """So many of `widths`, of which the last goes on, times `factor`."""
    return [max(1, round(factor * each)) for each in [*widths, *[widths[-1]] * layers][:layers]]


class Denoiser(nn.Module):
    """Images (B, channels, size, size) to `bottleneck` numbers and back; `factor` is on all widths."""

    def __init__(self, size: int, channels: int, bottleneck: int = 32, factor: float = 1.0) -> None:
        super().__init__()
        side = sides(size)
        width = [channels, *_widths(_WIDTHS, len(side) - 1, factor)]
        layers: list[nn.Module] = []
        for (i, o), s in zip(pairwise(width), side, strict=False):
            layers += [down(i, o, s), nn.InstanceNorm2d(o, affine=True), nn.LeakyReLU(0.2, True)]
        flat = width[-1] * side[-1] ** 2
        layers += [nn.Flatten(), nn.Linear(flat, bottleneck), nn.Linear(bottleneck, flat)]
        layers += [nn.Unflatten(1, (width[-1], side[-1], side[-1]))]
        for number in range(len(side) - 1, 0, -1):
            layers += [nn.InstanceNorm2d(width[number], affine=True), nn.ReLU(True)]
            layers.append(up(width[number], width[number - 1], side[number - 1]))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


class NoiseGenerator(nn.Module):
    """Gaussian vectors (B, 256) to noise (B, channels, size, size) in [0, 1]; `factor` as above."""

    def __init__(self, size: int, channels: int, factor: float = 1.0) -> None:
        super().__init__()
        side = sides(size)[::-1]
        width = _widths(_NOISE_WIDTHS, len(side), factor)
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
        return self.layers(vectors)
