"""What a run, or `nbs predict`, leaves in its directory, read back for people to look at."""

from __future__ import annotations

import csv
import json
import math
import os
import shlex
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.runs import digests
from nbs_env.config import PRESETS
from nbs_env.data import AnomalyDataset, DataError, DataWarning, load, read_image
from nbs_env.detect.config import PRESETS as DETECTOR_PRESETS

DOUBT = 2.0
"""An image is worth a second look if its odds are within this factor of those at the threshold."""


@dataclass
class Results:
    """What a directory holds; images are read when they are asked for."""

    directory: Path
    name: str
    """The data set, or the folder of images."""
    threshold: float
    """Probability from which a pixel is anomalous."""
    image_threshold: float | None
    """Score from which an image is bad; None: where its mask marks anything."""
    command: str
    """What repeats it."""
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]
    file: Callable[[str], Path | None]
    """Where an image lies, by its name."""
    original: Callable[[str], tuple[np.ndarray | None, np.ndarray | None]]
    """The image (H, W, 3) uint8 and its truth (H, W) bool, as far as they are known."""


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        CheckpointError: it is absent or damaged.
    """
    with checkpoint.unpacking(file):
        return json.loads(file.read_text(encoding="utf-8"))


def read_results(directory: Path, data: AnomalyDataset | None, data_root: Path | None) -> Results:
    """What a finished run, or `nbs predict`, has left in `directory`.

    Args:
        directory: where.
        data: the run's images; None: they are read from where they lay.
        data_root: where they lie now.

    Raises:
        RunError: it holds neither, or a run that is not finished.
        CheckpointError: a file in it is damaged.
    """
    config, settings = directory / "config.json", directory / "settings.json"
    finished = (directory / "predictions.csv").is_file()
    if settings.is_file() and finished:
        with checkpoint.unpacking(settings):
            return _predictions(directory, read_json(settings), data_root)
    if not config.is_file():
        raise RunError(
            f"{directory} holds neither a run nor predictions; give the --run-dir of nbs train, or the --out "
            "of nbs predict"
        )
    if not finished or not (directory / "metrics.json").is_file():
        raise RunError(
            f"{directory} holds no finished run; `nbs train --resume --run-dir {directory}` finishes it"
        )
    found, metrics = read_json(config), read_json(directory / "metrics.json")
    with checkpoint.unpacking(config):
        parts = {name: found[name] for name in ("run", "detector", "game")}
        line = command_line(parts)
        data = data or _dataset(found, data_root)
    place = {} if data is None else {name: i for i, name in enumerate(data.names)}

    def file(name: str) -> Path | None:
        return data.originals[place[name]].file if data and data.originals and name in place else None

    def original(name: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        if data is None or name not in place:
            return None, None
        i = place[name]
        return data.images[i], data.masks[i] if data.has_mask[i] else None

    with checkpoint.unpacking(directory / "metrics.json"):
        method = metrics["masks"].removesuffix("_crf")
        threshold, alarm = metrics["thresholds"][method], metrics["alarms"].get(method)
        return Results(directory, metrics["dataset"], threshold, alarm, line, parts, metrics, file, original)


def _predictions(directory: Path, settings: dict[str, Any], data_root: Path | None) -> Results:
    run, images = (Path(os.path.normpath(directory / settings[name])) for name in ("run", "images"))
    folder, threshold = data_root or images, float(settings["threshold"])
    words = ["nbs", "predict", "--run", str(run), "--images", str(images)]
    words += ["--method", settings["method"], "--out", str(directory)]

    def original(name: str) -> tuple[np.ndarray | None, None]:
        try:
            return read_image(folder / name, settings["white"]), None
        except DataError:
            return None, None

    alarm, parts = settings["image_threshold"], {"predict": settings}
    metrics = {"masks": settings["method"], "expected": settings.get("expected", {})}
    line, file = shlex.join(words), folder.joinpath
    return Results(directory, folder.name, threshold, alarm, line, parts, metrics, file, original)


def _dataset(config: dict[str, Any], data_root: Path | None) -> AnomalyDataset | None:
    """The images of a run; None, and a note, where they are not to be had."""
    run = config["run"]
    root = data_root or run["data_root"]
    options = {name: run[name] for name in ("category", "seed", "difficulty", "mask_values")}
    try:
        data = load(
            run["dataset"], root and Path(root), image_size=config["detector"]["image_size"], **options
        )
        if digests(images=data.images)["images"] == config["images"]["images"]:
            return data
        problem = f"{root}: other images than the run had; --data-root says where those are"
    except DataError as error:
        problem = str(error)
    warnings.warn(f"a page without photos and truth: {problem}", DataWarning, stacklevel=2)
    return None


def command_line(settings: Mapping[str, Any]) -> str:
    """The command that repeats a run with these settings, as config.json has them."""
    run, game = settings["run"], settings["game"]
    flags = run | _changed(settings["detector"], asdict(DETECTOR_PRESETS[run["preset"]]))
    if game:
        shared = {name: settings["detector"][name] for name in ("image_size", "precision")}
        preset = asdict(PRESETS[run["preset"]]) | shared
        flags |= {"agent": game["agent"]} | _changed(game["config"], preset) | game["options"]
    if run["dataset"] != "synthetic":
        del flags["difficulty"]
    words = ["nbs", "train"]
    for name, value in flags.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value not in (None, []):
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _changed(settings: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if preset.get(name) != value}


def read_rows(table: Path, results: Results) -> list[dict[str, Any]]:
    """The images that were predicted, the highest score first."""
    alarm, rows = results.image_threshold, []
    with table.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            name = line.get("image") or line["file"]
            score, highest = (float(np.float32(line[k])) for k in ("image_score", "highest_probability"))
            value, limit = (highest, results.threshold) if alarm is None else (score, alarm)
            row = {
                "name": name,
                "picture": f"{name if 'image' in line else Path(name).stem}.png",
                "score": score,
                "highest": highest,
                "share": float(line["anomalous_share"]),
                "bad": line["bad"] == "1",
                "doubtful": abs(_log_odds(value) - _log_odds(limit)) < math.log(DOUBT),
                "defective": line["defective"] == "1" if line.get("defective") else None,
            }
            rows.append(row)
    assert rows, "a table without images"
    return sorted(rows, key=lambda row: (-row["score"], row["name"]))


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))
