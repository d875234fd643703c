"""A learner's twin: what other patches would have led to, from the very state that it is in."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from nbs_env.config import Config
from nbs_env.networks import forget_state
from nbs_env.walk import walked_images

if TYPE_CHECKING:
    from nbs_env.learner import Learner


@contextmanager
def untouched(learner: Learner) -> Iterator[None]:
    """Let `learner` play its twin for one update: afterwards it is as it was before, bit for bit.

    No second set of networks is needed, and the buffer, the largest part of the state, is not copied: an
    update writes to one row of it. Tensors are put back in place, because CUDA graphs hold on to them.
    """
    before, buffer = dict(vars(learner)), learner.buffer
    row = buffer.count % buffer.capacity
    optimizers = learner.trainer.optimizer, learner.optimizer
    unused = [optimizer for optimizer in optimizers if not optimizer.state]
    tensors = [
        *learner.trainer.network.state_dict().values(),
        *learner.predictor.state_dict().values(),
        *(value for each in optimizers for state in each.state.values() for value in state.values()),
        *(buffer.maps[row], buffer.means[row]),
    ]
    kept = [tensor.clone() for tensor in tensors]
    learner.buffer = copy.copy(buffer)
    learner.buffer.cycles = buffer.cycles.copy()
    learner.ring, learner.rng = list(learner.ring), copy.deepcopy(learner.rng)
    learner.weight_generator = torch.Generator()
    learner.weight_generator.set_state(before["weight_generator"].get_state())
    try:
        yield
    finally:
        vars(learner).update(before)
        for tensor, value in zip(tensors, kept, strict=True):
            tensor.copy_(value)
        for optimizer in unused:
            forget_state(optimizer)


class Sampled(Protocol):
    """What `random_patches` reads of a learner."""

    config: Config
    labeled: np.ndarray
    images: torch.Tensor
    """(n, 3, H, W) uint8."""
    rng: np.random.Generator


def random_patches(learner: Sampled, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Patches (count, P, P, 3) uint8 at random places (count, 3) of the images that are walked over.

    Their generator is made from the learner's, which stays where it is: a state that is stored and loaded
    gives the same ones, and nobody else's draws change.
    """
    config, size = learner.config, learner.config.patch_size
    rng = np.random.default_rng(copy.deepcopy(learner.rng).integers(2**63, size=2))
    walked = walked_images(config, learner.labeled, len(learner.images))
    images = rng.choice(walked, size=count)
    places = rng.integers(config.image_size - size + 1, size=(count, 2))
    patches = [
        learner.images[int(image), :, top : top + size, left : left + size].permute(1, 2, 0).cpu().numpy()
        for image, (top, left) in zip(images, places, strict=True)
    ]
    return np.stack(patches), np.column_stack([images, places])
