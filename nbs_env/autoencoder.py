"""The internal autoencoder (thesis Table 4.2), its trainer, and loss maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from nbs_env.common.networks import adam, initialize, own_draws, place


class TileNorm(nn.BatchNorm2d):
    """Batch statistics always, running ones never: the training batches are not drawn uniformly (4.2.2).

    Attributes:
        images: equal parts of the batch that have statistics of their own, as tiles of several images do.
    """

    images = 1

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (images x tiles, C, H, W)."""
        normalize = super().forward
        return normalize(x) if self.images == 1 else torch.cat([normalize(p) for p in x.chunk(self.images)])


def _block(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, TileNorm(channels), nn.LeakyReLU(0.2, True))


GRIDS = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Where the seams between tiles may lie: half tiles that rows and columns are shifted by."""
TILES = 20
"""Tiles that are reconstructed together: small images share a call, each with its own statistics."""


class Autoencoder(nn.Module):
    """Thesis Table 4.2: (B, 3, 64, 64) in [0, 1] to its reconstruction, float32.

    5 955 211 parameters with 200 bottleneck channels. BatchNorm and LeakyReLU(0.2) follow every layer
    but the outputs of encoder and decoder.

    Args:
        bottleneck_channels: K of the table.
        width: channels of the first layer, 64 in the table; the other layers keep their proportion to it.
    """

    @own_draws
    def __init__(self, bottleneck_channels: int, width: int = 64) -> None:
        super().__init__()
        w, w2, w4 = width, 2 * width, 4 * width
        down, same, up = (4, 2, 1), (3, 1, 1), (4, 2, 1)  # kernel, stride, padding
        sizes = [(3, w, down), (w, w, same), (w, w2, down), (w2, w2, same), (w2, w4, down)]
        self.encoder = nn.Sequential(*[_block(nn.Conv2d(i, o, *k), o) for i, o, k in sizes])
        self.bottleneck = nn.Sequential(
            _block(nn.Conv2d(w4, w2, *same), w2),
            _block(nn.Conv2d(w2, w, *same), w),
            nn.Conv2d(w, bottleneck_channels, 8),
            _block(nn.ConvTranspose2d(bottleneck_channels, w, 8), w),
            _block(nn.ConvTranspose2d(w, w2, *same), w2),
            _block(nn.ConvTranspose2d(w2, w4, *same), w4),
        )
        sizes = [(2 * w4, w4, up), (w4, w2, same), (w2, w2, up), (w2, w, same)]
        self.decoder = nn.Sequential(*[_block(nn.ConvTranspose2d(i, o, *k), o) for i, o, k in sizes])
        self.output = nn.ConvTranspose2d(w, 3, *up)
        self._norms = [layer for layer in self.modules() if isinstance(layer, TileNorm)]
        self.register_buffer("grid", torch.zeros(2, dtype=torch.int64))  # see `loss_maps`
        self.grid: torch.Tensor

    def forward(self, patches: torch.Tensor, images: int = 1) -> torch.Tensor:
        """Reconstruct `patches` (B, 3, 64, 64); BatchNorm takes each of `images` equal parts by itself."""
        for norm in self._norms:
            norm.images = images
        x = self.encoder(patches)
        x = self.decoder(torch.cat([x, self.bottleneck(x)], dim=1))
        # In bfloat16 a grey value of 0.5 is rounded by up to 0.002, which is no longer small beside a loss.
        with torch.autocast(x.device.type, enabled=False):
            return self.output(x.float())


def to_tiles(images: torch.Tensor, size: int = 64) -> torch.Tensor:
    """Cut (N, C, H, W) into (N, tiles, C, size, size), row by row; H and W are multiples of `size`."""
    n, c, h, w = images.shape
    tiles = images.reshape(n, c, h // size, size, w // size, size)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c, size, size)


def from_tiles(tiles: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The inverse of `to_tiles`: (N, tiles, C, size, size) to (N, C, height, width)."""
    n, _, c, size, _ = tiles.shape
    grid = tiles.reshape(n, height // size, width // size, c, size, size)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(n, c, height, width)


@torch.no_grad()
def loss_maps(autoencoder: Autoencoder, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Reconstruction loss of every pixel: the squared error, averaged over RGB.

    The tiles of ONE image are the batch, so a map is a function of (weights, image) alone. `autoencoder.grid`
    is one of the weights: 1 shifts the tiles by half a tile in rows or columns, the image being mirrored at
    its borders. A tile is reconstructed worse along its seams, so a learner may move them (`Config.seams`): a
    profile then tells them from anomalies, which stay.

    Args:
        autoencoder: the network.
        images: (N, 3, H, W) uint8 on the network's device; H and W multiples of 64.
        dtype: what the convolutions run in.

    Returns:
        (N, H, W) float32, >= 0.
    """
    at_once = max(1, TILES // (images.shape[2] * images.shape[3] // 64**2))
    return torch.cat([_loss_maps(autoencoder, part, dtype) for part in images.split(at_once)])


def _loss_maps(autoencoder: Autoencoder, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    height, width = images.shape[2:]
    rows, columns = (32 * shifted for shifted in autoencoder.grid.tolist())
    padded = F.pad(images.to(torch.float32) / 255, (columns, columns, rows, rows), mode="reflect")
    tiles = to_tiles(padded)  # (N, tiles, 3, 64, 64)
    batch = tiles.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        error = (autoencoder(batch, len(images)) - batch).square().mean(dim=1, keepdim=True)
    whole = from_tiles(error.unflatten(0, tiles.shape[:2]), *padded.shape[-2:])
    return whole[:, 0, rows : rows + height, columns : columns + width].contiguous()


class AutoencoderTrainer:
    """An autoencoder with its optimiser; `reinitialize` draws both anew."""

    def __init__(
        self, bottleneck_channels: int, lr: float, device: torch.device, dtype: torch.dtype, width: int = 64
    ) -> None:
        self.network = place(Autoencoder(bottleneck_channels, width), device)
        self.lr, self.device, self.dtype = lr, device, dtype
        self.optimizer = adam(self.network, lr)

    def reinitialize(self, generator: torch.Generator) -> None:
        """Throw weights and optimiser state away and start from a new draw."""
        initialize(self.network, generator)
        self.network.grid.zero_()
        self.optimizer = adam(self.network, self.lr)

    def train(self, patches: torch.Tensor, minibatch_size: int) -> float:
        """One step a mini-batch, in the order given; a remainder smaller than a mini-batch joins the last.

        Args:
            patches: (N, 3, 64, 64) uint8.
            minibatch_size: patches of a step; N must not be smaller.

        Returns:
            The mean squared error over all mini-batches, before each one's step.
        """
        patches = patches.to(self.device)
        total = torch.zeros((), device=self.device)
        starts = range(0, len(patches) - minibatch_size + 1, minibatch_size)
        for start in starts:
            stop = len(patches) if start == starts[-1] else start + minibatch_size
            total += self._step(patches[start:stop])
        return float(total) / len(starts)

    def _step(self, patches: torch.Tensor) -> torch.Tensor:
        batch = (patches.to(torch.float32) / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            reconstruction = self.network(batch)
        loss = F.mse_loss(reconstruction, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()
