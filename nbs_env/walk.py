"""Where the patch is: centre, moves, sampling history, and the 5-channel window the agent sees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nbs_env.config import Config

CHANGE_IMAGE = 8
# (rows, columns) of actions 0-7: N, NE, E, SE, S, SW, W, NW.
DIRECTIONS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


class Walk:
    """A patch that walks over some of the images, and what has been sampled on the way.

    Args:
        images: (n, H, W, 3) uint8.
        loss_map: gives the current reconstruction loss (H, W) of an image by its index.
        config: sizes and shift.
    """

    def __init__(self, images: np.ndarray, loss_map: Callable[[int], np.ndarray], config: Config) -> None:
        self.images, self.loss_map = images, loss_map
        self.patch_size, self.window_size, self.shift = config.patch_size, config.window_size, config.shift
        self.margin = (config.window_size - config.patch_size) // 2
        self.choices = np.arange(len(images))
        self.image = self.top = self.left = 0
        self.path: list[tuple[int, int, int]] = []
        self._visited: dict[int, np.ndarray] = {}  # image -> padded (5, H + 2 margin, W + 2 margin)

    def start(self, choices: np.ndarray, rng: np.random.Generator) -> None:
        """Begin a segment over the images `choices`: empty history, random image, random centre."""
        self.choices = choices
        self._visited = {}
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
            self.top = min(max(self.top + rows * self.shift, 0), height - self.patch_size)
            self.left = min(max(self.left + columns * self.shift, 0), width - self.patch_size)

    def sample(self) -> float:
        """Mark the patch as sampled; the share of its pixels that are new in this segment, in [0, 1]."""
        m, p = self.margin, self.patch_size
        history = self._layers()[4, m + self.top : m + self.top + p, m + self.left : m + self.left + p]
        new = 1.0 - float(history.mean())
        history[:] = 1
        self.path.append((self.image, self.top, self.left))
        return new

    def patch(self, array: np.ndarray) -> np.ndarray:
        """The patch's view (P, P, ...) of `array` (H, W, ...), an image or a mask."""
        return array[self.top : self.top + self.patch_size, self.left : self.left + self.patch_size]

    def window(self) -> np.ndarray:
        """Observation (5, window, window) float32: RGB in [0, 1], loss >= 0, history; zeros outside."""
        w = self.window_size
        return self._layers()[:, self.top : self.top + w, self.left : self.left + w].copy()

    def history(self) -> np.ndarray:
        """Sampling history (H, W) of the current image, {0, 1}."""
        m = self.margin
        return self._layers()[4, m:-m, m:-m]

    def _jump(self, image: int, rng: np.random.Generator) -> None:
        height, width = self.images.shape[1:3]
        self.image = image
        self.top = int(rng.integers(height - self.patch_size + 1))
        self.left = int(rng.integers(width - self.patch_size + 1))

    def _layers(self) -> np.ndarray:
        layers = self._visited.get(self.image)
        if layers is None:
            m, image = self.margin, self.images[self.image]
            layers = np.zeros((5, image.shape[0] + 2 * m, image.shape[1] + 2 * m), np.float32)
            layers[:3, m:-m, m:-m] = image.transpose(2, 0, 1)
            layers[:3] /= 255
            layers[3, m:-m, m:-m] = self.loss_map(self.image)
            self._visited[self.image] = layers
        return layers
