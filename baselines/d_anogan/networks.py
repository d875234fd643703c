"""The networks of D-AnoGAN (thesis 5.3, appendices B.3 and B.4), all generators and encoders at once.

The generators' weights are stacked, and so are the encoders': a batch is laid out by cluster, (clusters,
samples, ...), and every layer is one grouped convolution or one batched matrix product over all clusters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from nbs_env.runs import RunError


class SizeError(RunError):
    """An image size or a width that the networks cannot be built for."""


def layer_channels(size: int, width: float = 1.0) -> tuple[int, ...]:
    """Channels of the strided layers that bring `size` down to four pixels or fewer.

    The thesis gives (32, 64, 128) for 28 pixels and (32, 64, 64, 128, 256, 256) for 256; sizes in between
    take the beginning of the second, larger ones repeat its end. `width` is a factor on all; 0.5 and 0.25
    give the smaller models of Table 5.4.

    Raises:
        SizeError: not a multiple of 4 from 28 up, or a width that is not positive.
    """
    if not 0 < width < math.inf:
        raise SizeError(f"width is {width}; choose a factor above 0, such as 0.5")
    if size < 28 or size % 4:
        raise SizeError(f"image size is {size}; the networks of D-AnoGAN take multiples of 4 from 28 up")
    layers = math.ceil(math.log2(size / 4))
    channels = (32, 64, 128) if layers == 3 else (32, 64, 64, 128, 256, 256)
    return tuple(max(1, round(width * each)) for each in (channels + (256,) * layers)[:layers])


def _xavier(*shape: int, generator: torch.Generator, stacked: bool = False) -> nn.Parameter:
    """Xavier-uniform weights; the first dimension of `stacked` ones counts networks."""
    weight = torch.empty(shape)
    for part in weight if stacked else (weight,):
        nn.init.xavier_uniform_(part, generator=generator)
    return nn.Parameter(weight)


def _initialize(module: nn.Module, generator: torch.Generator) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


# A row of five taps on an image whose pixels have been doubled meets three pixels of the original; which of
# them depends on whether the output pixel is an even one (first) or an odd one.
_TAPS = torch.tensor(
    [
        [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
        [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]],
    ],
    dtype=torch.float32,
)


def upsample_conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int) -> torch.Tensor:
    """A 5x5 convolution (padding 2) of `x` doubled by nearest neighbours, at 9/25 of the operations.

    Each of the four output pixels of an input pixel is a 3x3 convolution of the input.

    Args:
        x: (B, groups * I, H, W).
        weight: (groups * O, I, 5, 5).
        bias: (groups * O,).
        groups: of the convolution.

    Returns:
        (B, groups * O, 2 H, 2 W).
    """
    taps = _TAPS.to(weight)
    weight = torch.einsum("apt,bqu,oitu->oabipq", taps, taps, weight).flatten(0, 2)
    return F.pixel_shuffle(F.conv2d(x, weight, bias.repeat_interleave(4), padding=1, groups=groups), 2)


class _Stack(nn.Module):
    """Convolutions and a dense layer of all clusters; parameters are (clusters, ...)."""

    def __init__(
        self,
        clusters: int,
        kernels: Sequence[tuple[int, int, int]],
        dense: tuple[int, int],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.clusters = clusters
        self.weights = nn.ParameterList(
            _xavier(clusters, o, i, k, k, generator=generator, stacked=True) for i, o, k in kernels
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(clusters, o)) for _, o, _ in kernels)
        i, o = dense
        self.dense_weight = _xavier(clusters, o, i, generator=generator, stacked=True)
        self.dense_bias = nn.Parameter(torch.zeros(clusters, o))

    def _dense(self, x: torch.Tensor, active: torch.Tensor | None) -> torch.Tensor:
        weight, bias = _pick(self.dense_weight, active), _pick(self.dense_bias, active)
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

    def _kernel(self, layer: int, active: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        weight, bias = _pick(self.weights[layer], active), _pick(self.biases[layer], active)
        return weight.flatten(0, 1), bias.flatten()


def _pick(parameter: torch.Tensor, active: torch.Tensor | None) -> torch.Tensor:
    return parameter if active is None else parameter.index_select(0, active)


class MultiGenerator(_Stack):
    """A generator for each cluster: latent vectors in [-1, 1] to images in [-1, 1].

    Args:
        size: side of the square images.
        channels: 1 or 3.
        clusters: generators.
        latent: length of a latent vector.
        generator: draws the weights.
        width: factor on the channels of the layers.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        clusters: int,
        latent: int,
        generator: torch.Generator,
        width: float = 1.0,
    ) -> None:
        widths = layer_channels(size, width)[::-1]
        self.start = math.ceil(size / 2 ** len(widths))
        self.crop = (self.start * 2 ** len(widths) - size) // 4  # before the last doubling
        kernels = [(i, o, 5) for i, o in zip(widths, (*widths[1:], channels), strict=True)]
        super().__init__(clusters, kernels, (latent, widths[0] * self.start**2), generator)

    def forward(self, latents: torch.Tensor, active: torch.Tensor | None = None) -> torch.Tensor:
        """Images (K, M, channels, size, size) of `latents` (K, M, latent).

        Row k is for cluster `active[k]`, (K,) int64, or for cluster k where that is None; other clusters cost
        nothing.
        """
        clusters, samples, _ = latents.shape
        x = F.selu(self._dense(latents, active)).transpose(0, 1)
        x = x.reshape(samples, -1, self.start, self.start)
        for layer in range(len(self.weights)):
            last = layer == len(self.weights) - 1
            if last and self.crop:
                x = x[:, :, self.crop : -self.crop, self.crop : -self.crop]
            x = upsample_conv(x, *self._kernel(layer, active), groups=clusters)
            # Near -1 bfloat16 rounds to -1, where tanh has no gradient: black images would stay black.
            x = torch.tanh(x.float()) if last else F.selu(x)
        return x.unflatten(1, (clusters, -1)).transpose(0, 1)


class MultiEncoder(_Stack):
    """An encoder for each cluster: images in [-1, 1] to latent vectors in [-1, 1]; arguments as above."""

    def __init__(
        self,
        size: int,
        channels: int,
        clusters: int,
        latent: int,
        generator: torch.Generator,
        width: float = 1.0,
    ) -> None:
        widths = layer_channels(size, width)
        sides = [4] * (len(widths) - 1) + [3]
        for side in sides:
            size = size // 2 if side == 4 else math.ceil(size / 2)
        kernels = list(zip((channels, *widths), widths, sides, strict=False))
        super().__init__(clusters, kernels, (widths[-1] * size**2, latent), generator)

    def forward(self, images: torch.Tensor, active: torch.Tensor | None = None) -> torch.Tensor:
        """Latent vectors (K, M, latent) of `images` (K, M, channels, size, size); see `MultiGenerator`."""
        clusters = len(images)
        x = images.transpose(0, 1).flatten(1, 2)
        for layer in range(len(self.weights)):
            weight, bias = self._kernel(layer, active)
            x = F.selu(F.conv2d(x, weight, bias, stride=2, padding=1, groups=clusters))
        x = x.unflatten(1, (clusters, -1)).transpose(0, 1).flatten(2)
        return torch.tanh(self._dense(x, active))


class Critic(nn.Module):
    """The discriminator, without a sigmoid: images (B, channels, size, size) to scores (B,)."""

    def __init__(self, size: int, channels: int, generator: torch.Generator, width: float = 1.0) -> None:
        super().__init__()
        widths = layer_channels(size, width)
        pairs = zip((channels, *widths), widths, strict=False)
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 5, stride=2, padding=2) for i, o in pairs)
        self.head = nn.Linear(widths[-1] * math.ceil(size / 2 ** len(widths)) ** 2, 1)
        _initialize(self, generator)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (B,), and the output of the last layer but one, which the classifier reads."""
        x = images
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        last = F.leaky_relu(self.layers[-1](x), 0.2).flatten(1)
        # Scores may drift together far from 0, where bfloat16 would round away the differences that teach.
        with torch.autocast(x.device.type, enabled=False):
            return self.head(last.float())[:, 0], x


class Classifier(nn.Module):
    """One convolution on the critic's intermediate features, to cluster logits (B, clusters)."""

    def __init__(self, size: int, clusters: int, generator: torch.Generator, width: float = 1.0) -> None:
        super().__init__()
        widths = layer_channels(size, width)
        self.layer = nn.Conv2d(widths[-2], widths[-1], 5, stride=2, padding=2)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1] * math.ceil(size / 2 ** len(widths)) ** 2, clusters)
        _initialize(self, generator)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, clusters)."""
        return self.head(F.leaky_relu(self.norm(self.layer(features)), 0.2).flatten(1))
