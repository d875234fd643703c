"""The internal autoencoder (thesis Table 4.2), its trainer, and loss maps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nbs_env.graphs import Graphed
from nbs_env.networks import adam, forget_state, initialize, load_state, own_draws, place


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
FEATURE_WEIGHT = 0.03
"""Weight of the features' loss in training: standardised features have a variance of 1, images about this."""


class Autoencoder(nn.Module):
    """Thesis Table 4.2: (B, 3, 64, 64) in [0, 1] to its reconstruction, float32.

    5 955 211 parameters with 200 bottleneck channels. BatchNorm and LeakyReLU(0.2) follow every layer
    but the outputs of encoder and decoder.

    Args:
        bottleneck_channels: K of the table.
        width: channels of the first layer, 64 in the table; the other layers keep their proportion to it.
        features: channels of the features at stride 4 that it reconstructs from RGB as well; 0: none. Their
            statistics are among its weights, so whoever keeps those keeps them.
    """

    @own_draws
    def __init__(self, bottleneck_channels: int, width: int = 64, features: int = 0) -> None:
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
        self.head = nn.Conv2d(w4, features, 1) if features else None
        if features:
            self.register_buffer("feature_mean", torch.zeros(features))
            self.register_buffer("feature_std", torch.ones(features))
        self.feature_mean: torch.Tensor
        self.feature_std: torch.Tensor
        self._norms = [layer for layer in self.modules() if isinstance(layer, TileNorm)]
        self.register_buffer("grid", torch.zeros(2, dtype=torch.int64))  # see `loss_maps`
        self.grid: torch.Tensor
        self.loss_maps = Graphed(self._loss_maps)

    def forward(self, patches: torch.Tensor, images: int = 1) -> torch.Tensor:
        """Reconstruct `patches` (B, 3, 64, 64); BatchNorm takes each of `images` equal parts by itself."""
        return self.reconstruct(patches, images)[0]

    def reconstruct(self, patches: torch.Tensor, images: int = 1) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`forward`, and the standardised features (B, C, 16, 16), if it reconstructs such."""
        for norm in self._norms:
            norm.images = images
        x = self.encoder(patches)
        x = self.decoder[0](torch.cat([x, self.bottleneck(x)], dim=1))
        features = None if self.head is None else self.head(x).float()
        x = self.decoder[1:](x)
        # In bfloat16 a grey value of 0.5 is rounded by up to 0.002, which is no longer small beside a loss.
        with torch.autocast(x.device.type, enabled=False):
            return self.output(x.float()), features

    def learn_statistics(self, features: torch.Tensor) -> None:
        """Have features (n, C, h, w) standardised by their own mean and spread from now on."""
        self.feature_mean.copy_(features.float().mean(dim=(0, 2, 3)))
        self.feature_std.copy_(features.float().std(dim=(0, 2, 3)).clamp_min(1e-3))

    def standardized(self, features: torch.Tensor) -> torch.Tensor:
        """Features (n, C, h, w) as the network learns them, float32."""
        return (features.float() - self.feature_mean[:, None, None]) / self.feature_std[:, None, None]

    @torch.no_grad()
    def _loss_maps(
        self, images: torch.Tensor, *features: torch.Tensor, rows: int, columns: int, dtype: torch.dtype
    ) -> torch.Tensor:
        """Squared errors (1 or 2, N, H, W) of `images` (N, 3, H, W) uint8, and of their features, if any.

        Tiles are shifted by `rows` and `columns`.
        """
        height, width = images.shape[2:]
        padded = F.pad(images.to(torch.float32) / 255, (columns, columns, rows, rows), mode="reflect")
        tiles = to_tiles(padded)  # (N, tiles, 3, 64, 64)
        batch = tiles.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            reconstruction, found = self.reconstruct(batch, len(images))
            error = (reconstruction - batch).square().mean(dim=1, keepdim=True)
        whole = from_tiles(error.unflatten(0, tiles.shape[:2]), *padded.shape[-2:])
        maps = [whole[:, 0, rows : rows + height, columns : columns + width].contiguous()]
        if found is not None:
            (wanted,) = features
            top, left, h, w = rows // 4, columns // 4, height // 4, width // 4
            found = from_tiles(found.unflatten(0, tiles.shape[:2]), h + 2 * top, w + 2 * left)
            difference = found[:, :, top : top + h, left : left + w] - self.standardized(wanted)
            error = difference.square().mean(dim=1, keepdim=True)
            maps.append(F.interpolate(error, scale_factor=4.0, mode="bilinear")[:, 0])
        return torch.stack(maps)


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


def loss_maps(
    autoencoder: Autoencoder, images: torch.Tensor, dtype: torch.dtype, features: torch.Tensor | None = None
) -> torch.Tensor:
    """Reconstruction loss of every pixel: the squared error, averaged over RGB.

    The tiles of ONE image are the batch, so a map is a function of (weights, image) alone. `autoencoder.grid`
    is one of the weights: 1 shifts the tiles by half a tile in rows or columns, the image being mirrored at
    its borders. A tile is reconstructed worse along its seams, so a learner may move them (`Config.seams`): a
    profile then tells them from anomalies, which stay.

    Args:
        autoencoder: the network.
        images: (N, 3, H, W) uint8 on the network's device; H and W multiples of 64.
        dtype: what the convolutions run in.
        features: (N, C, H / 4, W / 4), of an autoencoder that reconstructs them.

    Returns:
        (N, H, W) float32, >= 0; with features (2 N, H, W), all of RGB first: the features' squared errors are
        averaged over the channels and interpolated between features.
    """
    rows, columns = (32 * shifted for shifted in autoencoder.grid.tolist())
    at_once = max(1, TILES // (images.shape[2] * images.shape[3] // 64**2))
    inputs = (images,) if features is None else (images, features)
    parts = zip(*(x.split(at_once) for x in inputs), strict=True)
    maps = [autoencoder.loss_maps(*part, rows=rows, columns=columns, dtype=dtype) for part in parts]
    return torch.cat(maps, dim=1).flatten(0, 1)


class AutoencoderTrainer:
    """An autoencoder with its optimiser; `reinitialize` draws both anew."""

    def __init__(
        self,
        bottleneck_channels: int,
        lr: float,
        device: torch.device,
        dtype: torch.dtype,
        width: int = 64,
        features: int = 0,
    ) -> None:
        self.network = place(Autoencoder(bottleneck_channels, width, features), device)
        self.device, self.dtype = device, dtype
        self.optimizer = adam(self.network, lr)
        self._step = Graphed(self._take_step)

    def reinitialize(self, generator: torch.Generator) -> None:
        """Throw weights and optimiser state away and start from a new draw."""
        initialize(self.network, generator)
        self.network.grid.zero_()
        forget_state(self.optimizer)

    def load_state_dict(self, network: dict[str, torch.Tensor], optimizer: dict[str, Any]) -> None:
        """Take over the states of a network and its optimiser."""
        self.network.load_state_dict(network)
        load_state(self.optimizer, optimizer)
        self._step.forget()

    def train(self, patches: torch.Tensor, minibatch_size: int, *features: torch.Tensor) -> float:
        """One step a mini-batch, in the order given; a remainder smaller than a mini-batch joins the last.

        Args:
            patches: (N, 3, 64, 64) uint8.
            minibatch_size: patches of a step; N must not be smaller.
            features: theirs (N, C, 16, 16), for a network that reconstructs them.

        Returns:
            The mean squared error over all mini-batches, before each one's step; with features, theirs times
            `FEATURE_WEIGHT` on top of it.
        """
        inputs = [x.to(self.device) for x in (patches, *features)]
        total = torch.zeros((), device=self.device)
        starts = range(0, len(patches) - minibatch_size + 1, minibatch_size)
        for start in starts:
            stop = len(patches) if start == starts[-1] else start + minibatch_size
            total += self._step(*(x[start:stop] for x in inputs))
        return float(total) / len(starts)

    def _take_step(self, patches: torch.Tensor, *features: torch.Tensor) -> torch.Tensor:
        batch = (patches.to(torch.float32) / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            reconstruction, found = self.network.reconstruct(batch)
        loss = F.mse_loss(reconstruction, batch)
        if found is not None:
            loss = loss + FEATURE_WEIGHT * F.mse_loss(found, self.network.standardized(*features))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()
