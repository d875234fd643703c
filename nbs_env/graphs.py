"""CUDA graphs: what a GPU does in a call, recorded once and replayed without Python between its kernels."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Recording:
    """A graph, the tensors it reads its inputs from, and the one it leaves its result in."""

    replay: Callable[[], None]
    inputs: tuple[torch.Tensor, ...]
    result: torch.Tensor


class Graphed:
    """`function`, replayed as a CUDA graph where its inputs are on a GPU; elsewhere `function` itself.

    A GPU runs the small kernels of a batch of eight sooner than Python can ask for them. The first `WARM_UP`
    calls with inputs of the same shapes run as they are, and the next is recorded. What it costs: `function`
    must compute the same kernels each time, read nothing back, and keep what it changes, weights and
    optimiser state, in the tensors that it has changed before; whoever replaces those calls `forget`. A
    function that cannot be recorded goes on as it is, with a warning.

    Args:
        function: takes tensors of one device, and settings by keyword; gives a tensor.
    """

    WARM_UP = 3

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        self.function = function
        self.forget()

    def forget(self) -> None:
        """Throw the recordings away: the next calls record again."""
        self._calls: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, Recording] = {}
        self._works = True

    def __call__(self, *inputs: torch.Tensor, **settings: Hashable) -> torch.Tensor:
        """What `function` gives; a tensor that later calls leave alone."""
        if not self._works or not can_record(inputs[0].device):
            return self.function(*inputs, **settings)
        key = (*((x.shape, x.stride(), x.dtype) for x in inputs), *settings.items())
        self._calls[key] += 1
        if self._calls[key] <= self.WARM_UP:
            return aside(self.function, inputs, settings)
        recording = self._recordings.get(key)
        if recording is None:
            try:
                recording = self._recordings[key] = record(self.function, inputs, settings)
            except RuntimeError as error:
                warnings.warn(f"no CUDA graph, so this is slower: {error}", RuntimeWarning, stacklevel=2)
                self._works = False
                return self.function(*inputs, **settings)
        for place, value in zip(recording.inputs, inputs, strict=True):
            place.copy_(value)
        recording.replay()
        return recording.result.clone()


def can_record(device: torch.device) -> bool:
    """Whether there are graphs on this kind of device."""
    return device.type == "cuda"


def aside(
    function: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], settings: dict[str, Any]
) -> torch.Tensor:
    """Call `function` on a stream of its own, as PyTorch asks for before a recording."""
    stream, current = torch.cuda.Stream(inputs[0].device), torch.cuda.current_stream(inputs[0].device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        result = function(*inputs, **settings)
    current.wait_stream(stream)
    result.record_stream(current)
    return result


def record(
    function: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], settings: dict[str, Any]
) -> Recording:
    """Record `function`, which computes nothing yet."""
    places = tuple(torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device) for x in inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(inputs[0].device), torch.cuda.graph(graph):
        result = function(*places, **settings)
    return Recording(graph.replay, places, result)
