"""What the networks share: initialisation from a generator, Adam, arithmetic and memory."""

from __future__ import annotations

import ctypes
import math
from typing import TypeVar

import torch
from torch import nn

from nbs_env.common.errors import ConfigError

M = TypeVar("M", bound=nn.Module)

own_draws = torch.random.fork_rng(devices=[])
"""Decorates a constructor: its first weights, which others replace, cost the global generator no draw."""


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights of `module` anew, in PyTorch's default distribution but from `generator`.

    Args:
        module: the network, on any device; its BatchNorm layers become the identity.
        generator: a CPU generator, so that the weights do not depend on the device.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            weight = torch.empty(layer.weight.shape)
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
            with torch.no_grad():
                layer.weight.copy_(weight)
                if layer.bias is not None:
                    bound = 1 / math.sqrt(weight[0].numel())
                    bias = torch.empty(layer.bias.shape).uniform_(-bound, bound, generator=generator)
                    layer.bias.copy_(bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()


def adam(module: nn.Module, lr: float) -> torch.optim.Adam:
    """Adam on the weights of `module`, one kernel a step."""
    return torch.optim.Adam(module.parameters(), lr, fused=True)


def place(module: M, device: torch.device) -> M:
    """Move `module` to `device`, channels last: the layout that convolutions are fastest in."""
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Dtype of the convolutions; `auto` is bfloat16 where the processor has it, float32 elsewhere."""
    if precision == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def keep_freed_memory() -> None:
    """Have the C library keep up to 1 GiB of freed memory for later, rather than return it to the system.

    The activations of a step are freed, and asked for again in the next; fetching their pages anew each time
    costs a tenth of an update on two cores. It concerns the whole process, so commands call it, imports do
    not. Nothing happens where the C library is not glibc.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return
    for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        set_option(option, 2**30)


def pick_device(name: str) -> torch.device:
    """The device called `name`: "cpu", "cuda", "cuda:1" and so on, or "auto", CUDA where there is one.

    Raises:
        ConfigError: there is no such device.
    """
    name = str(name)  # or a torch.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise ConfigError(f"there is no device {name!r}; choose cpu, cuda or auto")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device is {name} but PyTorch sees no such GPU; choose cpu or auto")
    return torch.device(name)
