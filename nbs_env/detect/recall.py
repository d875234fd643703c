"""The memory of a run: filled from what is known to be normal, asked without what an image gave."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from nbs_env.common.errors import TrainingError
from nbs_env.data import AnomalyDataset, resize_map
from nbs_env.features.encoder import frozen_encoder
from nbs_env.features.memory import FeatureMemory, coreset, described, level_scale

MOST_IMAGES = 100
"""Known-good images at most whose vectors may get into the memory."""
CANDIDATES = 100_000
"""Vectors at most that the memory's are chosen from."""
MARGIN = 16
"""Pixels around a marked defect that do not count as normal, for features there have seen it."""
FOLDS = 5
"""Parts of the images that are known to be normal."""
ODD = 4.0
"""Spreads above the mean distance of normal pixels at which one is as likely odd as not, a distance of 0."""
MEASURED = 32
"""Images at most whose distances say what is usual."""

Key = tuple[bool, int]
"""Whether it is one of the good images, and its index."""


class Recall:
    """A memory of known-good images and of the normal pixels of labelled ones.

    An image's own vectors never count for itself: beside the whole memory there are `FOLDS` that lack a part
    of the images each, and an image is compared with the one that lacks it.

    Args:
        data: all images; read are the squares of the labelled and the good ones.
        labeled: indices of the labelled images.
        size: vectors of the memory at most.
        seed: of what is drawn.
        device: where it computes.

    Raises:
        TrainingError: fewer than two images have a normal place.
    """

    def __init__(
        self, data: AnomalyDataset, labeled: np.ndarray, size: int, seed: int, device: torch.device
    ) -> None:
        self.data, self.device = data, device
        rng, encoder = np.random.default_rng(seed), frozen_encoder(device)
        good = rng.permutation(len(data.good))[:MOST_IMAGES]
        keys = [(True, int(i)) for i in good] + [(False, int(i)) for i in labeled]
        found: dict[Key, torch.Tensor] = {}
        for key in keys:
            with torch.no_grad():
                places = described(encoder, self._tensor(key))[0].flatten(1).T.cpu()
            near = self._anomalous(key)
            if near.any():  # most are good ones, and it is slow
                near = ndimage.binary_dilation(near, iterations=MARGIN)
            rows = rng.permutation(np.flatnonzero(~near[2::4, 2::4]))  # where the places lie
            if len(rows):
                found[key] = places[np.sort(rows[: -(-CANDIDATES // len(keys))])]
        if len(found) < 2:
            raise TrainingError(
                f"{data.name}: {len(found)} images show what is normal, and two are needed; add known-good "
                "images to good/, or choose --memory-size 0"
            )
        self._parts = {key: number % FOLDS for number, key in enumerate(found)}
        vectors = torch.cat([*found.values()])
        owners = np.repeat([*self._parts.values()], [*map(len, found.values())])
        scale = level_scale(vectors)
        vectors *= scale

        def chosen(rows: np.ndarray) -> FeatureMemory:
            few = vectors[rows]
            taken = coreset(few, size, torch.Generator().manual_seed(seed))
            return FeatureMemory(few[taken].to(device), scale.to(device))

        self.memory = chosen(np.arange(len(owners)))
        """Of all."""
        self._others = [chosen(owners != part) for part in range(min(FOLDS, len(found)))]
        usual = np.concatenate([self.distance(key)[~self._anomalous(key)] for key in [*found][:MEASURED]])
        for memory in (self.memory, *self._others):
            memory.spread.fill_(max(float(usual.std()), 1e-6))
            memory.center.fill_(float(usual.mean() + ODD * usual.std()))

    @torch.no_grad()
    def distance(self, key: Key) -> np.ndarray:
        """Distances (S, S) float32 of a good or a labelled image from what others gave."""
        part = self._parts.get(key)
        memory = self.memory if part is None else self._others[part]
        return memory(self._tensor(key))[0].cpu().numpy()

    def new(self, key: Key) -> bool:
        """Whether the memory has nothing of an image."""
        return key not in self._parts

    def _tensor(self, key: Key) -> torch.Tensor:
        image = torch.from_numpy(self.data.good[key[1]] if key[0] else self.data.images[key[1]])
        return image.to(self.device).permute(2, 0, 1)[None].float() / 255

    def _anomalous(self, key: Key) -> np.ndarray:
        shape = self.data.images.shape[1:3]
        return np.zeros(shape, np.bool_) if key[0] else self.data.masks[key[1]]


def distances_of(recall: Recall | None, key: Key, shape: tuple[int, ...]) -> np.ndarray:
    """`Recall.distance` brought to a working size; 0 without a memory."""
    return np.zeros(shape, np.float32) if recall is None else resize_map(recall.distance(key), *shape)
