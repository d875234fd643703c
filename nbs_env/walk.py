"""Where the patch is: centre, moves, sampling history, and the 5-channel window the agent sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.error import InvalidAction

from nbs_env.common.errors import ConfigError
from nbs_env.common.settings import whole_number
from nbs_env.config import PATCH, WINDOW, Config

CHANGE_IMAGE = 8
MARGIN = (WINDOW - PATCH) // 2
"""Pixels that the agent sees on each side of the patch."""
# (rows, columns) of actions 0-7: N, NE, E, SE, S, SW, W, NW.
DIRECTIONS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def walked_images(config: Config, labeled: np.ndarray, count: int) -> np.ndarray:
    """Indices of the images, of `count` in all, that a training segment walks over.

    Raises:
        ConfigError: there is none.
    """
    every = np.arange(count)
    choices = {"all": every, "labeled": labeled, "unlabeled": np.setdiff1d(every, labeled)}
    chosen = choices[config.training_images]
    if not len(chosen):
        raise ConfigError("training_images is unlabeled, but every image is labelled; label fewer")
    return chosen


def action_number(action: Any) -> int:
    """The number of an action, which may be any whole number: Python's, NumPy's or a tensor's.

    Raises:
        InvalidAction: it is none from 0 to 8.
    """
    number = whole_number(action)
    if number is None or not 0 <= number <= CHANGE_IMAGE:
        raise InvalidAction(
            f"action is {action!r}; choose a whole number from 0 to {CHANGE_IMAGE}: 0-7 shift the patch, "
            f"{CHANGE_IMAGE} changes the image"
        )
    return number


class Walk:
    """A patch that walks over some of the images, and what has been sampled on the way.

    Places and history are numbers of the host; what the agent sees is cut on the device of the loss maps.

    Args:
        images: (n, H, W, 3) uint8.
        loss_map: gives the current reconstruction loss (H, W) of an image by its index.
        config: sizes and shift.
    """

    def __init__(self, images: np.ndarray, loss_map: Callable[[int], torch.Tensor], config: Config) -> None:
        self.images, self.loss_map = images, loss_map
        self.shift = config.shift
        self.choices = np.arange(len(images))
        self.image = self.top = self.left = 0
        self.path: list[tuple[int, int, int]] = []
        self._sampled: dict[int, np.ndarray] = {}  # image -> history (H, W) bool
        # Image -> padded (5, H + 2 margin, W + 2 margin); an array on the CPU, where NumPy cuts sooner.
        self._layers: dict[int, np.ndarray | torch.Tensor] = {}

    def start(self, choices: np.ndarray, rng: np.random.Generator) -> None:
        """Begin a segment over the images `choices`: empty history, random image, random centre."""
        self.choices = choices
        self._sampled, self._layers = {}, {}
        self.path = []
        self._jump(int(rng.choice(choices)), rng)

    def move(self, action: int, rng: np.random.Generator) -> None:
        """Shift the patch by actions 0-7, clipped to the image, or change the image (8)."""
        if action == CHANGE_IMAGE:
            image = int(rng.choice(self.choices))
            while image == self.image and len(self.choices) > 1:
                image = int(rng.choice(self.choices))
            self._jump(image, rng)
        else:
            rows, columns = DIRECTIONS[action]
            height, width = self.images.shape[1:3]
            self.top = min(max(self.top + rows * self.shift, 0), height - PATCH)
            self.left = min(max(self.left + columns * self.shift, 0), width - PATCH)

    def sample(self) -> float:
        """Mark the patch as sampled; the share of its pixels that are new in this segment, in [0, 1]."""
        there = self.patch(self.history())
        new = 1.0 - float(there.mean())
        there[:] = True
        if self.image in self._layers:
            top, left = MARGIN + self.top, MARGIN + self.left
            self._layers[self.image][4, top : top + PATCH, left : left + PATCH] = 1
        self.path.append((self.image, self.top, self.left))
        return new

    def patch(self, array: np.ndarray) -> np.ndarray:
        """The patch's view (P, P, ...) of `array` (H, W, ...), an image or a mask."""
        return array[self.top : self.top + PATCH, self.left : self.left + PATCH]

    def window(self) -> np.ndarray:
        """Observation (5, window, window) float32: RGB in [0, 1], loss >= 0, history; zeros outside."""
        seen = self._see()
        return seen.copy() if isinstance(seen, np.ndarray) else seen.cpu().numpy()

    def window_tensor(self) -> torch.Tensor:
        """`window`, left on the device."""
        seen = self._see()
        return torch.from_numpy(seen.copy()) if isinstance(seen, np.ndarray) else seen.clone()

    def history(self) -> np.ndarray:
        """Sampling history (H, W) bool of the current image."""
        history = self._sampled.get(self.image)
        if history is None:
            history = self._sampled[self.image] = np.zeros(self.images.shape[1:3], bool)
        return history

    def _jump(self, image: int, rng: np.random.Generator) -> None:
        height, width = self.images.shape[1:3]
        self.image = image
        self.top = int(rng.integers(height - PATCH + 1))
        self.left = int(rng.integers(width - PATCH + 1))

    def _see(self) -> np.ndarray | torch.Tensor:
        layers = self._layers.get(self.image)
        if layers is None:
            layers = self._layers[self.image] = self._make_layers()
        return layers[:, self.top : self.top + WINDOW, self.left : self.left + WINDOW]

    def _make_layers(self) -> np.ndarray | torch.Tensor:
        m, (height, width) = MARGIN, self.images.shape[1:3]
        loss = self.loss_map(self.image)
        layers = torch.zeros((5, height + 2 * m, width + 2 * m), device=loss.device)
        inside = layers[:, m : m + height, m : m + width]
        inside[:3] = torch.from_numpy(self.images[self.image]).to(loss.device).permute(2, 0, 1)
        inside[:3] /= 255
        inside[3] = loss
        inside[4] = torch.from_numpy(self.history())
        return layers.numpy() if layers.device.type == "cpu" else layers
