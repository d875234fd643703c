"""A detector in service: two threads that share it, and a folder of very many images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nbs_env.autoencoder import AutoencoderTrainer
from nbs_env.detect.detector import Detector
from nbs_env.predictor import Predictor
from nbs_env.profiles import copy_weights

from .forks import command, fork
from .small import Row, difference, picture

FEW = 1000
"""Images after which a folder's memory is looked at first."""
GROWTH, NAMES = 0.05, 2 / 1024
"""It may have grown by this share, or by so many MiB an image: a name, a path, a row; pixels take 12 KiB."""
ROUNDS = 20


def untrained(side: int, length: int, rings: int) -> Detector:
    """A detector for images of `side` pixels with random weights, which works as long as any other."""
    cpu, generator = torch.device("cpu"), torch.Generator().manual_seed(0)
    trainer = AutoencoderTrainer(4, 1e-3, cpu, torch.float32, width=4)

    def weights() -> dict[str, torch.Tensor]:
        trainer.reinitialize(generator)
        return copy_weights(trainer.network, torch.float32)

    made = [[weights() for _ in range(length)] for _ in range(rings)]
    return Detector(made, [Predictor(length, 1).state_dict()] * rings, side, "float32", cpu)


def threads(rounds: int = ROUNDS) -> Iterator[Row]:
    """Two threads predict different images with one detector at once."""
    outcome = fork(lambda: _at_once(rounds))
    broken = [f"exit code {outcome.code}: {outcome.err[-300:]}"] if outcome.code else outcome.out.splitlines()
    promise = "two threads predict with one Detector at once: the bits of one after the other"
    yield Row("threads", promise, rounds, broken)


def _at_once(rounds: int) -> None:
    """Print a line for each round in which a thread had other bits than alone."""
    rng = np.random.default_rng(0)
    detector = untrained(128, 3, 2)
    sets = [[picture(rng, side) for side in (128, 96, 150)] for _ in range(2)]

    def predict(images: list[np.ndarray]) -> list[dict[str, Any]]:
        return [vars(prediction) for prediction in detector.predict(images)]

    alone = [predict(images) for images in sets]
    with ThreadPoolExecutor(2) as pool:
        for number in range(rounds):
            if wrong := difference(alone, list(pool.map(predict, sets))):
                print(f"round {number}: thread, image, {wrong}")


def folder(place: Path, count: int) -> Iterator[Row]:
    """Memory of the command that predicts a folder, after few and after very many images."""
    few = min(FEW, max(1, count // 2))
    peaks, broken, seconds = [], [], 0.0
    (place / "run").mkdir(parents=True)
    untrained(64, 1, 1).save(place / "run" / "detector.pt")
    for number in range(8):
        image = Image.new("RGB", (64, 64), (100, 100, 100 + number))  # noise would take PNG twice as long
        image.save(place / f"{number}.png")
    for images in (few, count):
        home, out = place / f"images{images}", f"out{images}"
        home.mkdir()
        for number in range(images):
            os.link(place / f"{number % 8}.png", home / f"{number:05}.png")
        words = f"--run run --images {home.name} --out {out} --device cpu"
        outcome = command("nbs_env.detect.predict", words, place)
        made = len(list((place / out / "masks").glob("*.png")))
        if outcome.code or made != images:
            broken.append(f"{images} images: exit code {outcome.code}, {made} masks: {outcome.err[-300:]}")
        peaks.append(outcome.peak)
        seconds = outcome.seconds
    if peaks[1] - peaks[0] > max(GROWTH * peaks[0], NAMES * (count - few)):
        broken.append(f"{peaks[0]:.0f} MiB after {few} images, {peaks[1]:.0f} MiB after {count}")
    yield Row(
        "folder",
        f"predict on {count} images: at most {100 * GROWTH:.0f} % or {1024 * NAMES:.0f} KiB an image more "
        f"memory than on {few}",
        count,
        broken,
        f"at most {peaks[0]:.0f} MiB on {few} images, {peaks[1]:.0f} MiB on {count}; "
        f"{seconds / count:.3f} s an image of 64x64, untrained detector of one autoencoder",
    )
