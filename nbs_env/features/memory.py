"""What normal images look like: a memory of their features, and how far each pixel of an image lies from it.

After Roth et al., Towards Total Recall in Industrial Anomaly Detection (PatchCore), CVPR 2022, on the encoder
that the segmenter begins with. No mask is read, and nothing is learnt by gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from nbs_env.features.encoder import CHANNELS, Encoder, frozen_encoder

LEVELS = CHANNELS[1:]
"""Channels of the features that a vector consists of, at strides 4, 8 and 16."""
STRIDE = 8
"""Pixels between two places that are looked up."""
SMOOTHED = 9
"""Side in pixels of the square over which distances are averaged."""
AT_ONCE = 512
"""Vectors of the memory that are compared together."""
PROJECTED, TOGETHER = 32, 32
"""Dimensions in which `coreset` compares, and how many vectors it takes at a time."""


class FeatureMemory(nn.Module):
    """Images to the distance of each pixel from what normal ones look like.

    A vector holds the features at strides 4, 8 and 16 around a place, averaged over 3 x 3 places (Roth et
    al., 3.1), each stride scaled so that all weigh the same. The distance is that to the nearest vector
    (their equation 6, without the reweighting).

    Args:
        vectors: (n, 176) of normal places, scaled.
        scale: (176,) what a vector is multiplied with.
        center: distance that counts as 0.
        spread: distance that counts as 1.
    """

    def __init__(
        self,
        vectors: torch.Tensor,
        scale: torch.Tensor,
        center: torch.Tensor | float = 0.0,
        spread: torch.Tensor | float = 1.0,
    ) -> None:
        super().__init__()
        self.vectors, self.scale = nn.Buffer(vectors), nn.Buffer(scale)
        self.center, self.spread = (
            nn.Buffer(torch.as_tensor(x, dtype=torch.float32)) for x in (center, spread)
        )
        self.encoder = frozen_encoder(vectors.device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Distances (B, H, W) of `images` (B, 3, H, W) in [0, 1], less `center`, over `spread`.

        H and W are multiples of 16.
        """
        places = F.avg_pool2d(described(self.encoder, images), 2)
        rows = places.permute(0, 2, 3, 1).flatten(0, 2) * self.scale
        nearest = [
            torch.addmm((part**2).sum(dim=1), rows, part.T, alpha=-2).amin(dim=1)
            for part in self.vectors.split(AT_ONCE)
        ]
        squared = torch.stack(nearest).amin(dim=0) + (rows**2).sum(dim=1)
        planes = squared.clamp(min=0).sqrt().reshape(-1, 1, *places.shape[2:])
        whole = F.interpolate(planes, scale_factor=float(STRIDE), mode="bilinear")
        smooth = F.avg_pool2d(whole, SMOOTHED, 1, SMOOTHED // 2, count_include_pad=False)
        return (smooth[:, 0] - self.center) / self.spread

    def weights(self) -> dict[str, torch.Tensor]:
        """What makes it, by the names of its arguments."""
        return {"vectors": self.vectors, "scale": self.scale, "center": self.center, "spread": self.spread}


def described(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    """Vectors (B, 176, H / 4, W / 4) of `images` (B, 3, H, W) in [0, 1], not scaled."""
    _, fine, *coarse = encoder(images.contiguous(memory_format=torch.channels_last))
    enlarged = [F.interpolate(x, fine.shape[2:], mode="bilinear") for x in coarse]
    return F.avg_pool2d(torch.cat([fine, *enlarged], dim=1), 3, 1, 1, count_include_pad=False)


def level_scale(vectors: torch.Tensor) -> torch.Tensor:
    """What makes the total variance of each of the `LEVELS` of vectors (n, 176) equal to 1: (176,)."""
    totals = [part.var(dim=0).sum().clamp(min=1e-12) for part in vectors.split(LEVELS, dim=1)]
    return torch.cat([total.rsqrt().expand(n) for total, n in zip(totals, LEVELS, strict=True)])


def coreset(vectors: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Indices (count,) of vectors (n, d) that lie close to all others: those farthest from what was taken.

    Greedy, in few random dimensions as Roth et al. (3.2) do it, but several at a time.
    """
    if len(vectors) <= count:
        return torch.arange(len(vectors))
    points = vectors @ torch.randn(vectors.shape[1], PROJECTED, generator=generator)
    norms = (points**2).sum(dim=1)
    nearest = torch.full((len(points),), torch.inf)
    taken = [torch.tensor([0])]
    while TOGETHER * len(taken) < count + TOGETHER:
        last = taken[-1]
        distances = torch.addmm(norms[:, None], points, points[last].T, alpha=-2) + norms[last]
        nearest = torch.minimum(nearest, distances.amin(dim=1))
        taken.append(nearest.topk(TOGETHER).indices)
    return torch.cat(taken)[:count]
