"""Pre-trained features that the autoencoder reconstructs beside RGB (`Config.reconstruct`)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from nbs_env.detect.encoder import CHANNELS, Encoder, pretrained
from nbs_env.networks import place

FINE = sum(CHANNELS[:3])
"""Channels of the features at strides 2, 4 and 8, which are brought to `STRIDE`."""
STRIDE, GRID = 4, 8
"""Pixels from one feature to the next; and between places where all of them lie alike in a patch."""
KEPT = 512
"""Images whose features are kept, 0.7 MB each at 256 pixels; the longest unused are computed anew."""


def fine_encoder(device: torch.device) -> Encoder:
    """The pre-trained encoder up to stride 8."""
    encoder = Encoder()
    encoder.load_state_dict(pretrained())
    del encoder._blocks[5:]
    return place(encoder, device)


@torch.no_grad()
def fine_features(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    """Features of whole images, which see past a patch; one image at a time: each depends on itself alone.

    Args:
        encoder: of `fine_encoder`.
        images: (N, 3, H, W) uint8 on its device; H and W are multiples of 16.

    Returns:
        (N, FINE, H / 4, W / 4) float16: means of four at stride 2, as they are at 4, repeated at 8.
    """
    found = []
    for image in images.split(1):
        two, four, eight = encoder(image.float() / 255)
        repeated = F.interpolate(eight, scale_factor=2.0, mode="nearest")
        found.append(torch.cat([F.avg_pool2d(two, 2), four, repeated], dim=1).half())
    return torch.cat(found)


class ImageFeatures:
    """Features of a learner's images, each image's computed when they are first asked for.

    Args:
        images: (n, 3, H, W) uint8, on any device.
        device: where features are computed and kept.
    """

    def __init__(self, images: torch.Tensor, device: torch.device) -> None:
        self.images, encoder = images, fine_encoder(device)
        self._of = lru_cache(KEPT)(lambda i: fine_features(encoder, images[i : i + 1].to(device)))

    def of(self, indices: np.ndarray) -> torch.Tensor:
        """Features (n, FINE, H / 4, W / 4) of some images."""
        return torch.cat([self._of(int(i)) for i in indices])

    def patches(self, places: np.ndarray, size: int) -> list[list[torch.Tensor]]:
        """Patches (3, size, size) uint8 near `places`, and their features (FINE, size / 4, size / 4).

        Args:
            places: (N, 3): image, top, left; a patch is cut at the multiples of `GRID` next to them.
            size: side in pixels, a multiple of `GRID`, as the images' sides are.
        """
        cut: list[list[torch.Tensor]] = [[], []]
        for image, *corner in places.tolist():
            top, left = ((at + GRID // 2) // GRID * GRID for at in corner)
            cut[0].append(self.images[image, :, top : top + size, left : left + size])
            rows, columns = (slice(at // STRIDE, (at + size) // STRIDE) for at in (top, left))
            cut[1].append(self._of(image)[0, :, rows, columns])
        return cut
