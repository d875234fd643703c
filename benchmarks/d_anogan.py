"""D-AnoGAN's training step, all clusters at once against a loop over them: `python -m benchmarks.d_anogan`.

The loop does what the thesis describes: clusters are drawn one by one for each fake, and each generator and
encoder runs on its share of the batch, in float32, the doubled convolutions as they are defined. All start
from the same weights and take turns.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
import tyro
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


@dataclass(frozen=True)
class SpeedArgs:
    """What to time."""

    size: int = 28
    """Side of the images in pixels."""
    clusters: int = 15
    """Generators."""
    batch_size: int = 128
    """Images of a step."""
    rounds: int = 5
    """Rounds of five critic steps and one of all others, after one for warming up."""
    device: str = "cpu"
    """cpu or cuda."""


def main() -> None:
    """Measure and print."""
    args = tyro.cli(SpeedArgs, description=__doc__)
    plain = DAnoGANConfig(size=args.size, clusters=args.clusters, batch_size=args.batch_size)
    data = torch.randint(256, (1000, 1, args.size, args.size), dtype=torch.uint8, device=args.device)
    models = {
        "loop over clusters, float32": LoopedDAnoGAN(plain, 0, args.device),
        "at once, float32": DAnoGAN(plain, 0, args.device),
        "at once, bfloat16": DAnoGAN(replace(plain, bfloat16=True), 0, args.device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(args.rounds + 1):
        for name, model in models.items():
            if args.device != "cpu":
                torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(plain.critic_steps):
                model.step(data)
            if args.device != "cpu":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    base = np.median(seconds["loop over clusters, float32"])
    print(f"{'milliseconds a round':32}{'median':>10}{'25 %':>10}{'75 %':>10}{'times faster':>14}")
    for name, values in seconds.items():
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)) * 1000
        print(f"{name:32}{middle:10.0f}{low:10.0f}{high:10.0f}{base / middle * 1000:14.2f}")


if __name__ == "__main__":
    main()
