"""D-AnoGAN cluster by cluster, as the thesis describes it: slow, obvious, with equal draws."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from baselines.d_anogan.networks import Critic, MultiEncoder, MultiGenerator
from baselines.d_anogan.trainer import DAnoGAN


def _clusters(active: torch.Tensor | None, rows: torch.Tensor) -> Iterable[tuple[int, torch.Tensor]]:
    return zip(range(len(rows)) if active is None else active.tolist(), rows, strict=True)


class LoopedGenerator(MultiGenerator):
    """One generator after the other, doubled convolutions as they are defined."""

    def kernels(self, active: torch.Tensor | None = None) -> list[torch.Tensor]:
        return []

    def forward(
        self,
        latents: torch.Tensor,
        active: torch.Tensor | None = None,
        kernels: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        images = []
        for k, x in _clusters(active, latents):
            x = F.selu(F.linear(x, self.dense_weight[k], self.dense_bias[k]))
            x = x.reshape(len(x), -1, self.start, self.start)
            for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                x = F.interpolate(x, scale_factor=2, mode="nearest")
                last = layer == len(self.weights) - 1
                if last and self.crop:
                    x = F.pad(x, (-2 * self.crop,) * 4)
                x = F.conv2d(x, weight[k], bias[k], padding=2)
                x = torch.tanh(x) if last else F.selu(x)
            images.append(x)
        return torch.stack(images)


class LoopedEncoder(MultiEncoder):
    """One encoder after the other."""

    def forward(self, images: torch.Tensor, active: torch.Tensor | None = None) -> torch.Tensor:
        latents = []
        for k, x in _clusters(active, images):
            for weight, bias in zip(self.weights, self.biases, strict=True):
                x = F.selu(F.conv2d(x, weight[k], bias[k], stride=2, padding=1))
            latents.append(torch.tanh(F.linear(x.flatten(1), self.dense_weight[k], self.dense_bias[k])))
        return torch.stack(latents)


class PlainCritic(Critic):
    """Its slopes by differentiating twice."""

    def slopes(self, images: torch.Tensor) -> torch.Tensor:
        images = images.detach().requires_grad_(True)
        return torch.autograd.grad(self(images)[0].sum(), images, create_graph=True)[0]


def looped(model: DAnoGAN) -> DAnoGAN:
    """Let `model` train in loops."""
    model.generators.__class__ = LoopedGenerator
    model.encoders.__class__ = LoopedEncoder
    model.critic.__class__ = PlainCritic
    return model
