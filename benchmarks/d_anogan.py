"""D-AnoGAN's training step as a loop over clusters, for `python -m benchmarks.speed --groups d_anogan`.

The loop does what the thesis describes: clusters are drawn one by one for each fake, and each generator and
encoder runs on its share of the batch, in float32, the doubled convolutions as they are defined. All start
from the same weights and take turns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from baselines.d_anogan.networks import MultiEncoder, MultiGenerator
from baselines.d_anogan.trainer import DAnoGAN, DAnoGANConfig


class LoopedGenerator(nn.Module):
    """`MultiGenerator` with one module a cluster, (B, latent) and clusters (B,) to images."""

    def __init__(self, stack: MultiGenerator, size: int) -> None:
        super().__init__()
        self.stack, self.size = stack, size

    def forward(self, latents: torch.Tensor, cluster: torch.Tensor) -> torch.Tensor:
        """One generator after the other."""
        stack, parts, order = self.stack, [], []
        for k in cluster.unique().tolist():
            where = (cluster == k).nonzero()[:, 0]
            x = F.selu(F.linear(latents[where], stack.dense_weight[k], stack.dense_bias[k]))
            x = x.reshape(len(where), -1, stack.start, stack.start)
            for layer, (weight, bias) in enumerate(zip(stack.weights, stack.biases, strict=True)):
                x = F.interpolate(x, scale_factor=2, mode="nearest")
                last = layer == len(stack.weights) - 1
                if last and stack.crop:
                    x = F.pad(x, (-2 * stack.crop,) * 4)
                x = F.conv2d(x, weight[k], bias[k], padding=2)
                x = torch.tanh(x) if last else F.selu(x)
            parts.append(x)
            order.append(where)
        return torch.cat(parts)[torch.cat(order).argsort()]


class LoopedEncoder(nn.Module):
    """`MultiEncoder` with one module a cluster, images (B, C, S, S) and clusters (B,) to latent vectors."""

    def __init__(self, stack: MultiEncoder) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, images: torch.Tensor, cluster: torch.Tensor) -> torch.Tensor:
        """One encoder after the other."""
        stack, parts, order = self.stack, [], []
        for k in cluster.unique().tolist():
            where = (cluster == k).nonzero()[:, 0]
            x = images[where]
            for weight, bias in zip(stack.weights, stack.biases, strict=True):
                x = F.selu(F.conv2d(x, weight[k], bias[k], stride=2, padding=1))
            parts.append(torch.tanh(F.linear(x.flatten(1), stack.dense_weight[k], stack.dense_bias[k])))
            order.append(where)
        return torch.cat(parts)[torch.cat(order).argsort()]


class LoopedDAnoGAN(DAnoGAN):
    """The same training, fakes drawn one by one and made cluster by cluster."""

    def __init__(self, config: DAnoGANConfig, seed: int, device: str) -> None:
        super().__init__(config, seed, device)
        self.looped_generator = LoopedGenerator(self.generators, config.size)
        self.looped_encoder = LoopedEncoder(self.encoders)

    def step(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        """See `DAnoGAN.step`."""
        size, real = self.config.batch_size, self.batch(data)
        cluster = torch.multinomial(self.prior.probabilities(), size, True, generator=self.random)
        latents = torch.rand((size, self.config.latent), generator=self.random, device=self.device) * 2 - 1
        fake = self.looped_generator(latents, cluster)
        weights = torch.full((size,), 1 / size, device=self.device)
        figures = self._step_critic(real, fake.detach(), weights)
        if self.steps % self.config.critic_steps == 0:
            figures |= self._step_looped(real, latents, fake, cluster, weights)
        self.steps += 1
        return figures

    def _step_looped(
        self,
        real: torch.Tensor,
        latents: torch.Tensor,
        fake: torch.Tensor,
        cluster: torch.Tensor,
        weights: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        scores, features = self.critic(fake)
        cross_entropy = F.cross_entropy(self.classifier(features), cluster)
        self._descend("generators", cross_entropy - scores.mean(), "classifier")
        again = self.looped_encoder(fake.detach(), cluster)
        self._descend("encoders", (again - latents).square().mean())
        with torch.no_grad():
            estimate = self.classifier(self.critic(real)[1]).softmax(dim=1).mean(dim=0)
        self._descend("prior", self.prior.loss(estimate))
        self.prior.advance()
        return {"cross_entropy": cross_entropy.detach()}
