"""What a method is: networks, optimisers, one training step, one score an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from baselines.common import finite, image_batches, load_training_state, training_state
from nbs_env.common.errors import RunError
from nbs_env.common.runs import at_least, positive
from nbs_env.common.settings import check_types


@dataclass(frozen=True)
class ModelConfig:
    """What all methods have in common; the rest of a method is in its file."""

    size: int = 28
    """Side of the square images in pixels."""
    channels: int = 1
    """1 (grey) or 3 (RGB)."""
    width: float = 1.0
    """Factor on the channels of a method's convolutions."""
    batch_size: int = 64
    """Images of a step, drawn with replacement."""
    bfloat16: bool = False
    """Train in bfloat16, the command's default on a CPU that is fast at it; scores are always in float32."""

    def __post_init__(self) -> None:
        """Check types first, then values."""
        check_types(self, RunError)
        at_least(2, batch_size=self.batch_size)
        positive(width=self.width)
        if self.channels not in (1, 3):
            raise RunError(f"channels is {self.channels}; choose 1 (grey) or 3 (RGB)")


class Method(ABC):
    """A detector that learns from normal images alone.

    A subclass makes `networks` and `optimizers`, and says what a step and a score are. Images are handed to
    both as floats (B, C, S, S) in [-1, 1]. A score is a function of the weights and of its image alone:
    BatchNorm is in evaluation mode, and nothing is drawn.

    Args:
        config: sizes, batch, arithmetic.
        steps: to train for; 0: the method's `BUDGET`.
        seed: of weights and draws.
        device: where everything lives.
    """

    BUDGET: ClassVar[int] = 3000
    """Steps of training where no number is given."""

    def __init__(self, config: ModelConfig, steps: int, seed: int, device: torch.device | str) -> None:
        self.config, self.device = config, torch.device(device)
        self.steps, self.done = steps or self.BUDGET, 0
        self.seed = seed
        with torch.random.fork_rng(devices=[]):  # PyTorch draws its default weights from the global generator
            torch.manual_seed(seed)
            self.networks = {name: network.to(device) for name, network in self.build().items()}
        self.optimizers = self.optimize()
        self.random = torch.Generator(device).manual_seed(seed)

    @abstractmethod
    def build(self) -> dict[str, nn.Module]:
        """The networks by name."""

    @abstractmethod
    def optimize(self) -> dict[str, torch.optim.Optimizer]:
        """The optimisers by name."""

    @abstractmethod
    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Update all networks with a batch; losses, detached, by name."""

    @abstractmethod
    def score(self, images: torch.Tensor) -> torch.Tensor:
        """How anomalous each image is, (B,)."""

    def channels(self, base: int) -> int:
        """`base` channels, times the factor of the configuration."""
        return max(1, round(base * self.config.width))

    def adam(self, rate: float, *names: str, first: float = 0.5, decay: float = 0.0) -> torch.optim.Adam:
        """Adam for the networks called `names`; `first` is its beta 1, which GANs want low."""
        parameters = [p for name in names for p in self.networks[name].parameters() if p.requires_grad]
        betas = (first, 0.9 if first == 0 else 0.999)
        return torch.optim.Adam(parameters, rate, betas, weight_decay=decay, fused=True)

    def descend(self, name: str, loss: torch.Tensor) -> None:
        """Step the optimiser `name` down `loss`; only the gradients that it needs are computed."""
        optimizer = self.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def normal(self, *shape: int) -> torch.Tensor:
        """Independent N(0, 1)."""
        return torch.randn(shape, generator=self.random, device=self.device)

    def uniform(self, *shape: int) -> torch.Tensor:
        """Independent U(-1, 1)."""
        return torch.rand(shape, generator=self.random, device=self.device) * 2 - 1

    def scale(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, S, S) uint8 as floats in [-1, 1]."""
        return images.to(self.device).float() / 127.5 - 1

    def advance(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step with a random batch of `data` (n, C, S, S) uint8; the losses."""
        for network in self.networks.values():
            network.train()
        size = (self.config.batch_size,)
        rows = torch.randint(len(data), size, generator=self.random, device=self.device)
        # Weights change within a step, so their copies in bfloat16 must not be kept.
        kind, low = self.device.type, self.config.bfloat16
        with torch.autocast(kind, torch.bfloat16, enabled=low, cache_enabled=False):
            figures = self.step(self.scale(data[rows.to(data.device)]))
        self.done += 1
        return figures

    def check(self, figures: dict[str, torch.Tensor]) -> dict[str, float]:
        """Losses as numbers.

        Raises:
            TrainingError: one is not finite.
        """
        return finite(figures, f"in step {self.done}", "try --model.no-bfloat16, or another --seed")

    @torch.no_grad()
    def scores(self, images: np.ndarray) -> np.ndarray:
        """Scores (n,), higher for what is anomalous, of `images` (n, C, S, S) uint8."""
        for network in self.networks.values():
            network.eval()
        scores = [self.score(self.scale(part)).float().cpu() for part in image_batches(images)]
        return torch.cat(scores).numpy()

    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(p.numel() for network in self.networks.values() for p in network.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes."""
        return {"kind": f"baselines.{type(self).__name__}", **training_state(self), "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        load_training_state(self, state)
        self.done = state["done"]
