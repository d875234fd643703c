"""One page that shows a run, or what a detector said of a folder: `nbs report RUN`."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import tyro
from PIL import Image

from nbs_env.common import checkpoint
from nbs_env.common.pictures import heat
from nbs_env.common.runs import command, seen_from
from nbs_env.data import AnomalyDataset
from nbs_env.desk.results import Results, read_json, read_results, read_rows
from nbs_env.detect.alarms import expectation
from nbs_env.detect.metrics import threshold_levels

PAGE = "report.html"
SCRIPTS = ("base", "viewer", "charts", "table", "start")
BUDGET = 18 * 2**20
"""Characters that all pictures of a page may take."""
SMALLEST, LARGEST = 64, 256
"""Longer side of a picture in pixels, by how many there are."""
POINTS = 400
"""Points of a curve at most; of more the means are shown."""
WALKED = 8
"""Images at most that are shown with where the agent walked."""
METHODS = {
    "fused": "segmenter and memory",
    "segmenter": "the segmenter",
    "memory": "the memory of normal images",
    "nbs_crf": "batch sampling and the dense CRF",
    "nbs": "batch sampling and the dense CRF",
}
PER_STEP = ("R_clone", "R_cover", "update", "warmup", "reinitialized")
"""What an episode's row holds and is no curve: rewards of its last step alone, and marks."""


@dataclass(frozen=True)
class ReportArgs:
    """What to show."""

    run: tyro.conf.Positional[Path]
    """Directory of a finished run, or what nbs predict wrote."""
    data_root: Path | None = None
    """Where its images lie, if they were moved."""


def write_report(
    directory: Path, data: AnomalyDataset | None = None, data_root: Path | None = None
) -> tuple[Path, str]:
    """Write report.html into a run, or into what `nbs predict` wrote.

    Args:
        directory: where.
        data: the run's images; None: they are read from where they lay.
        data_root: where they lie now.

    Returns:
        The page, and its first sentence.

    Raises:
        RunError: the directory holds neither, or a run that is not finished.
        CheckpointError: a file in it is damaged.
        WriteError: the page cannot be written.
    """
    shown = read_results(directory, data, data_root)
    table = directory / "predictions.csv"
    with checkpoint.unpacking(table):
        rows = read_rows(table, shown)
    with checkpoint.unpacking(directory / "metrics.json"):
        curves, facts = _curves(shown.metrics.get("history", [])), _facts(shown)
    summary, expected = _summary(rows), ". ".join(expectation(shown.metrics["expected"]))
    levels = threshold_levels(shown.threshold)
    content = {
        "name": shown.name,
        "masks": shown.metrics["masks"],
        "thresholds": levels.tolist(),
        "default": int(np.abs(levels - shown.threshold).argmin()),
        "image_threshold": shown.image_threshold and float(np.float32(shown.image_threshold)),
        "curve": shown.metrics.get("curve"),
        "methods": shown.metrics.get("methods", {}),
        "heat": heat(np.arange(256)[None], 0, 255)[0].tolist(),
        "images": _illustrated(rows, shown),
        "curves": curves,
        "walk": _walk(shown),
        "facts": facts,
        "settings": shown.settings,
        "command": shown.command,
    }
    page = directory / PAGE
    checkpoint.save_text(_filled(f"{shown.name}: {summary}", summary, expected, content), page)
    return page, summary


def _filled(title: str, summary: str, expected: str, content: dict[str, Any]) -> str:
    """The page; nothing that it is filled with can become markup or a script."""
    pages = files("nbs_env.desk") / "pages"
    script = "".join((pages / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {
        "title": html.escape(title).encode("ascii", "xmlcharrefreplace").decode(),
        "summary": html.escape(summary),
        "expected": html.escape(expected),
        "style": (pages / "report.css").read_text(encoding="utf-8"),
        "script": script,
        "digest": digest,
        "content": json.dumps(content, allow_nan=False).replace("<", "\\u003c"),
    }
    page = (pages / "report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], page)


# What the page is filled with


def _summary(rows: list[dict[str, Any]]) -> str:
    bad, doubtful = (sum(row[key] for row in rows) for key in ("bad", "doubtful"))
    called, look = ("is" if count == 1 else "are" for count in (bad, doubtful))
    summary = f"{bad} of {len(rows)} image{'' if len(rows) == 1 else 's'} {called} called bad"
    return summary + (f", {doubtful} {look} worth a second look" if doubtful else "")


def _illustrated(rows: list[dict[str, Any]], shown: Results) -> list[dict[str, Any]]:
    """The rows with pictures as large as fit; if none do, those of the lowest scores go without."""
    sample = rows[:: max(1, len(rows) // 8)]
    cost = float(np.mean([_size(_layers(row, shown, 128)) for row in sample]))
    side = 128 * math.sqrt(0.9 * BUDGET / (len(rows) * max(cost, 1)))
    left = BUDGET
    for row in rows:
        pictures = _layers(row, shown, min(max(side, SMALLEST), LARGEST)) if left > 0 else {}
        left -= _size(pictures)
        row |= pictures if left > 0 else {}
        links = {"link": shown.file(row["name"]), "mask_link": shown.directory / "masks" / row["picture"]}
        for key, file in links.items():
            if file is not None:
                row[key] = quote(os.fsencode(seen_from(shown.directory, file)))
    return rows


def _size(pictures: Mapping[str, str]) -> int:
    return sum(map(len, pictures.values()))


def _layers(row: Mapping[str, Any], shown: Results, side: float) -> dict[str, str]:
    image, truth = shown.original(row["name"])
    stored = {}
    for layer, folder in (("mask", "masks"), ("probability", "probabilities")):
        file = shown.directory / folder / row["picture"]
        if file.is_file():
            with checkpoint.unpacking(file), Image.open(file, formats=["PNG"]) as picture:
                stored[layer] = np.asarray(picture.convert("L"))
    return _pictures(image, stored | ({} if truth is None else {"truth": truth * np.uint8(255)}), side)


def _pictures(image: np.ndarray | None, layers: Mapping[str, np.ndarray], side: float) -> dict[str, str]:
    """Image and layers, uint8 (h, w) each, as data addresses of one size, its longer side at most `side`.

    The first layer has the proportions of the image's file. A pixel of a layer is the highest of those that
    it stands for, so that nothing thin is lost.
    """
    arrays = [*layers.values(), *([] if image is None else [image])]
    if not arrays:
        return {}
    height, width = arrays[0].shape[:2]
    scale = min(side / max(height, width), *(min(a.shape[0] / height, a.shape[1] / width) for a in arrays))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    found = {}
    for layer, values in layers.items():
        rows, columns = (
            np.arange(n) * full // n for n, full in zip((height, width), values.shape, strict=True)
        )
        highest = np.maximum.reduceat(np.maximum.reduceat(values, rows, axis=0), columns, axis=1)
        # Others are masks; 64 levels take half the space of 256.
        levels = highest & 252 if layer == "probability" else highest >= 128
        found[layer] = _encoded(Image.fromarray(levels), "PNG")
    if image is not None:
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        found["image"] = _encoded(resized, "JPEG")
    return found


def _encoded(picture: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    picture.save(file, kind, quality=78)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _curves(history: list[dict[str, float]]) -> dict[str, Any]:
    """The training by update: what was measured, and where the autoencoder was re-initialised."""
    names = dict.fromkeys(name for row in history for name in row if name not in PER_STEP)
    found = {}
    for name in names:
        points = [
            (row["update"], row[name])
            for row in history
            if math.isfinite(row.get(name, math.nan)) and not (name == "R_pred" and row.get("warmup"))
        ]
        if points:
            parts = np.array_split(np.array(points), min(len(points), POINTS))
            found[name] = [part.mean(axis=0).tolist() for part in parts]
    return {"series": found, "marks": [row["update"] for row in history if row.get("reinitialized")]}


def _walk(shown: Results) -> list[dict[str, Any]]:
    """The images that the agent sampled most, and where."""
    file = shown.directory / "walk.npz"
    if not file.is_file():
        return []
    with checkpoint.unpacking(file), np.load(file, allow_pickle=False) as stored:
        names, visits = stored["names"].tolist(), stored["visits"]
    found = []
    for i in np.argsort(-visits.sum(axis=(1, 2)), kind="stable")[:WALKED]:
        image, truth = shown.original(names[i])
        if image is not None:
            layers = {} if truth is None else {"truth": truth * np.uint8(255)}
            pictures = _pictures(image, layers, 192)
            found.append({"name": names[i], "visits": visits[i].tolist()} | pictures)
    return found


def _facts(shown: Results) -> list[tuple[str, str]]:
    """What is worth saying in words: (what, which)."""
    metrics = shown.metrics
    facts = [("masks of", METHODS.get(metrics["masks"], metrics["masks"]))]
    if metrics.get("labeled"):
        facts.append(("labelled images", ", ".join(metrics["labeled"])))
    if metrics.get("f1_left_out") is not None:
        facts.append(("F1 on labelled images left out", f"{metrics['f1_left_out']:.3f}"))
    if metrics.get("share"):
        facts.append(("share of the memory", f"{metrics['share']:.2f}"))
    file = shown.directory / "timing.json"
    if file.is_file():
        facts.append(("time", f"{sum(read_json(file).values()) / 60:.1f} minutes"))
    return facts + [(name, str(value)) for name, value in metrics.get("made_with", {}).items()]


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Make the page that the command line asks for."""
    args = tyro.cli(ReportArgs, args=argv, description=__doc__)
    page, summary = write_report(args.run, data_root=args.data_root)
    print(f"{summary}; see {page}")


if __name__ == "__main__":
    main()
