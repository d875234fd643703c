"""A U-Net whose encoder has seen ImageNet: a mask of an image of any size in one pass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nbs_env.common.networks import initialize, own_draws
from nbs_env.common.symmetries import dihedral, inverse
from nbs_env.features.encoder import CHANNELS, Encoder, pretrained

STRIDE = 16
WIDTHS = (64, 48, 32, 16, 8)
"""Channels of the decoder at strides 16, 8, 4, 2 and 1."""
STEM = 8
"""Channels of the stem."""
TILE, OVERLAP = 1152, 128
"""Side in pixels past which images are cut into tiles; how many pixels of the seams two of them share."""


def _convolve(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(True))


class Segmenter(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to anomaly logits (B, H, W), H and W of any size.

    The encoder's features at strides 2 to 16 meet those of a stem at full resolution, for defects that are a
    pixel or two thin.

    Args:
        generator: draws the weights that are not pre-trained; None: all are about to be loaded.
    """

    @own_draws
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
        images = padded(images)
        *fine, x = self.encoder(images)
        x = self.deepest(x)
        for merge, skip in zip(self.merge, (*fine[::-1], self.stem(images)), strict=True):
            x = merge(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return self.output(x)[:, 0, :height, :width]


def padded(images: torch.Tensor) -> torch.Tensor:
    """Images (B, C, H, W) with edges repeated below and to the right, up to multiples of `STRIDE`."""
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")


def segment(segmenter: Segmenter, images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Logits (B, H, W) float32 of `images` (B, 3, H, W) in [0, 1], the convolutions running in `dtype`."""
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        return segmenter(images).float()


def probable(segmenter: Segmenter, images: torch.Tensor, symmetries: bool) -> torch.Tensor:
    """Probabilities (B, H, W) of `images` (B, 3, H, W) in [0, 1], perhaps the mean over the symmetries."""
    height, width = images.shape[2:]
    images = padded(images)  # first, so that all of them see the same picture
    turned = [torch.sigmoid(segment(segmenter, dihedral(images, k))) for k in range(8 if symmetries else 1)]
    mean = torch.stack([dihedral(x, inverse(k)) for k, x in enumerate(turned)]).mean(dim=0)
    return mean[:, :height, :width]


def tiles(length: int, tile: int = TILE, overlap: int = OVERLAP) -> list[tuple[int, int]]:
    """Begin and end of tiles that cover `length` pixels.

    Each begins at a multiple of `STRIDE`, since what the network sees depends on it.
    """
    count = -(-length // tile)
    cuts = [i * length // count // STRIDE * STRIDE for i in range(count)] + [length]
    return [(max(0, begin - overlap // 2), min(length, end + overlap // 2)) for begin, end in pairwise(cuts)]


def blended(segmenter: Segmenter, image: torch.Tensor, symmetries: bool, tile: int = TILE) -> torch.Tensor:
    """Probabilities (1, H, W) of one image (1, 3, H, W) in [0, 1], a tile at a time.

    Where tiles overlap, each one's weight falls linearly to its edge.
    """
    rows, columns = (tiles(length, tile) for length in image.shape[2:])
    if len(rows) == len(columns) == 1:
        return probable(segmenter, image, symmetries)
    total, weights = torch.zeros_like(image[:, 0]), torch.zeros_like(image[:, 0])
    for top, bottom in rows:
        for left, right in columns:
            part = probable(segmenter, image[..., top:bottom, left:right], symmetries)
            weight = _ramp(bottom - top, image.device)[:, None] * _ramp(right - left, image.device)
            total[:, top:bottom, left:right] += weight * part
            weights[:, top:bottom, left:right] += weight
    return total / weights


def _ramp(length: int, device: torch.device) -> torch.Tensor:
    """Weights (length,): from near 0 at both edges up to 1, an overlap further in."""
    place = torch.arange(length, device=device)
    return (torch.minimum(place, length - 1 - place) + 1).clamp(max=OVERLAP) / OVERLAP


@torch.no_grad()
def segment_images(segmenter: Segmenter, images: np.ndarray, symmetries: bool = False) -> np.ndarray:
    """Probabilities (n, H, W) float32 of `images` (n, H, W, 3) uint8."""
    segmenter.eval()
    device = next(segmenter.parameters()).device
    large = max(images.shape[1:3]) > TILE
    found = []
    for part in torch.from_numpy(images).split(1 if large or device.type == "cpu" else 16):
        batch = part.to(device).permute(0, 3, 1, 2).float() / 255
        method = blended if large else probable
        found.append(method(segmenter, batch, symmetries).cpu())
    return torch.cat(found).numpy()
