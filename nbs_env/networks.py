"""What the networks share: initialisation from a generator, Adam, arithmetic and memory."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from nbs_env.checkpoint import CheckpointError

M = TypeVar("M", bound=nn.Module)


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
            bound = 1 / math.sqrt(weight[0].numel())
            assert layer.bias is not None
            bias = torch.empty(layer.bias.shape).uniform_(-bound, bound, generator=generator)
            with torch.no_grad():
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()


class Adam(torch.optim.Adam):
    """Adam on the weights of `module`, one kernel a step; on a GPU a CUDA graph can hold it.

    It sees each weight in the order in which it lies in memory: PyTorch's kernel for the CPU copies what is
    not contiguous, as weights with channels last are, to and fro at every step.

    Args:
        module: where it will stay: its weights are not to be moved afterwards.
        lr: learning rate.
    """

    def __init__(self, module: nn.Module, lr: float) -> None:
        self.weights = list(module.parameters())
        on_gpu = self.weights[0].device.type == "cuda"
        views = [_as_it_lies(weight, weight.detach()) for weight in self.weights]
        super().__init__(views, lr, fused=True, capturable=on_gpu)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for weight in self.weights:
            weight.grad = None

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the weights."""
        for view, weight in zip(self.param_groups[0]["params"], self.weights, strict=True):
            view.grad = None if weight.grad is None else _as_it_lies(weight, weight.grad)
        super().step(closure)

    def forget(self) -> None:
        """Go back to before the first step, in place: a CUDA graph may hold the state."""
        for state in self.state.values():
            for value in state.values():
                value.zero_()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of an optimiser, perhaps of another device.

        Raises:
            CheckpointError: it belongs to other weights.
        """
        (group,) = self.param_groups
        for number, view in enumerate(group["params"]):
            moments = state_dict["state"].get(number)
            if moments is not None and moments["exp_avg"].shape != view.shape:
                raise CheckpointError(
                    "the checkpoint's optimiser does not fit the network: another version has made it; "
                    "begin a new run"
                )
        capturable = group["capturable"]
        super().load_state_dict(state_dict)
        self.param_groups[0]["capturable"] = capturable


def _as_it_lies(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`value`, with the strides of `weight`, as a contiguous view if there is one."""
    lies_last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return value.permute(0, 2, 3, 1) if lies_last else value


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
