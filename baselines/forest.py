"""Random forest on the labelled pixels, a strong reference beside the thesis's: `python -m baselines.forest`.

The trainable segmentation of scikit-image: its multi-scale features, scikit-learn's forest. Neither needs
weights from elsewhere, as the pre-trained detectors of today's libraries do. Its threshold is chosen on
labelled images that were left out, one at a time where there are five.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier

from baselines.segmentation import Problem, SegmentationArgs, command, leave_some_out, prepare, score
from nbs_env.common.errors import RunError
from nbs_env.common.settings import Above, AtLeast, Count, Share, check_types
from nbs_env.detect.metrics import best_threshold


@dataclass(frozen=True)
class ForestConfig:
    """Features and forest, as in scikit-image's gallery."""

    largest_scale: Annotated[float, AtLeast(1)] = 16.0
    """Largest standard deviation in pixels of the features' Gaussians; the smallest is 0.5."""
    trees: Count = 50
    """Trees."""
    depth: Count = 10
    """Depth of a tree at most."""
    sampled_share: Annotated[float, Above(0), Share()] = 0.05
    """Share of the labelled pixels that a tree sees."""

    def __post_init__(self) -> None:
        check_types(self, RunError)


def features(image: np.ndarray, config: ForestConfig) -> np.ndarray:
    """Intensity, edges and texture at several scales (S, S, F) of an image (S, S, 3) uint8."""
    from skimage.feature import multiscale_basic_features

    return multiscale_basic_features(image, sigma_max=config.largest_scale, channel_axis=-1)


def train(
    extracted: list[np.ndarray], masks: np.ndarray, config: ForestConfig, seed: int
) -> RandomForestClassifier:
    """A forest that has learnt from the features (S, S, F) of images and their masks (n, S, S)."""
    model = RandomForestClassifier(
        config.trees,
        max_depth=config.depth,
        max_samples=config.sampled_share,
        class_weight="balanced_subsample",
        n_jobs=torch.get_num_threads(),
        random_state=seed,
    )
    return model.fit(np.concatenate([each.reshape(-1, each.shape[2]) for each in extracted]), masks.ravel())


def probabilities(model: RandomForestClassifier, extracted: np.ndarray) -> np.ndarray:
    """(S, S) float32 of an image's features (S, S, F)."""
    flat = model.predict_proba(extracted.reshape(-1, extracted.shape[2]))[:, 1]
    return flat.reshape(extracted.shape[:2]).astype(np.float32)


def left_out_threshold(
    extracted: list[np.ndarray], masks: np.ndarray, config: ForestConfig, seed: int
) -> float:
    """The threshold of the best F1 on images that were left out; 0.5 where none can be."""

    def learn(kept: np.ndarray, part: np.ndarray) -> np.ndarray:
        model = train([extracted[k] for k in kept], masks[kept], config, seed)
        return np.stack([probabilities(model, extracted[k]) for k in part])

    scores, truth = leave_some_out(masks, learn)
    return best_threshold(np.concatenate(scores), truth) if truth.any() else 0.5


@dataclass(frozen=True)
class Args(SegmentationArgs):
    """What to train on, and where to put it; the split is that of `train.py` with the same seed."""

    model: ForestConfig = field(default_factory=ForestConfig)
    """Features and forest."""


def run(args: Args) -> dict[str, Any]:
    """Train, score, and write the results; the content of metrics.json."""
    if importlib.util.find_spec("skimage") is None:
        raise RunError("the forest needs scikit-image; python -m pip install -e '.[forest]'")
    with prepare(args, "forest") as problem:
        return fit(problem, args.model, args.seed)


def fit(problem: Problem, config: ForestConfig, seed: int) -> dict[str, Any]:
    """Train on the labelled images, and score the others."""
    masks = problem.data.masks[problem.labeled]
    extracted = [features(image, config) for image in problem.data.images[problem.labeled]]
    threshold = left_out_threshold(extracted, masks, config, seed)
    model = train(extracted, masks, config, seed)

    def predict(images: np.ndarray) -> np.ndarray:
        return np.stack([probabilities(model, features(image, config)) for image in images])

    return score(problem, "forest", predict, threshold)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    command(Args, run, __doc__, argv)


if __name__ == "__main__":
    main()
