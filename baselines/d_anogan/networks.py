"""The networks of D-AnoGAN (thesis 5.3, appendices B.3 and B.4), all generators and encoders at once.

The generators' weights are stacked, and so are the encoders': a batch is laid out by cluster, (clusters,
samples, ...), and every layer is one grouped convolution or one batched matrix product over all clusters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nbs_env.common.errors import RunError
from nbs_env.common.networks import own_draws


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
_SPREAD = torch.einsum("apt,bqu->tuabpq", _TAPS, _TAPS).reshape(25, 36)


def doubling_kernel(weight: torch.Tensor) -> torch.Tensor:
    """What `upsample_conv` multiplies with, for a 5x5 convolution of a doubled image.

    Args:
        weight: (groups, O, I, 5, 5).

    Returns:
        (groups * 4 * O, I, 3, 3), channels last: four 3x3 convolutions a group, one for each output pixel of
        an input pixel.
    """
    groups, o, i = weight.shape[:3]
    taps = (weight.flatten(3) @ _SPREAD.to(weight)).view(groups, o, i, 2, 2, 3, 3)
    return taps.permute(0, 3, 4, 1, 5, 6, 2).reshape(groups * 4 * o, 3, 3, i).permute(0, 3, 1, 2)


def upsample_conv(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A 5x5 convolution (padding 2) of `x` doubled by nearest neighbours, at 9/25 of the operations.

    Args:
        x: (B, groups * I, H, W), fastest with channels last.
        kernel: what `doubling_kernel` gives.
        bias: (groups, O).

    Returns:
        (B, groups * O, 2 H, 2 W), channels last.
    """
    groups, o = bias.shape
    four = bias[:, None].expand(groups, 4, o).flatten()
    y = F.conv2d(x, kernel, four, padding=1, groups=groups).permute(0, 2, 3, 1)
    batch, height, width, _ = y.shape
    y = y.reshape(batch, height, width, groups, 2, 2, o).permute(0, 1, 4, 2, 5, 3, 6)
    return y.reshape(batch, 2 * height, 2 * width, groups * o).permute(0, 3, 1, 2)


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

    def kernels(self, active: torch.Tensor | None = None) -> list[torch.Tensor]:
        """The layers' `doubling_kernel`s, which hold for as long as the weights stand still."""
        return [doubling_kernel(_pick(weight, active)) for weight in self.weights]

    def forward(
        self,
        latents: torch.Tensor,
        active: torch.Tensor | None = None,
        kernels: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Images (K, M, channels, size, size) of `latents` (K, M, latent).

        Row k is for cluster `active[k]`, (K,) int64, or for cluster k where that is None; other clusters cost
        nothing. `kernels`, of the same clusters, save their making.
        """
        clusters, samples, _ = latents.shape
        x = F.selu(self._dense(latents, active)).view(clusters, samples, -1, self.start, self.start)
        x = x.permute(1, 3, 4, 0, 2).flatten(3).permute(0, 3, 1, 2)  # (M, K C, S, S), channels last
        for layer, kernel in enumerate(kernels or self.kernels(active)):
            last = layer == len(self.weights) - 1
            if last and self.crop:
                x = x[:, :, self.crop : -self.crop, self.crop : -self.crop]
            x = upsample_conv(x, kernel, _pick(self.biases[layer], active))
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
            weight, bias = _pick(self.weights[layer], active), _pick(self.biases[layer], active)
            x = F.conv2d(x, weight.flatten(0, 1), bias.flatten(), stride=2, padding=1, groups=clusters)
            x = F.selu(x)
        x = x.unflatten(1, (clusters, -1)).transpose(0, 1).flatten(2)
        return torch.tanh(self._dense(x, active))


class _Back(torch.autograd.Function):
    """The slopes behind the critic's convolution to those before it, every pass by the kernel made for it."""

    FORM = ([2, 2], [2, 2], [1, 1], False, [0, 0], 1)  # stride, padding, dilation, not transposed, 1 group

    @staticmethod
    def forward(ctx: Any, slope: torch.Tensor, weight: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(slope, weight)
        o, i = weight.shape[:2]
        if i < 4:  # so few channels are faster as a 3x3 convolution for each of four pixels
            taps = F.pad(weight, (0, 1, 0, 1)).view(o, i, 3, 2, 3, 2).flip(2, 4)
            four = taps.permute(1, 3, 5, 0, 2, 4).reshape(4 * i, o, 3, 3)
            doubled = F.pixel_shuffle(F.conv2d(slope, four, padding=1), 2)
            return doubled[:, :, : like.shape[2], : like.shape[3]]
        which = (True, False, False)
        return torch.ops.aten.convolution_backward(slope, like, weight, None, *_Back.FORM, which)[0]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        slope, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        which = (False, True, False)
        by_weight = torch.ops.aten.convolution_backward(slope, grad, weight, None, *_Back.FORM, which)[1]
        return F.conv2d(grad, weight, stride=2, padding=2), by_weight, None


class Critic(nn.Module):
    """The discriminator, without a sigmoid: images (B, channels, size, size) to scores (B,)."""

    @own_draws
    def __init__(self, size: int, channels: int, generator: torch.Generator, width: float = 1.0) -> None:
        super().__init__()
        widths = layer_channels(size, width)
        pairs = zip((channels, *widths), widths, strict=False)
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 5, stride=2, padding=2) for i, o in pairs)
        self.head = nn.Linear(widths[-1] * math.ceil(size / 2 ** len(widths)) ** 2, 1)
        _initialize(self, generator)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (B,), and the output of the last layer but one, which the classifier reads."""
        x = images.contiguous(memory_format=torch.channels_last)
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        last = F.leaky_relu(self.layers[-1](x).flatten(1), 0.2)
        # Scores may drift together far from 0, where bfloat16 would round away the differences that teach.
        with torch.autocast(x.device.type, enabled=False):
            return self.head(last.float())[:, 0], x

    def slopes(self, images: torch.Tensor) -> torch.Tensor:
        """Gradients (B, channels, size, size) of the scores at `images`, to be differentiated by the weights.

        The critic is linear wherever no unit is at its kink, so one pass forwards for the signs and one back
        are all. Differentiating twice would take these and send zeros through both again.
        """
        passed, x = [], images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            for layer in self.layers:
                before = layer(x)
                passed.append((layer.weight, x, before))
                x = F.leaky_relu(before, 0.2)
        slope = self.head.weight.view(1, *x.shape[1:]).expand_as(x)
        for weight, x, before in reversed(passed):
            slope = slope.to(before).contiguous(memory_format=torch.channels_last)
            slope = torch.ops.aten.leaky_relu_backward(slope, before, 0.2, False)
            slope = _Back.apply(slope, weight.to(before.dtype), x.to(before.dtype))
        return slope


class Classifier(nn.Module):
    """One convolution on the critic's intermediate features, to cluster logits (B, clusters)."""

    @own_draws
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
