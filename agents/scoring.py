"""The end of a run: a detector, masks of the unlabelled images, figures and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from nbs_env import checkpoint
from nbs_env.data import AnomalyDataset
from nbs_env.detect.alarms import alarm_threshold, image_scores
from nbs_env.detect.teaching import Taught
from nbs_env.detector import AT_ONCE, Detector, resize_mask_map
from nbs_env.env import PatchSamplingEnv
from nbs_env.metrics import best_threshold, counts_by_kind, evaluate
from nbs_env.pictures import overlay_sheet
from nbs_env.results import pixel_curve, save_walk

ENOUGH = 10
"""Good images from which on their scores say when an image is called bad: one odd one is not to decide it."""
TABLE = ("precision", "recall", "f1", "f1_within_2", "ap", "auroc", "aupro")


def finish(
    env: PatchSamplingEnv, directory: Path, history: list[dict[str, float]], taught: Taught | None
) -> dict[str, Any]:
    """Choose thresholds and CRF on the labelled images, make masks of the others, score them.

    Writes detector.pt, masks/, probabilities/ (in the size that the detector sees), overlays.png,
    predictions.csv and, where an agent walked, walk.npz into `directory`; masks and probabilities are those
    of the detector's first method.

    Args:
        env: after its last update.
        directory: the run directory.
        history: a row for each episode.
        taught: a segmenter.

    Returns:
        The content of metrics.json.
    """
    data, labeled, unlabeled = env.dataset, env.labeled, env.unlabeled
    alarm, *false_alarms = _alarms(env, taught)
    detector, loss_threshold = _detector(env, taught, alarm)
    detector.save(directory / "detector.pt")
    shipped = "segmenter" if "segmenter" in detector.methods else "nbs_crf"
    shown = unlabeled[np.unique(np.linspace(0, len(unlabeled) - 1, 12).round().astype(int))]
    rows: list[dict[str, Any]] = []
    pictured, scored = [], []  # all that is kept: an image without a mask leaves nothing behind but its own
    with tqdm(total=len(unlabeled), desc="masks", unit="image") as bar:
        for indices in np.split(unlabeled, range(AT_ONCE, len(unlabeled), AT_ONCE)):
            found = _outcomes(env, detector, indices, loss_threshold)
            probabilities, masks = found[shipped]
            scores = image_scores(probabilities)
            bad = detector.called_bad(scores, masks, shipped)
            for i, index in enumerate(indices):
                name, mask = data.names[index], resize_mask_map(masks[i], *data.sizes[index])
                checkpoint.save_picture(mask, directory / "masks" / f"{name}.png")
                levels = (probabilities[i].clip(0, 1) * 255).round().astype(np.uint8)
                checkpoint.save_picture(levels, directory / "probabilities" / f"{name}.png")
                row = {
                    "image": name,
                    "image_score": f"{scores[i]:.9g}",  # nine digits are all that a float32 has
                    "highest_probability": f"{probabilities[i].max():.9g}",
                    "anomalous_share": f"{mask.mean():.6f}",
                    "bad": int(bad[i]),
                    "defective": int(data.masks[index].any()) if data.has_mask[index] else "",
                }
                rows.append(row)
            pictured.append(_some(found, np.isin(indices, shown))[shipped])
            scored.append(_some(found, data.has_mask[indices]))
            bar.update(len(indices))
    sheet = overlays(data, shown, *map(np.concatenate, zip(*pictured, strict=True)))
    checkpoint.save_picture(np.asarray(sheet), directory / "overlays.png")
    checkpoint.save_csv(rows, directory / "predictions.csv")
    save_walk(env.task.visits, data.names, directory)
    known = unlabeled[data.has_mask[unlabeled]]
    truth, data_kinds = data.masks[known], [data.kinds[i] for i in known]
    figures: dict[str, dict[str, float | None]] = {}
    kinds, called_bad, curve = {}, {}, None
    for name in scored[0]:
        scores, predicted = map(np.concatenate, zip(*(part[name] for part in scored), strict=True))
        figures[name] = evaluate(scores, predicted, image_scores(scores), truth) if len(known) else {}
        if len(known):
            kinds[name] = counts_by_kind(predicted, truth, data_kinds)
            if name in detector.methods:
                threshold = detector.threshold if name == "nbs" else detector.segmenter_threshold
                curve = curve or pixel_curve(scores, truth, threshold)
            bad = detector.called_bad(image_scores(scores), predicted, name)
            defective = truth.any(axis=(1, 2))
            sides = {"defective": bad[defective], "good": bad[~defective]}
            called_bad[name] = {side: [int(part.sum()), len(part)] for side, part in sides.items()}
    return {
        "dataset": data.name,
        "labeled": [data.names[i] for i in labeled],
        "labeled_kinds": sorted({data.kinds[i] for i in labeled}),
        "scored_images": len(known),
        "masks": shipped,
        "threshold": detector.threshold,
        "segmenter_threshold": taught and taught.threshold,
        "segmenter_f1_left_out": taught and taught.f1,
        "image_threshold": detector.image_threshold,
        "false_alarms": false_alarms,
        "methods": figures,
        "called_bad": called_bad,
        "kinds": kinds,
        "curve": curve,
        "history": history,
    }


Outcomes = dict[str, tuple[np.ndarray, np.ndarray]]
"""Scores and masks (n, H, W) of each method."""


def _detector(env: PatchSamplingEnv, taught: Taught | None, alarm: float | None) -> tuple[Detector, float]:
    """The detector, calibrated on the labelled images, and the threshold of their last losses."""
    data, learner, labeled = env.dataset, env.learner, env.labeled
    detector = Detector(
        [snapshot.ring for snapshot in learner.snapshots],
        [snapshot.predictor or learner.predictor.state_dict() for snapshot in learner.snapshots],
        env.config.image_size,
        env.config.precision,
        learner.device,
        white=65535 if data.white == 255 else data.white,  # no image of the training had 16 bit
        symmetries=env.config.mask_symmetries,
        segmenter=taught.weights if taught else None,
        segmenter_threshold=taught.threshold if taught else 0.5,
        segmenter_symmetries=env.config.segmenter_symmetries,
        image_threshold=alarm,
    )
    if not learner.snapshots:
        return detector, 0.0
    parts = [
        _profiled(env, detector, labeled[start : start + AT_ONCE])
        for start in range(0, len(labeled), AT_ONCE)
    ]
    probabilities, last_losses = map(np.concatenate, zip(*parts, strict=True))
    detector.calibrate(probabilities, data.images[labeled], data.masks[labeled])
    return detector, best_threshold(last_losses, data.masks[labeled])


def _alarms(env: PatchSamplingEnv, taught: Taught | None) -> tuple[float | None, ...]:
    """The image score from which an image is called bad, and the interval of false alarms; None: unknown."""
    if taught is None or len(taught.good_scores) < ENOUGH:
        return None, None, None
    return alarm_threshold(taught.good_scores, env.config.false_alarm_rate)


def _profiled(
    env: PatchSamplingEnv, detector: Detector, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities from loss profiles, and last losses, (n, H, W); the losses are the best snapshot's."""
    parts = env.learner.best_profiles(indices)
    return detector.from_profiles(parts), parts[0][:, -1].cpu().numpy()


def _outcomes(
    env: PatchSamplingEnv, detector: Detector, indices: np.ndarray, loss_threshold: float
) -> Outcomes:
    """What each method says of some images, the detector's first method first."""
    images, found = env.dataset.images[indices], {}
    if "segmenter" in detector.methods:
        scores = detector.probabilities(images, "segmenter")
        found["segmenter"] = scores, detector.masks(scores, images, "segmenter")
    if "nbs" in detector.methods:
        scores, losses = _profiled(env, detector, indices)
        found["nbs"] = scores, scores >= detector.threshold
        found["nbs_crf"] = scores, detector.masks(scores, images)
        found["final_loss"] = losses, losses >= loss_threshold
    return found


def _some(found: Outcomes, rows: np.ndarray) -> Outcomes:
    cut = {id(scores): scores[rows] for scores, _ in found.values()}  # two methods share theirs
    return {name: (cut[id(scores)], masks[rows]) for name, (scores, masks) in found.items()}


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
    left_out = metrics["segmenter_f1_left_out"]
    why = "" if left_out is None else f" (F1 {left_out:.3f} on labelled images that it had not seen)"
    lines.append(f"masks/ has those of {metrics['masks']}{why}")
    return "\n".join(lines)
