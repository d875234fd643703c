"""How a segmenter is taught by the labelled images, and what it is worth on those that were left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from nbs_env.common.errors import TrainingError
from nbs_env.common.networks import place
from nbs_env.common.symmetries import dihedral
from nbs_env.data import AnomalyDataset, resize_map
from nbs_env.detect.alarms import alarm_of, image_scores, is_bad
from nbs_env.detect.config import DetectorConfig, Size
from nbs_env.detect.defects import cut_out, paste
from nbs_env.detect.fusion import METHODS, SHARES, UNKNOWN, choose_share, log_odds, mixed, pooled
from nbs_env.detect.metrics import best_threshold, pixel_prf
from nbs_env.detect.recall import Recall, distances_of
from nbs_env.detect.segmenter import Segmenter, segment, segment_images
from nbs_env.detect.views import Views
from nbs_env.predictor import class_weights
from nbs_env.profiles import Weights

MOST_OWN = 1024
"""Pixels of the longest side up to which own sizes are tried."""
MOST_SCORED = 60
"""Good images at most that the segmenters look at which have left labelled ones out."""
LOWEST = 0.5
"""The lowest threshold that labelled images may choose."""


class Teacher:
    """Teaches one segmenter.

    Args:
        views: all images; read are the labelled ones.
        labeled: indices of the images whose masks it may learn from.
        config: the detector's settings.
        seed: of weights, crops and augmentation.
        device: where it computes.
        dtype: what the convolutions run in.
    """

    def __init__(
        self,
        views: Views,
        labeled: np.ndarray,
        config: DetectorConfig,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.config = config
        self.pairs = [self.padded(views.image(i), views.mask(i)) for i in labeled]
        self.device, self.dtype = device, dtype
        self.rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(seed)
        self.segmenter = place(Segmenter(generator), device)
        encoder = set(self.segmenter.encoder.parameters())
        rest = [parameter for parameter in self.segmenter.parameters() if parameter not in encoder]
        groups = [
            {"params": rest, "lr": config.segmenter_lr},
            {"params": [*self.segmenter.encoder.parameters()], "lr": config.segmenter_lr / 10},
        ]
        self.optimizer = torch.optim.Adam(groups, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, partial(_half_cosine, steps=config.segmenter_steps)
        )
        self.places = [np.argwhere(mask) for _, mask in self.pairs]
        self.defects = (
            [defect for pair in self.pairs for defect in cut_out(*pair)] if config.paste_share else []
        )
        masks = np.concatenate([mask.ravel() for _, mask in self.pairs])
        weight, _ = class_weights(torch.from_numpy(masks), "sqrt")
        self.weight = torch.tensor(weight, device=device)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Random crops under random symmetries, brightness, contrast: (B, 3, c, c), and masks (B, c, c)."""
        images, masks = zip(*(self._crop() for _ in range(self.config.segmenter_batch)), strict=True)
        return torch.stack(images).to(self.device), torch.stack(masks).to(self.device)

    def padded(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask, mirrored at their edges until a crop fits into them."""
        lacking = [(0, max(0, self.config.segmenter_crop - length)) for length in mask.shape]
        return np.pad(image, [*lacking, (0, 0)], "symmetric"), np.pad(mask, lacking, "symmetric")

    def _crop(self) -> tuple[torch.Tensor, torch.Tensor]:
        """One of them; half of those from an image with a defect show a place of it."""
        rng, side = self.rng, self.config.segmenter_crop
        index = int(rng.integers(len(self.pairs)))
        (image, mask), places = self.pairs[index], self.places[index]
        last = np.array(image.shape[:2]) - side
        top, left = rng.integers(last + 1)
        if len(places) and rng.random() < 0.5:
            place = places[rng.integers(len(places))]
            top, left = (place - rng.integers(side, size=2)).clip(0, last)
        here = (slice(top, top + side), slice(left, left + side))
        crop = image[here], mask[here]
        if self.defects and rng.random() < self.config.paste_share:
            crop = paste(crop, self.defects[int(rng.integers(len(self.defects)))], rng)
        return self._vary(*crop)

    def _vary(self, image: np.ndarray, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """A crop (c, c, 3) uint8 and its mask (c, c) under one symmetry, contrast and brightness."""
        pair = torch.from_numpy(np.dstack([image, mask])).permute(2, 0, 1)
        turned = dihedral(pair, int(self.rng.integers(8))).float()
        contrast, brightness = self.rng.uniform(0.8, 1.25), self.rng.uniform(-0.1, 0.1)
        return (turned[:3] / 255 - 0.5) * contrast + 0.5 + brightness, turned[3]

    def step(self) -> float:
        """Take one step; the loss of its batch before it: cross-entropy, weighted by how rare defects are.

        Raises:
            TrainingError: it is not finite.
        """
        self.segmenter.train()
        images, masks = self.batch()
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
    """A segmenter, and what it and the memory are worth where nothing was learnt from.

    Attributes:
        weights: of the segmenter, taught by all labelled images.
        size: what the images are resized to.
        share: of the memory, see `fusion.mixed`; 0 without one.
        thresholds: probability from which a pixel is anomalous, by method: the best on labelled images that
            were left out and as many pixels of known-good ones, where there are such; that of segmenter and
            fusion as `bounded_threshold` has it.
        f1: pooled F1 on the labelled ones of the fusion, at that threshold; None where none can be left out.
        found: defective ones of them that are called bad, and how many there are.
    """

    weights: Weights
    size: Size
    share: float
    thresholds: dict[str, float]
    f1: float | None
    found: tuple[int, int]


def teach(
    data: AnomalyDataset,
    labeled: np.ndarray,
    config: DetectorConfig,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    recall: Recall | None = None,
    parts: dict[str, Any] | None = None,
    on_step: Callable[[float], object] = lambda loss: None,
    on_part: Callable[[], object] = lambda: None,
) -> Taught:
    """Teach segmenters with a part of the labelled images left out each, and then one with all of them.

    Where the working size is to be chosen, the first is done at each; what was left out chooses, by the best
    F1 in the images' own sizes.

    Args:
        data: all images; read are the labelled and the good ones.
        labeled: indices of the labelled images.
        config: the detector's settings.
        seed: of everything.
        device: where it computes.
        dtype: what the convolutions run in while a segmenter learns; they look in float32.
        recall: the memory.
        parts: what was done before, by part; what is missing is done and put in.
        on_step: called with the loss of each step.
        on_part: called when a part is complete.
    """
    parts = {} if parts is None else parts
    good = np.random.default_rng(seed).permutation(len(data.good))
    left_out = folds(data.masks[labeled], config.segmenter_folds)
    sizes = candidates(data, config.segmenter_size)
    if not left_out:
        sizes = sizes[:1]  # nothing says which is best

    def taught(views: Views, labeled: np.ndarray) -> Segmenter:
        teacher = Teacher(views, labeled, config, seed, device, dtype)
        for _ in range(config.segmenter_steps):
            on_step(teacher.step())
        return teacher.segmenter

    for size, (number, rows) in itertools.product(sizes, enumerate(left_out)):
        if f"{size}/{number}" not in parts:
            views = Views(data, size)
            segmenter = taught(views, np.delete(labeled, rows))
            look = partial(segment_images, segmenter, symmetries=config.segmenter_symmetries)
            maps = [look(views.image(i)[None])[0] for i in labeled[rows]]
            few = np.sort(good[number :: len(left_out)][: MOST_SCORED // len(left_out)])
            rng, each = np.random.default_rng(seed), sum(one.size for one in maps) // max(1, len(few))
            pixels, scores = [np.zeros((2, 0), np.float32)], []
            for index in few:  # one at a time: sixty maps are large
                own = log_odds(look(views.good(index)[None])[0])
                pair = np.stack([own, distances_of(recall, (True, int(index)), own.shape)])
                pixels.append(pair.reshape(2, -1)[:, rng.integers(own.size, size=each)])
                scores.append([image_scores(mixed(pair[0], pair[1], share)[None])[0] for share in SHARES])
            parts[f"{size}/{number}"] = {
                "labeled": [torch.from_numpy(one) for one in maps],
                "good_pixels": torch.from_numpy(np.concatenate(pixels, axis=1)),
                "good_scores": torch.tensor(np.array(scores)).reshape(-1, len(SHARES)),
            }
            on_part()
    found = {size: [parts[f"{size}/{number}"] for number in range(len(left_out))] for size in sizes}
    scored = {size: [one.numpy() for part in found[size] for one in part["labeled"]] for size in sizes}
    order = labeled[np.concatenate(left_out)] if left_out else labeled[:0]
    size = sizes[0]
    if len(sizes) > 1:
        size = max(sizes, key=lambda each: _own_size_f1(data, order, scored[each]))
    views = Views(data, size)
    if "all" not in parts:
        parts["all"] = taught(views, labeled).state_dict()
        on_part()
    share = UNKNOWN if recall is not None and len(good) else 0.0
    truths = [views.mask(i) for i in order]
    if not any(truth.any() for truth in truths):
        return Taught(parts["all"], size, share, dict.fromkeys(METHODS, LOWEST), None, (0, 0))
    odds = [log_odds(one) for one in scored[size]]
    distances = [distances_of(recall, (False, int(i)), one.shape) for i, one in zip(order, odds, strict=True)]
    of_good = np.concatenate([part["good_pixels"].numpy() for part in found[size]], axis=1)
    truth = pooled([*truths, np.zeros(of_good.shape[1], np.bool_)])
    evidence = pooled([*odds, of_good[0]]), pooled([*distances, of_good[1]])
    if recall is not None:
        share = choose_share(*evidence, truth)
    weight, _ = class_weights(torch.from_numpy(pooled([views.mask(i) for i in labeled])), "sqrt")
    thresholds = {
        "fused": bounded_threshold(mixed(*evidence, share), truth, weight),
        "segmenter": bounded_threshold(mixed(*evidence, 0), truth, weight),
        "memory": best_threshold(mixed(*evidence, 1), truth),
    }
    seen = [mixed(*pair, share) for pair in zip(odds, distances, strict=True)]
    f1 = pixel_prf(pooled(seen) >= thresholds["fused"], pooled(truths))[2]
    owner = [number for number, rows in enumerate(left_out) for _ in rows]
    good_scores = [part["good_scores"][:, SHARES.index(share)].numpy() for part in found[size]]
    alarms = [alarm_of(scores, config.false_alarm_rate) for scores in good_scores]
    called = [
        is_bad(image_scores(one[None]), one[None] >= thresholds["fused"], alarms[number])[0]
        for one, truth, number in zip(seen, truths, owner, strict=True)
        if truth.any()
    ]
    return Taught(parts["all"], size, share, thresholds, f1, (int(sum(called)), len(called)))


def bounded_threshold(probabilities: np.ndarray, truth: np.ndarray, weight: float) -> float:
    """The threshold of the best F1, but from `LOWEST` to w / (1 + w), for a few images say little outside.

    The best threshold of true probabilities is half the best F1, so at most a half (Lipton, Elkan and
    Naryanaswamy, Optimal Thresholding of Classifiers to Maximize F1 Measure, 2014). Probabilities learnt with
    the weight w on anomalous pixels are w / (1 + w) there; 0.5 they are where the true one is 1 / (1 + w).

    Args:
        probabilities: of images that were left out, (n, H, W).
        truth: bools of the same shape.
        weight: w.
    """
    highest = max(LOWEST, weight / (1 + weight))
    return float(np.clip(best_threshold(probabilities, truth), LOWEST, highest))


def candidates(data: AnomalyDataset, size: Size | Literal["auto"]) -> tuple[Size, ...]:
    """The working sizes to choose from: squares, and twice that for images that have no more.

    For larger images 512 pixels where they have more than that, and their own pixels.
    """
    if size != "auto":
        return (size,)
    longest, side = max(map(max, data.sizes)), data.images.shape[1]
    if not data.originals:
        return ("square",)
    if longest <= side:
        return ("square", 2 * side)
    return ("square", *((512,) if longest > 512 else ()), *(("own",) if longest <= MOST_OWN else ()))


def _own_size_f1(data: AnomalyDataset, indices: np.ndarray, scores: Sequence[np.ndarray]) -> float:
    """The best F1 of probabilities brought to the images' own sizes; 0 where nothing is anomalous."""
    truths = [data.originals[i].mask() for i in indices]
    if not any(truth.any() for truth in truths):
        return 0.0
    whole = pooled([resize_map(one, *truth.shape) for one, truth in zip(scores, truths, strict=True)])
    truth = pooled(truths)
    return pixel_prf(whole >= best_threshold(whole, truth), truth)[2]


def _half_cosine(step: int, steps: int) -> float:
    """From 1 down to 0, by name, so that a teacher can be pickled."""
    return (1 + math.cos(math.pi * step / steps)) / 2


def folds(masks: np.ndarray, count: int) -> list[np.ndarray]:
    """Which images of masks (n, H, W) to leave out together: defects in each part, and outside of it."""
    order = np.argsort([not mask.any() for mask in masks], kind="stable")
    parts = [np.sort(order[start::count]) for start in range(min(count, len(order)))]
    return [part for part in parts if np.delete(masks, part, axis=0).any()]
