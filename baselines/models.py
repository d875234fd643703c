"""What image-level models have in common: everything that training changes, and how it is stored."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from nbs_env.common.errors import RunError, TrainingError
from nbs_env.common.settings import AtLeast, Positive, check_types

FAST = torch.cpu._is_avx512_bf16_supported()
"""Whether bfloat16 is fast on this CPU: commands then begin with it."""


@dataclass(frozen=True)
class ModelConfig:
    """What ALCN and its rivals have in common; the rest of a method is in its file."""

    size: int = 28
    """Side of the square images in pixels."""
    channels: Literal[1, 3] = 1
    """1 (grey) or 3 (RGB)."""
    width: Positive = 1.0
    """Factor on the channels of a method's convolutions; 1 gives the published size."""
    batch_size: Annotated[int, AtLeast(2)] = 64
    """Images of a step."""
    bfloat16: bool = False
    """Train in bfloat16, the command's default on a CPU that is fast at it."""

    def __post_init__(self) -> None:
        check_types(self, RunError)


class Trainable(ABC):
    """Networks, optimisers and a generator of random numbers: everything that training changes.

    The networks are the modules that `build` makes attributes of; a subclass sets `config` first. Weights and
    draws come from `seed`.
    """

    config: Any

    COUNTS: ClassVar[tuple[str, ...]] = ("done",)
    """Attributes, beside the three, that training changes; the first counts what is done."""
    UNIT: ClassVar[str] = "step"
    """What it counts."""
    REMEDY: ClassVar[str] = "lower the learning rates"
    """What to do about losses that are not finite."""

    def __init__(self, seed: int, device: torch.device | str) -> None:
        self.seed, self.device = seed, torch.device(device)
        with torch.random.fork_rng(devices=[]):  # PyTorch draws its default weights from the global generator
            torch.manual_seed(seed)
            self.optimizers = self.build()
        modules = {name: each for name, each in vars(self).items() if isinstance(each, nn.Module)}
        self.networks: dict[str, Any] = {name: module.to(device) for name, module in modules.items()}
        self.random = torch.Generator(device).manual_seed(seed)

    @abstractmethod
    def build(self) -> dict[str, torch.optim.Optimizer]:
        """Make the networks; their optimisers by name."""

    def adam(
        self, rate: float, *modules: nn.Module, betas: tuple[float, float] = (0.9, 0.999), decay: float = 0.0
    ) -> torch.optim.Adam:
        """Adam for some of the networks."""
        parameters = [p for module in modules for p in module.to(self.device).parameters()]
        return torch.optim.Adam(parameters, rate, betas, weight_decay=decay, fused=True)

    def descend(self, loss: torch.Tensor, *names: str, pace: float | None = None) -> None:
        """Step optimisers down `loss`, at `pace` times the configuration's rates where that is given.

        Only the gradients that they need are computed.
        """
        groups = [(name, group) for name in names for group in self.optimizers[name].param_groups]
        parameters = [parameter for _, group in groups for parameter in group["params"]]
        self.differentiate(loss, parameters)
        for name, group in groups:
            if pace is not None:
                group["lr"] = pace * getattr(self.config, f"{name.removesuffix('s')}_lr")
        for name in names:
            self.optimizers[name].step()

    def differentiate(self, loss: torch.Tensor, parameters: list[nn.Parameter]) -> None:
        """Set gradients, each laid out as its parameter: fused Adam reads both as they lie in memory."""
        for parameter in parameters:
            parameter.grad = None
        loss.backward(inputs=parameters)

    def autocast(self, cache: bool = True) -> torch.autocast:
        """The arithmetic that the configuration asks for; `cache` keeps the weights' copies in bfloat16."""
        low = self.config.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low, cache_enabled=cache)

    def scale(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, S, S) uint8 as floats in [-1, 1]."""
        return images.to(self.device).float() / 127.5 - 1

    def batch(self, data: torch.Tensor) -> torch.Tensor:
        """A random batch of `data` (n, C, S, S) uint8, scaled."""
        size = (self.config.batch_size,)
        rows = torch.randint(len(data), size, generator=self.random, device=self.device)
        return self.scale(data[rows.to(data.device)])

    def uniform(self, *shape: int) -> torch.Tensor:
        """Independent U(-1, 1)."""
        return torch.rand(shape, generator=self.random, device=self.device) * 2 - 1

    def check(self, figures: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Losses as numbers; TrainingError if one is not finite."""
        values = {name: float(value) for name, value in figures.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                when = f"in {self.UNIT} {getattr(self, self.COUNTS[0])}"
                raise TrainingError(f"{name} became {value} {when}; {self.REMEDY}")
        return values

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "random": self.random.get_state(),
            **{name: getattr(self, name) for name in self.COUNTS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if len(state["random"]) == len(self.random.get_state()):  # another kind of device has another form
            self.random.set_state(state["random"].cpu())
        for name in self.COUNTS:
            setattr(self, name, state[name])


class Model(Trainable):
    """A model that learns from normal images alone, for so many `steps`."""

    LOG_EVERY: ClassVar[int] = 50
    """Steps from one point of a curve to the next."""

    def __init__(self, config: ModelConfig, steps: int, seed: int, device: torch.device | str) -> None:
        self.config, self.steps, self.done = config, steps, 0
        super().__init__(seed, device)

    @property
    def finished(self) -> bool:
        """Whether training is over."""
        return self.done >= self.steps

    @abstractmethod
    def advance(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        """A step of training on `data` (n, C, S, S) uint8; the losses, detached."""


def image_batches(images: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Parts of `images` (n, C, S, S) that networks take at once: 512 of 32 pixels, fewer of larger ones."""
    return torch.from_numpy(images).split(max(1, 512 * 32**2 // images.shape[-1] ** 2))


def sides(size: int) -> list[int]:
    """Sides of feature maps, from the image's, 16 or more, down to four or fewer, each half of the last."""
    if size < 16:
        raise RunError(f"image size is {size}; the networks take sizes from 16 up")
    values = [size]
    while values[-1] > 4:
        values.append(math.ceil(values[-1] / 2))
    return values
