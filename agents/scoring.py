"""The end of a run: a detector, masks of the unlabelled images, figures and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from nbs_env import checkpoint
from nbs_env.data import AnomalyDataset
from nbs_env.detector import AT_ONCE, Detector, image_scores, resize_map
from nbs_env.env import PatchSamplingEnv
from nbs_env.metrics import best_threshold, counts_by_kind, evaluate
from nbs_env.pictures import overlay_sheet

TABLE = ("precision", "recall", "f1", "ap", "auroc", "aupro")


def finish(env: PatchSamplingEnv, directory: Path, history: list[dict[str, float]]) -> dict[str, Any]:
    """Choose thresholds and CRF on the labelled images, make masks of the others, score them.

    Writes detector.pt, masks/ and overlays.png into `directory`.

    Args:
        env: after its last update.
        directory: the run directory.
        history: a row for each episode.

    Returns:
        The content of metrics.json.
    """
    data, learner = env.dataset, env.learner
    labeled, unlabeled = env.labeled, env.unlabeled
    detector = Detector(
        [snapshot.ring for snapshot in learner.snapshots],
        [snapshot.predictor or learner.predictor.state_dict() for snapshot in learner.snapshots],
        env.config.image_size,
        env.config.precision,
        learner.device,
        white=65535 if data.white == 255 else data.white,  # no image of the training had 16 bit
        symmetries=env.config.mask_symmetries,
    )
    probabilities, last_losses = map(np.concatenate, zip(*_measure(env, detector, labeled), strict=True))
    detector.calibrate(probabilities, data.images[labeled], data.masks[labeled])
    loss_threshold = best_threshold(last_losses, data.masks[labeled])
    detector.save(directory / "detector.pt")
    shown = unlabeled[np.unique(np.linspace(0, len(unlabeled) - 1, 12).round().astype(int))]
    pictured, scored = [], []  # all that is kept: an image without a mask leaves nothing behind but its own
    start = 0
    for probabilities, last_losses in _measure(env, detector, unlabeled):
        indices = unlabeled[start : start + len(probabilities)]
        start += len(indices)
        masks = detector.masks(probabilities, data.images[indices])
        for index, mask in zip(indices, masks, strict=True):
            mask = resize_map(mask.astype(np.float32), *data.sizes[index]) >= 0.5
            checkpoint.save_picture(mask, directory / "masks" / f"{data.names[index]}.png")
        here = np.isin(indices, shown)
        pictured.append((probabilities[here], masks[here]))
        here = data.has_mask[indices]
        scored.append((probabilities[here], masks[here], last_losses[here]))
    sheet = overlays(data, shown, *map(np.concatenate, zip(*pictured, strict=True)))
    checkpoint.save_picture(np.asarray(sheet), directory / "overlays.png")
    probabilities, masks, last_losses = map(np.concatenate, zip(*scored, strict=True))
    known = unlabeled[data.has_mask[unlabeled]]
    truth, data_kinds = data.masks[known], [data.kinds[i] for i in known]
    methods = {
        "nbs": (probabilities, probabilities >= detector.threshold),
        "nbs_crf": (probabilities, masks),
        "final_loss": (last_losses, last_losses >= loss_threshold),
    }
    figures: dict[str, dict[str, float | None]] = {name: {} for name in methods}
    kinds = {}
    for name, (scores, predicted) in methods.items() if len(known) else ():
        figures[name] = evaluate(scores, predicted, image_scores(scores), truth)
        kinds[name] = counts_by_kind(predicted, truth, data_kinds)
    return {
        "dataset": data.name,
        "labeled": [data.names[i] for i in labeled],
        "labeled_kinds": sorted({data.kinds[i] for i in labeled}),
        "scored_images": len(known),
        "threshold": detector.threshold,
        "methods": figures,
        "kinds": kinds,
        "history": history,
    }


def _measure(
    env: PatchSamplingEnv, detector: Detector, indices: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Probabilities and last losses (n, H, W), a few images at a time; the losses are the best snapshot's."""
    with tqdm(total=len(indices), desc="masks", unit="image") as bar:
        for start in range(0, len(indices), AT_ONCE):
            some = indices[start : start + AT_ONCE]
            parts = env.learner.best_profiles(some)
            yield detector.from_profiles(parts), parts[0][:, -1].cpu().numpy()
            bar.update(len(some))


def overlays(
    data: AnomalyDataset, indices: np.ndarray, probabilities: np.ndarray, masks: np.ndarray
) -> Image.Image:
    """Image, probability, mask and truth of the images `indices`, row by row."""
    names = [data.names[i] for i in indices]
    return overlay_sheet(data.images[indices], probabilities, masks, data.masks[indices], names)


def table(metrics: dict[str, Any]) -> str:
    """The figures of metrics.json as lines of text."""
    lines = [f"{'':12}" + "".join(f"{name:>12}" for name in (*TABLE, "image_auroc"))]
    for method, figures in metrics["methods"].items():
        values = [figures.get(f"pixel_{name}") for name in TABLE] + [figures.get("image_auroc")]
        cells = "".join(f"{'-' if v is None else f'{v:.3f}':>12}" for v in values)
        lines.append(f"{method:12}{cells}")
    lines.append(f"on {metrics['scored_images']} unlabelled images with known masks")
    return "\n".join(lines)
