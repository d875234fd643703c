"""Loss profiles: the FIFO buffer of labelled losses, and the autoencoders behind any image's."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nbs_env.autoencoder import Autoencoder, loss_maps
from nbs_env.common.networks import place

Weights = dict[str, torch.Tensor]


class ProfileBuffer:
    """FIFO buffer of loss profiles, kept as loss maps: neighbouring profiles share all but one of theirs.

    A profile is `length` consecutive maps of one re-initialisation cycle; others are never handed out.

    Args:
        capacity: updates whose maps are kept.
        length: losses in a profile (T).
        shape: (labelled images, H, W).
        device: where the maps live, in half precision.
    """

    def __init__(self, capacity: int, length: int, shape: tuple[int, int, int], device: torch.device) -> None:
        self.capacity, self.length = capacity, length
        self.maps = torch.zeros((capacity, *shape), dtype=torch.float16, device=device)
        self.means = torch.zeros((capacity, shape[0]), device=device)
        self.cycles = np.full(capacity, -1)
        self.count = 0

    def append(self, maps: torch.Tensor, cycle: int) -> None:
        """Add the labelled images' maps (n, H, W) of one update; the oldest fall out."""
        self.maps[self.count % self.capacity] = maps
        self.means[self.count % self.capacity] = maps.mean(dim=(1, 2))
        self.cycles[self.count % self.capacity] = cycle
        self.count += 1

    def ends(self) -> np.ndarray:
        """Updates (as counted by `append`) at which a whole profile ends."""
        ends = np.arange(max(0, self.count - self.capacity) + self.length - 1, self.count)
        first = self.cycles[(ends - self.length + 1) % self.capacity]
        return ends[first == self.cycles[ends % self.capacity]]

    def profiles(self, ends: np.ndarray, images: np.ndarray) -> torch.Tensor:
        """Profiles (B, T, H, W) float32, oldest loss first, of labelled images `images` at `ends`."""
        rows = (ends[:, None] - np.arange(self.length)[::-1]) % self.capacity  # (B, T)
        return self.maps[torch.from_numpy(rows), torch.from_numpy(images)[:, None]].float()

    def normalized(self, end: int, image: int, crop: tuple[slice, slice]) -> torch.Tensor:
        """Part (T, h, w) float32 of the profile of `image` at `end`, divided by the whole profile's mean."""
        rows = torch.arange(end - self.length + 1, end + 1) % self.capacity
        mean = self.means[rows, image].mean().clamp_min(1e-12)
        return self.maps[:, image, crop[0], crop[1]][rows].float() / mean

    def newest(self) -> torch.Tensor | None:
        """The labelled images' newest profiles (n, T, H, W), or None while the cycle is too young."""
        if not len(self.ends()) or self.ends()[-1] != self.count - 1:
            return None
        images = np.arange(self.maps.shape[1])
        return self.profiles(np.full(len(images), self.count - 1), images)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as tensors and numbers; unused rows are left out."""
        used = min(self.count, self.capacity)
        return {
            "maps": self.maps[:used].clone(),  # a view is saved with all it is a view of
            "means": self.means[:used].clone(),
            "cycles": torch.from_numpy(self.cycles),
            "count": self.count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of a buffer with the same capacity and shape."""
        used = len(state["maps"])
        self.maps[:used], self.means[:used] = state["maps"], state["means"]
        self.cycles, self.count = state["cycles"].numpy().copy(), state["count"]


@dataclass(frozen=True, eq=False)  # tensors have no truth value
class Snapshot:
    """The autoencoders behind one moment's profiles, and the prediction loss there.

    Attributes:
        ring: T sets of autoencoder weights, oldest first; they are shared, never written to.
        prediction_loss: the predictor's loss at that moment, which moments are ranked by.
        update: the autoencoder update it was taken after.
        predictor: the predictor's weights at that moment; None: the last ones serve.
    """

    ring: tuple[Weights, ...]
    prediction_loss: float
    update: int
    predictor: Weights | None = None


def copy_weights(autoencoder: Autoencoder, dtype: torch.dtype) -> Weights:
    """The weights that give the same loss maps: what is rounded to `dtype` in use is kept in it."""
    return {
        name: value.detach().to(dtype if value.ndim == 4 and "output" not in name else value.dtype, copy=True)
        for name, value in autoencoder.state_dict().items()
    }


class ProfileMeter(threading.local):
    """Measures profiles, in a network that the weights of rings are put into; each thread has one of its own.

    Args:
        weights: of any autoencoder of the same sizes.
        device: where it computes.
        dtype: what the convolutions run in.
    """

    def __init__(self, weights: Weights, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = dtype
        width, bottleneck = (len(weights[f"{layer}.weight"]) for layer in ("encoder.0.0", "bottleneck.2"))
        with torch.inference_mode(False):  # whoever measures first may be in that mode, and others not
            with torch.device("meta"):  # no weights to draw
                network = Autoencoder(bottleneck, width)
            self.autoencoder = place(network.to_empty(device=device), device)
            self.device = device

    def __reduce__(self) -> tuple[type[ProfileMeter], tuple[Weights, torch.device, torch.dtype]]:
        """A copy, and the process that an environment or a detector is sent to, has one of its own."""
        return type(self), (self.autoencoder.state_dict(), self.device, self.dtype)

    def measure(self, ring: Sequence[Weights], images: torch.Tensor) -> torch.Tensor:
        """Profiles (N, T, H, W) float32 of `images` (N, 3, H, W) uint8 under the autoencoders of `ring`."""
        maps = []
        for weights in ring:
            self.autoencoder.load_state_dict(weights)
            maps.append(loss_maps(self.autoencoder, images, self.dtype))
        return torch.stack(maps, dim=1)
