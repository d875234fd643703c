"""From labelled images to a detector and masks: teach, calibrate, predict, score; with or without a game."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from nbs_env.common import checkpoint
from nbs_env.common.networks import compute_dtype
from nbs_env.common.pictures import overlay_sheet
from nbs_env.data import AnomalyDataset, resize_map, resize_mask
from nbs_env.detect.alarms import alarm_of, expectation, image_scores, is_bad
from nbs_env.detect.config import DetectorConfig
from nbs_env.detect.detector import AT_ONCE, Detector, Judgement, resize_mask_map
from nbs_env.detect.fusion import mixed
from nbs_env.detect.metrics import best_threshold, counts_by_kind, evaluate, pixel_curve
from nbs_env.detect.recall import Key, Recall, distances_of
from nbs_env.detect.segmenter import Segmenter
from nbs_env.detect.teaching import Taught, candidates, folds, teach
from nbs_env.detect.views import Views
from nbs_env.profiles import Snapshot

RARE, EACH = 0.0005, 16
"""Share of known-good pixels that may count as anomalous where no defect says so; one in how many is seen."""
MOST_SCORED = 200
"""Good images at most whose scores say how high a good image's score may be."""
TABLE = ("precision", "recall", "f1", "f1_within_2", "ap", "auroc", "aupro")
Outcomes = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Scores and masks (n, S, S) and image scores (n,) of each method, all in squares, so that they compare."""


@dataclass(frozen=True)
class Played:
    """What a game leaves to the detector.

    Attributes:
        snapshots: of `Learner.kept`, the best first; none without a game.
        mask_symmetries: whether their probabilities are averaged over the symmetries of the square.
        history: a row of figures for each episode.
        seconds: how long it took.
    """

    snapshots: Sequence[Snapshot] = ()
    mask_symmetries: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def finish(
    data: AnomalyDataset,
    labeled: np.ndarray,
    directory: Path,
    config: DetectorConfig,
    seed: int,
    device: torch.device,
    played: Played,
) -> dict[str, Any]:
    """Teach a segmenter, choose thresholds and CRF on the labelled images, mask the others, and score that.

    Writes teaching.pt (what is taught so far: a part that was complete when a run was killed is not done
    again), detector.pt (and nbs.pt, if a segmenter comes before a game's snapshots), masks/, probabilities/
    (in the size that the detector sees), overlays.png, predictions.csv and timing.json into `directory`;
    masks and probabilities are those of the detector's first method.

    Args:
        data: all images; the masks of unlabelled ones serve for the figures alone.
        labeled: indices of the labelled images.
        directory: the run directory.
        config: the detector's settings.
        seed: of all that is taught.
        device: where it computes.
        played: what a game has left; `Played()` without one.

    Returns:
        The content of metrics.json.
    """
    start = time.perf_counter()
    enough = config.memory_size and len(data.good) + len(labeled) > 1
    recall = Recall(data, labeled, config.memory_size, seed, device) if enough else None
    filling = time.perf_counter()
    taught = _teach(data, labeled, directory / "teaching.pt", config, seed, device, recall)
    teaching = time.perf_counter()
    detector, loss_threshold = _detector(data, labeled, config, device, played, taught, recall)
    if taught or recall:
        _calibrate(detector, data, labeled, config, seed, recall, taught)
    detector.save_run(directory)
    figures = _masks(data, labeled, directory, detector, loss_threshold)
    seconds = {
        "training_seconds": played.seconds,
        "memory_seconds": filling - start,
        "teaching_seconds": teaching - filling,
        "masks_seconds": time.perf_counter() - teaching,
    }
    checkpoint.save_json(seconds, directory / "timing.json")
    return {
        "dataset": data.name,
        "labeled": [data.names[i] for i in labeled],
        "labeled_kinds": sorted({data.kinds[i] for i in labeled}),
        "thresholds": detector.thresholds,
        "alarms": detector.alarms,
        "expected": detector.expected,
        "share": detector.share,
        "f1_left_out": taught and taught.f1,
        "segmenter_size": taught and taught.size,
        **figures,
        "history": played.history,
    }


def _teach(
    data: AnomalyDataset,
    labeled: np.ndarray,
    file: Path,
    config: DetectorConfig,
    seed: int,
    device: torch.device,
    recall: Recall | None,
) -> Taught | None:
    """Teach the segmenter, if there is one to be taught, going on with the parts that `file` holds."""
    if not config.segmenter_steps or not data.masks[labeled].any():
        return None
    parts: dict[str, Any] = {}
    if file.is_file():
        with checkpoint.unpacking(file):
            parts = checkpoint.load(file)
            Segmenter().load_state_dict(parts.get("all", Segmenter().state_dict()))
            kept = {"labeled", "good_pixels", "good_scores"}
            assert all(part.keys() == kept for name, part in parts.items() if name != "all")
    left_out = len(folds(data.masks[labeled], config.segmenter_folds))
    rounds = left_out * len(candidates(data, config.segmenter_size)) + 1 - len(parts)
    dtype = compute_dtype(config.precision, device)
    with tqdm(total=rounds * config.segmenter_steps, desc="segmenter", unit="step") as bar:
        return teach(
            data,
            labeled,
            config,
            seed,
            device,
            dtype,
            recall,
            parts,
            on_step=lambda loss: bar.update(),
            on_part=lambda: checkpoint.save(parts, file),
        )


def _detector(
    data: AnomalyDataset,
    labeled: np.ndarray,
    config: DetectorConfig,
    device: torch.device,
    played: Played,
    taught: Taught | None,
    recall: Recall | None,
) -> tuple[Detector, float]:
    """The detector, and the threshold of last losses; both calibrated on the labelled images."""
    detector = Detector(
        [snapshot.ring for snapshot in played.snapshots],
        [snapshot.predictor for snapshot in played.snapshots if snapshot.predictor is not None],
        config.image_size,
        config.precision,
        device,
        white=data.white,
        symmetries=played.mask_symmetries,
        segmenter=taught.weights if taught else None,
        segmenter_symmetries=config.segmenter_symmetries,
        segmenter_size=taught.size if taught else "square",
        memory=recall.memory.weights() if recall else None,
        share=taught.share if taught else 1.0,
        thresholds=taught.thresholds if taught else None,
    )
    if "nbs" not in detector.methods:
        return detector, 0.0
    batches = np.split(labeled, range(AT_ONCE, len(labeled), AT_ONCE))
    parts = [_profiled(detector, data.images[indices]) for indices in batches]
    probabilities, last_losses = map(np.concatenate, zip(*parts, strict=True))
    detector.calibrate(probabilities, data.images[labeled], data.masks[labeled])
    return detector, best_threshold(last_losses, data.masks[labeled])


def _calibrate(
    detector: Detector,
    data: AnomalyDataset,
    labeled: np.ndarray,
    config: DetectorConfig,
    seed: int,
    recall: Recall | None,
    taught: Taught | None,
) -> None:
    """Say from which score an image is bad, by images known to be good that the detector has not learnt from.

    What an image gave to the memory does not count for itself, so that it is as new as any. Labelled ones are
    not new to a segmenter. Where no left-out defect has chosen a pixel's threshold, `RARE` good pixels reach
    it, or none where there are too few images to tell.
    """
    methods = [method for method in detector.methods if method != "nbs"]
    keys: list[Key] = [(True, int(i)) for i in np.random.default_rng(seed).permutation(len(data.good))]
    if recall:  # first those that the memory has nothing of
        keys.sort(key=recall.new, reverse=True)
    keys = keys[:MOST_SCORED]
    if taught is None:
        keys += [(False, int(i)) for i in labeled if not data.masks[i].any()]
    views = Views(data, detector.segmenter_size)
    scores: dict[str, list[float]] = {method: [] for method in methods}
    pixels: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    for good, index in keys:
        image = (views.good if good else views.image)(index)[None]
        odds = detector.evidence(image, None, ("segmenter",))[0][0] if taught else np.zeros(1, np.float32)
        distances = distances_of(recall, (good, index), image.shape[1:3])
        for method in methods:
            probabilities = mixed(odds, distances, detector.share_of(method))[None]
            scores[method].append(float(image_scores(probabilities)[0]))
            pixels[method].append(np.append(probabilities.ravel()[::EACH], probabilities.max()))
    for method in methods:
        alarm = alarm_of(np.array(scores[method]), config.false_alarm_rate)
        if alarm is not None:
            detector.alarms[method] = alarm
        chosen = taught is not None and (taught.f1 is not None or not detector.share_of(method))
        if keys and not chosen:
            every = np.concatenate(pixels[method])
            rare = every.max() if alarm is None else np.quantile(every, 1 - RARE)
            detector.thresholds[method] = float(np.nextafter(np.float32(rare), np.float32(1)))
    shipped = methods[0]
    limit = detector.alarms.get(shipped)
    marked = np.array([one.max() for one in pixels[shipped]]) >= detector.threshold_of(shipped)
    called = marked if limit is None else np.array(scores[shipped]) >= limit
    detector.expected = {
        "rate": config.false_alarm_rate,
        "good": (int(called.sum()), len(keys)),
        "defective": taught.found if taught else (0, 0),
    }


def _profiled(detector: Detector, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities from loss profiles, and last losses, (n, S, S), which are the best snapshot's."""
    profiles = detector.profiles(images)
    return detector.from_profiles(profiles), profiles[0][:, -1].cpu().numpy()


def _masks(
    data: AnomalyDataset, labeled: np.ndarray, directory: Path, detector: Detector, loss_threshold: float
) -> dict[str, Any]:
    """Write what there is of each unlabelled image; the figures of metrics.json that come of them."""
    unlabeled = np.setdiff1d(np.arange(len(data)), labeled)
    shipped = "nbs_crf" if detector.methods[0] == "nbs" else detector.methods[0]
    views = Views(data, detector.segmenter_size)
    shown = unlabeled[np.unique(np.linspace(0, len(unlabeled) - 1, 12).round().astype(int))]
    rows: list[dict[str, Any]] = []
    pictured, scored = [], []  # all that is kept: an image without a mask leaves nothing behind but its own
    own_size = np.zeros(3, np.int64)
    with tqdm(total=len(unlabeled), desc="masks", unit="image") as bar:
        for indices in np.split(unlabeled, range(AT_ONCE, len(unlabeled), AT_ONCE)):
            found, probabilities, masks = _outcomes(detector, data, indices, loss_threshold, views)
            scores = found[shipped][2]
            bad = is_bad(scores, found[shipped][1], detector.alarms.get(shipped))
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
    hits, *marked = own_size.tolist()
    whole: Any = {
        name: tuple(map(np.concatenate, zip(*(p[name] for p in scored), strict=True))) for name in scored[0]
    }
    return {
        "scored_images": int(data.has_mask[unlabeled].sum()),
        "masks": shipped,
        "own_size_f1": 2 * hits / sum(marked) if sum(marked) else None,
        **_figures(data, unlabeled[data.has_mask[unlabeled]], detector, whole),
    }


def _outcomes(
    detector: Detector, data: AnomalyDataset, indices: np.ndarray, loss_threshold: float, views: Views
) -> tuple[Outcomes, Sequence[np.ndarray], Sequence[np.ndarray]]:
    """What each method says of some images; the first one's probabilities and masks (h, w) as it works."""
    images, side = data.images[indices], detector.image_size
    found: Outcomes = {}
    probabilities, masks = [], []
    methods = [method for method in detector.methods if method != "nbs"]
    parts = [images] if views.size == "square" else [views.image(i)[None] for i in indices]
    judged: dict[str, list[Judgement]] = {method: [] for method in methods}
    for number, part in enumerate(parts if methods else ()):
        evidence = detector.evidence(
            part, images if views.size == "square" else images[number][None], methods
        )
        for method in methods:
            judged[method].append(detector.judge(mixed(*evidence, detector.share_of(method)), part, method))
    for method, some in judged.items():
        maps = [one for part in some for one in part.probabilities]
        marks = [one for part in some for one in part.masks]
        found[method] = (
            np.stack([resize_map(one, side, side) for one in maps]),
            np.stack([resize_mask(one, side) for one in marks]),
            np.concatenate([part.scores for part in some]),
        )
        if method == methods[0]:
            probabilities, masks = maps, marks
    if "nbs" in detector.methods:
        scores, losses = _profiled(detector, images)
        crf = detector.judge(scores, images, "nbs")
        found["nbs"] = scores, scores >= detector.threshold_of("nbs"), crf.scores
        found["nbs_crf"] = scores, crf.masks, crf.scores
        found["final_loss"] = losses, losses >= loss_threshold, image_scores(losses)
    if not methods:
        probabilities, masks = list(found["nbs_crf"][0]), list(found["nbs_crf"][1])
    return found, probabilities, masks


def _figures(
    data: AnomalyDataset, known: np.ndarray, detector: Detector, outcomes: Outcomes
) -> dict[str, Any]:
    """The figures of each method on the images `known`, whose truth is."""
    truth, data_kinds = data.masks[known], [data.kinds[i] for i in known]
    figures: dict[str, dict[str, float | None]] = {}
    kinds, called_bad, curve = {}, {}, None
    for name, (scores, predicted, by_image) in outcomes.items():
        figures[name] = evaluate(scores, predicted, by_image, truth) if len(known) else {}
        if len(known):
            kinds[name] = counts_by_kind(predicted, truth, data_kinds)
            if name in detector.methods:
                curve = curve or pixel_curve(scores, truth, detector.threshold_of(name))
            bad = is_bad(by_image, predicted, detector.alarms.get(name))
            defective = truth.any(axis=(1, 2))
            sides = {"defective": bad[defective], "good": bad[~defective]}
            called_bad[name] = {side: [int(part.sum()), len(part)] for side, part in sides.items()}
    return {"methods": figures, "called_bad": called_bad, "kinds": kinds, "curve": curve}


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
    lines = expectation(metrics["expected"])
    if metrics["scored_images"]:
        lines.append(f"{'':12}" + "".join(f"{name:>12}" for name in (*TABLE, "image_auroc")))
    else:
        lines.append("no figures: the truth of no unlabelled image is known")
    for method, figures in metrics["methods"].items() if metrics["scored_images"] else ():
        values = [figures.get(f"pixel_{name}") for name in TABLE] + [figures.get("image_auroc")]
        cells = "".join(f"{'-' if v is None else f'{v:.3f}':>12}" for v in values)
        lines.append(f"{method:12}{cells}")
    if metrics["scored_images"]:
        lines.append(f"on {metrics['scored_images']} unlabelled images with known masks")
    left_out = metrics["f1_left_out"]
    why = "" if left_out is None else f" (F1 {left_out:.3f} on labelled images that were left out)"
    own = metrics["own_size_f1"]
    size = "" if own is None else f"; in the images' own size F1 {own:.3f}"
    lines.append(f"masks/ has those of {metrics['masks']}{why}{size}")
    return "\n".join(lines)
