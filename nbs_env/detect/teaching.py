"""How a segmenter is taught: by the labelled images, and by those that are known to be good."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.detect.alarms import image_scores
from nbs_env.detect.segmenter import Segmenter, segment, segment_images
from nbs_env.detect.views import Views
from nbs_env.metrics import best_threshold, pixel_prf
from nbs_env.networks import place
from nbs_env.predictor import class_weights
from nbs_env.profiles import Weights, dihedral
from nbs_env.runs import TrainingError

MOST_SCORED = 200
"""Good images at most whose scores, left out, say how high a good image's score may be."""
LOWEST = 0.5
"""No threshold lies below. The best one is half the best F1 where probabilities are true (Lipton, Elkan and
Naryanaswamy, Optimal Thresholding of Classifiers to Maximize F1 Measure, 2014). Ours, learnt with weight w
on anomalous pixels, are 0.5 where the true one is 1 / (1 + w)."""


class Teacher:
    """Teaches one segmenter.

    Args:
        views: all images; read are the labelled and the good ones.
        labeled: indices of the images whose masks it may learn from.
        good: indices of the good images that it may learn from.
        config: all settings.
        seed: of weights, crops and augmentation.
        device: where it computes.
        dtype: what the convolutions run in.
    """

    def __init__(
        self,
        views: Views,
        labeled: np.ndarray,
        good: np.ndarray,
        config: Config,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.config = config
        self.pairs = [self._pair(views.image(i), views.mask(i)) for i in labeled]
        self.views, self.good = views, good
        self.device, self.dtype = device, dtype
        self.rng = np.random.default_rng(seed)
        self.segmenter = place(Segmenter(torch.Generator().manual_seed(seed)), device)
        encoder = set(self.segmenter.encoder.parameters())
        rest = [parameter for parameter in self.segmenter.parameters() if parameter not in encoder]
        lr = config.segmenter_lr
        groups = [
            {"params": rest, "lr": lr},
            {"params": [*self.segmenter.encoder.parameters()], "lr": lr / 10},
        ]
        self.optimizer = torch.optim.Adam(groups, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: (1 + math.cos(math.pi * step / config.segmenter_steps)) / 2
        )
        self.places = [np.argwhere(mask) for _, mask in self.pairs]
        masks = np.concatenate([mask.ravel() for _, mask in self.pairs])
        weight, _ = class_weights(torch.from_numpy(masks), "sqrt")
        self.weight = torch.tensor(weight, device=device)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Random crops under random symmetries, brightness, contrast: (B, 3, c, c), and masks (B, c, c)."""
        images, masks = zip(*(self._crop() for _ in range(self.config.segmenter_batch)), strict=True)
        return torch.stack(images).to(self.device), torch.stack(masks).to(self.device)

    def _pair(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask, mirrored at their edges until a crop fits into them."""
        lacking = [(0, max(0, self.config.segmenter_crop - length)) for length in mask.shape]
        return np.pad(image, [*lacking, (0, 0)], "symmetric"), np.pad(mask, lacking, "symmetric")

    def _crop(self) -> tuple[torch.Tensor, torch.Tensor]:
        """One of them; half of those from an image with a defect show a place of it."""
        rng, side = self.rng, self.config.segmenter_crop
        if len(self.good) and rng.random() < self.config.good_share:
            shown = self.views.good(int(rng.choice(self.good)))
            image, mask = self._pair(shown, np.zeros(shown.shape[:2], bool))
            places = np.zeros((0, 2), int)
        else:
            index = int(rng.integers(len(self.pairs)))
            (image, mask), places = self.pairs[index], self.places[index]
        last = np.array(image.shape[:2]) - side
        top, left = rng.integers(last + 1)
        if len(places) and rng.random() < 0.5:
            place = places[rng.integers(len(places))]
            top, left = (place - rng.integers(side, size=2)).clip(0, last)
        here = (slice(top, top + side), slice(left, left + side))
        pair = np.dstack([image[here], mask[here]])
        turned = dihedral(torch.from_numpy(pair).permute(2, 0, 1), int(rng.integers(8))).float()
        contrast, brightness = rng.uniform(0.8, 1.25), rng.uniform(-0.1, 0.1)
        return (turned[:3] / 255 - 0.5) * contrast + 0.5 + brightness, turned[3]

    def step(self) -> float:
        """Take one step of weighted cross-entropy; the loss before it.

        Raises:
            TrainingError: it is not finite.
        """
        images, masks = self.batch()
        self.segmenter.train()
        logits = segment(self.segmenter, images, self.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, masks, pos_weight=self.weight)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the segmenter's loss became {value}; lower segmenter_lr ({self.config.segmenter_lr}) and "
                "begin a new run"
            )
        return value


@dataclass(frozen=True)
class Taught:
    """A segmenter, and what it was worth where its teacher did not look.

    Attributes:
        weights: of the segmenter, taught by all labelled images.
        threshold: probability from which a pixel is anomalous: the best on labelled images that were left
            out, but at least `LOWEST`.
        f1: pooled F1 there, at that threshold; None where none can be left out.
        good_scores: (k,) image scores of images known to be good, labelled or not, that were left out.
    """

    weights: Weights
    threshold: float
    f1: float | None
    good_scores: np.ndarray


def teach(
    data: AnomalyDataset,
    labeled: np.ndarray,
    config: Config,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    parts: dict[str, Any] | None = None,
    on_step: Callable[[float], object] = lambda loss: None,
    on_part: Callable[[], object] = lambda: None,
) -> Taught:
    """Teach segmenters with a part of the labelled images left out each, and then one with all of them.

    Args:
        data: all images; read are the labelled and the good ones.
        labeled: indices of the labelled images.
        config: all settings.
        seed: of everything.
        device: where it computes.
        dtype: what the convolutions run in.
        parts: what was done before, by part; what is missing is done and put in.
        on_step: called with the loss of each step.
        on_part: called when a part is complete.
    """
    parts = {} if parts is None else parts
    views = Views(data, config.segmenter_size)
    good, turned = np.random.default_rng(seed).permutation(len(data.good)), config.segmenter_symmetries

    def taught(labeled: np.ndarray, good: np.ndarray) -> Segmenter:
        teacher = Teacher(views, labeled, good, config, seed, device, dtype)
        for _ in range(config.segmenter_steps):
            on_step(teacher.step())
        return teacher.segmenter

    left_out = folds(data.masks[labeled], config.segmenter_folds)
    for number, rows in enumerate(left_out):
        if str(number) not in parts:
            aside = good[number :: len(left_out)]
            segmenter = taught(np.delete(labeled, rows), np.setdiff1d(good, aside))
            few = np.sort(aside[: MOST_SCORED // len(left_out)])
            seen = [segment_images(segmenter, views.image(i)[None], dtype, turned) for i in labeled[rows]]
            fine = [segment_images(segmenter, views.good(i)[None], dtype, turned) for i in few]
            parts[str(number)] = {
                "labeled": [torch.from_numpy(probabilities[0]) for probabilities in seen],
                "good": torch.tensor([image_scores(probabilities)[0] for probabilities in fine]),
            }
            on_part()
    if "all" not in parts:
        parts["all"] = taught(labeled, good).state_dict()
        on_part()
    if not left_out:
        return Taught(parts["all"], LOWEST, None, np.zeros(0))
    truths = [views.mask(i) for i in labeled[np.concatenate(left_out)]]
    found = [parts[str(number)] for number in range(len(left_out))]
    scored = [probabilities.numpy() for part in found for probabilities in part["labeled"]]
    good_scores = [part["good"].numpy() for part in found]
    good_scores += [
        image_scores(one[None]) for one, truth in zip(scored, truths, strict=True) if not truth.any()
    ]
    truth, scores = (np.concatenate([i.ravel() for i in some])[None, None] for some in (truths, scored))
    threshold, f1 = LOWEST, None
    if truth.any():
        threshold = max(LOWEST, best_threshold(scores, truth))
        f1 = pixel_prf(scores >= threshold, truth)[2]
    return Taught(parts["all"], threshold, f1, np.concatenate(good_scores))


def folds(masks: np.ndarray, count: int) -> list[np.ndarray]:
    """Which images of masks (n, H, W) to leave out together: defects in each part, and outside of it."""
    order = np.argsort([not mask.any() for mask in masks], kind="stable")
    parts = [np.sort(order[start::count]) for start in range(min(count, len(order)))]
    return [part for part in parts if np.delete(masks, part, axis=0).any()]
