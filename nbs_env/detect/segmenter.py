"""A U-Net whose encoder has seen ImageNet: a mask of an image of any size in one pass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nbs_env.detect.encoder import CHANNELS, Encoder, pretrained
from nbs_env.networks import initialize
from nbs_env.profiles import dihedral, inverse

STRIDE = 16
WIDTHS = (64, 48, 32, 16, 8)
"""Channels of the decoder at strides 16, 8, 4, 2 and 1."""
STEM = 8
"""Channels of the stem."""


def _convolve(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(True))


class Segmenter(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to anomaly logits (B, H, W), H and W of any size.

    The encoder's features at strides 2 to 16 meet those of a stem at full resolution, for defects that are a
    pixel or two thin.

    Args:
        generator: draws the weights that are not pre-trained; None: all are about to be loaded.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.stem = nn.Sequential(_convolve(3, STEM), _convolve(STEM, STEM))
        self.deepest = _convolve(CHANNELS[-1], WIDTHS[0])
        skips = (*CHANNELS[-2::-1], STEM)
        self.merge = nn.ModuleList(
            _convolve(before + skip, after)
            for (before, after), skip in zip(pairwise(WIDTHS), skips, strict=True)
        )
        self.output = nn.Conv2d(WIDTHS[-1], 1, 1)
        if generator is not None:
            for part in (self.stem, self.deepest, self.merge, self.output):
                initialize(part, generator)
            self.encoder.load_state_dict(pretrained())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        height, width = images.shape[2:]
        images = F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        *fine, x = self.encoder(images)
        x = self.deepest(x)
        for merge, skip in zip(self.merge, (*fine[::-1], self.stem(images)), strict=True):
            x = merge(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return self.output(x)[:, 0, :height, :width]


def segment(segmenter: Segmenter, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Logits (B, H, W) float32 of `images` (B, 3, H, W) in [0, 1], the convolutions running in `dtype`."""
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        return segmenter(images).float()


def probable(
    segmenter: Segmenter, images: torch.Tensor, dtype: torch.dtype, symmetries: bool
) -> torch.Tensor:
    """Probabilities (B, H, W) of `images` (B, 3, H, W) in [0, 1], perhaps the mean over the symmetries."""
    turned = [
        torch.sigmoid(segment(segmenter, dihedral(images, k), dtype)) for k in range(8 if symmetries else 1)
    ]
    return torch.stack([dihedral(x, inverse(k)) for k, x in enumerate(turned)]).mean(dim=0)


@torch.no_grad()
def segment_images(
    segmenter: Segmenter, images: np.ndarray, dtype: torch.dtype, symmetries: bool = False
) -> np.ndarray:
    """Probabilities (n, H, W) float32 of `images` (n, H, W, 3) uint8."""
    segmenter.eval()
    device = next(segmenter.parameters()).device
    found = []
    for part in torch.from_numpy(images).split(1 if device.type == "cpu" else 16):
        batch = part.to(device).permute(0, 3, 1, 2).float() / 255
        found.append(probable(segmenter, batch, dtype, symmetries).cpu())
    return torch.cat(found).numpy()
