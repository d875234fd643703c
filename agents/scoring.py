"""The end of a run: a detector, masks of the unlabelled images, figures and pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from nbs_env.common import checkpoint
from nbs_env.common.pictures import overlay_sheet
from nbs_env.data import AnomalyDataset, resize_map, resize_mask
from nbs_env.detect.alarms import alarm_threshold, image_scores
from nbs_env.detect.detector import AT_ONCE, Detector, resize_mask_map
from nbs_env.detect.metrics import best_threshold, counts_by_kind, evaluate, pixel_curve
from nbs_env.detect.teaching import Taught
from nbs_env.detect.views import Views
from nbs_env.env import PatchSamplingEnv

ENOUGH = 10
"""Good images from which on their scores say when an image is called bad: one odd one is not to decide it."""
TABLE = ("precision", "recall", "f1", "f1_within_2", "ap", "auroc", "aupro")


def finish(
    env: PatchSamplingEnv, directory: Path, history: list[dict[str, float]], taught: Taught | None
) -> dict[str, Any]:
    """Choose thresholds and CRF on the labelled images, make masks of the others, score them.

    Writes detector.pt (and nbs.pt, if a segmenter comes before it), masks/, probabilities/ (in the size that
    the detector sees), overlays.png, predictions.csv and, where an agent walked, walk.npz into `directory`;
    masks and probabilities are those of the detector's first method.

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
    detector.save_run(directory)
    shipped = "segmenter" if "segmenter" in detector.methods else "nbs_crf"
    views = Views(data, taught.size if taught else "square")
    shown = unlabeled[np.unique(np.linspace(0, len(unlabeled) - 1, 12).round().astype(int))]
    rows: list[dict[str, Any]] = []
    pictured, scored = [], []  # all that is kept: an image without a mask leaves nothing behind but its own
    own_size = np.zeros(3, np.int64)
    with tqdm(total=len(unlabeled), desc="masks", unit="image") as bar:
        for indices in np.split(unlabeled, range(AT_ONCE, len(unlabeled), AT_ONCE)):
            found, probabilities, masks = _outcomes(env, detector, indices, loss_threshold, views)
            scores = found[shipped][2]
            bad = detector.called_bad(scores, found[shipped][1], shipped)
            for i, index in enumerate(indices):
                mask = resize_mask_map(masks[i], *data.sizes[index])
                _save(data.names[index], probabilities[i], mask, directory)
                row = {
                    "image": data.names[index],
                    "image_score": f"{scores[i]:.9g}",  # nine digits are all that a float32 has
                    "highest_probability": f"{probabilities[i].max():.9g}",
                    "anomalous_share": f"{mask.mean():.6f}",
                    "bad": int(bad[i]),
                    "defective": int(data.masks[index].any()) if data.has_mask[index] else "",
                }
                rows.append(row)
                if data.originals and data.has_mask[index]:
                    truth = data.originals[index].mask()
                    own_size += (mask & truth).sum(), mask.sum(), truth.sum()
            pictured.append(_some(found, np.isin(indices, shown))[shipped])
            scored.append(_some(found, data.has_mask[indices]))
            bar.update(len(indices))
    sheet = overlays(data, shown, *map(np.concatenate, zip(*(part[:2] for part in pictured), strict=True)))
    checkpoint.save_picture(np.asarray(sheet), directory / "overlays.png")
    checkpoint.save_csv(rows, directory / "predictions.csv")
    save_walk(env.task.visits, data.names, directory)
    known = unlabeled[data.has_mask[unlabeled]]
    truth, data_kinds = data.masks[known], [data.kinds[i] for i in known]
    figures: dict[str, dict[str, float | None]] = {}
    kinds, called_bad, curve = {}, {}, None
    for name in scored[0]:
        scores, predicted, by_image = map(np.concatenate, zip(*(part[name] for part in scored), strict=True))
        figures[name] = evaluate(scores, predicted, by_image, truth) if len(known) else {}
        if len(known):
            kinds[name] = counts_by_kind(predicted, truth, data_kinds)
            if name in detector.methods:
                threshold = detector.threshold if name == "nbs" else detector.segmenter_threshold
                curve = curve or pixel_curve(scores, truth, threshold)
            bad = detector.called_bad(by_image, predicted, name)
            defective = truth.any(axis=(1, 2))
            sides = {"defective": bad[defective], "good": bad[~defective]}
            called_bad[name] = {side: [int(part.sum()), len(part)] for side, part in sides.items()}
    hits, *marked = own_size.tolist()
    return {
        "dataset": data.name,
        "labeled": [data.names[i] for i in labeled],
        "labeled_kinds": sorted({data.kinds[i] for i in labeled}),
        "scored_images": len(known),
        "masks": shipped,
        "threshold": detector.threshold,
        "segmenter_threshold": taught and taught.threshold,
        "segmenter_f1_left_out": taught and taught.f1,
        "segmenter_size": taught and taught.size,
        "image_threshold": detector.image_threshold,
        "false_alarms": false_alarms,
        "own_size_f1": 2 * hits / sum(marked) if sum(marked) else None,
        "methods": figures,
        "called_bad": called_bad,
        "kinds": kinds,
        "curve": curve,
        "history": history,
    }


Outcomes = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Scores and masks (n, S, S) and image scores (n,) of each method, all in squares, so that they compare."""


def assemble(env: PatchSamplingEnv, taught: Taught | None = None, alarm: float | None = None) -> Detector:
    """The detector of what the environment's learner and a segmenter have learnt, not calibrated."""
    data, learner = env.dataset, env.learner
    return Detector(
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
        segmenter_size=taught.size if taught else "square",
        image_threshold=alarm,
    )


def _detector(env: PatchSamplingEnv, taught: Taught | None, alarm: float | None) -> tuple[Detector, float]:
    """The detector, calibrated on the labelled images, and the threshold of their last losses."""
    data, labeled, detector = env.dataset, env.labeled, assemble(env, taught, alarm)
    if not env.learner.snapshots:
        return detector, 0.0
    probabilities, last_losses = profiled(env, detector, labeled)
    detector.calibrate(probabilities, data.images[labeled], data.masks[labeled])
    return detector, best_threshold(last_losses, data.masks[labeled])


def _alarms(env: PatchSamplingEnv, taught: Taught | None) -> tuple[float | None, ...]:
    """The image score from which an image is called bad, and the interval of false alarms; None: unknown."""
    if taught is None or len(taught.good_scores) < ENOUGH:
        return None, None, None
    return alarm_threshold(taught.good_scores, env.config.false_alarm_rate)


def profiled(env: PatchSamplingEnv, detector: Detector, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities from loss profiles, and last losses of RGB, (n, H, W), which are the best snapshot's."""
    found, last = [], env.config.profile_length - 1
    for start in range(0, len(indices), AT_ONCE):
        parts = env.learner.best_profiles(indices[start : start + AT_ONCE])
        found.append((detector.from_profiles(parts), parts[0][:, last].cpu().numpy()))
    probabilities, last_losses = map(np.concatenate, zip(*found, strict=True))
    return probabilities, last_losses


def _outcomes(
    env: PatchSamplingEnv, detector: Detector, indices: np.ndarray, loss_threshold: float, views: Views
) -> tuple[Outcomes, Sequence[np.ndarray], Sequence[np.ndarray]]:
    """What each method says of some images; the first one's probabilities and masks (h, w) as it works."""
    images, side = env.dataset.images[indices], env.config.image_size
    found: Outcomes = {}
    probabilities: Sequence[np.ndarray] = ()
    masks: Sequence[np.ndarray] = ()
    if "segmenter" in detector.methods:
        working = [images] if views.size == "square" else [views.image(i)[None] for i in indices]
        parts = [detector.probabilities(some, "segmenter") for some in working]
        masks = [mask for part in parts for mask in detector.masks(part, images, "segmenter")]
        probabilities = [probability for part in parts for probability in part]
        scores = np.stack([resize_map(probability, side, side) for probability in probabilities])
        squares = masks if views.size == "square" else [resize_mask(mask, side) for mask in masks]
        by_image = np.concatenate([image_scores(part) for part in parts])
        found["segmenter"] = scores, np.stack(squares), by_image
    if "nbs" in detector.methods:
        scores, losses = profiled(env, detector, indices)
        by_image = image_scores(scores)
        found["nbs"] = scores, scores >= detector.threshold, by_image
        found["nbs_crf"] = scores, detector.masks(scores, images), by_image
        found["final_loss"] = losses, losses >= loss_threshold, image_scores(losses)
    if "segmenter" not in found:
        probabilities, masks = list(found["nbs_crf"][0]), list(found["nbs_crf"][1])
    return found, probabilities, masks


def _save(name: str, probability: np.ndarray, mask: np.ndarray, directory: Path) -> None:
    """Write probability and mask of one image as pictures."""
    checkpoint.save_picture(mask, directory / "masks" / f"{name}.png")
    levels = (probability.clip(0, 1) * 255).round().astype(np.uint8)
    checkpoint.save_picture(levels, directory / "probabilities" / f"{name}.png")


def _some(found: Outcomes, rows: np.ndarray) -> Outcomes:
    cut = {id(scores): scores[rows] for scores, *_ in found.values()}  # two methods share theirs
    return {name: (cut[id(scores)], masks[rows], each[rows]) for name, (scores, masks, each) in found.items()}


def overlays(
    data: AnomalyDataset, indices: np.ndarray, probabilities: np.ndarray, masks: np.ndarray
) -> Image.Image:
    """Image, probability, mask and truth of the images `indices`, row by row."""
    names = [data.names[i] for i in indices]
    return overlay_sheet(data.images[indices], probabilities, masks, data.masks[indices], names)


def table(metrics: dict[str, Any]) -> str:
    """The figures of metrics.json as lines of text."""
    lines = [f"{'':12}" + "".join(f"{name:>12}" for name in (*TABLE, "image_auroc"))]
    if not metrics["scored_images"]:
        lines = ["no figures: the truth of no unlabelled image is known"]
    for method, figures in metrics["methods"].items() if metrics["scored_images"] else ():
        values = [figures.get(f"pixel_{name}") for name in TABLE] + [figures.get("image_auroc")]
        cells = "".join(f"{'-' if v is None else f'{v:.3f}':>12}" for v in values)
        lines.append(f"{method:12}{cells}")
    if metrics["scored_images"]:
        lines.append(f"on {metrics['scored_images']} unlabelled images with known masks")
    left_out = metrics["segmenter_f1_left_out"]
    why = "" if left_out is None else f" (F1 {left_out:.3f} on labelled images that it had not seen)"
    own = metrics["own_size_f1"]
    size = "" if own is None else f"; in the images' own size F1 {own:.3f}"
    lines.append(f"masks/ has those of {metrics['masks']}{why}{size}")
    return "\n".join(lines)


def save_walk(visits: np.ndarray, names: Sequence[str], directory: Path) -> None:
    """Write walk.npz: names and counts (k, cells, cells) of the images that were walked over, if any were."""
    where = np.flatnonzero(visits.any(axis=(1, 2))).tolist()
    if len(where):
        found, file = io.BytesIO(), directory / "walk.npz"
        np.savez_compressed(found, names=np.array([names[i] for i in where]), visits=visits[where])
        checkpoint.replace_file(file, lambda part: part.write_bytes(found.getvalue()))
