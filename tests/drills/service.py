"""A detector in service: two threads that share it, and a folder of very many images."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nbs_env.autoencoder import AutoencoderTrainer
from nbs_env.detect.detector import Detector, Prediction
from nbs_env.predictor import Predictor
from nbs_env.profiles import copy_weights

from .forks import command, fork
from .small import Row, picture

FEW = 1000
"""Images after which a folder's memory is looked at first."""
GROWTH, NAMES = 0.05, 2 / 1024
"""It may have grown by this share, or by so many MiB an image: a name, a path, a row; pixels take 12 KiB."""
ROUNDS = 20


def untrained(side: int, length: int, rings: int) -> Detector:
    """A detector for images of `side` pixels with random weights, which works as long as any other."""
    cpu, generator = torch.device("cpu"), torch.Generator().manual_seed(0)
    trainer = AutoencoderTrainer(4, 1e-3, cpu, torch.float32, width=4)
    made: list[list[dict[str, torch.Tensor]]] = []
    for _ in range(rings):
        made.append([])
        for _ in range(length):
            trainer.reinitialize(generator)
            made[-1].append(copy_weights(trainer.network, torch.float32))
    return Detector(made, [Predictor(length, 1).state_dict()] * rings, side, "float32", cpu)


def threads(rounds: int = ROUNDS) -> Iterator[Row]:
    """Two threads predict different images with one detector at once."""
    outcome = fork(lambda: _at_once(rounds))
    broken = [f"exit code {outcome.code}: {outcome.err[-300:]}"] if outcome.code else outcome.out.splitlines()
    yield Row(
        "threads",
        "two threads predict with one Detector at once: the bits of one after the other",
        rounds,
        broken,
    )


def _at_once(rounds: int) -> None:
    """Print a line for each round in which a thread had other bits than alone."""
    rng = np.random.default_rng(0)
    detector = untrained(128, 3, 2)
    sets = [[picture(rng, side) for side in (128, 96, 150)] for _ in range(2)]
    alone = [list(detector.predict(images)) for images in sets]
    for number in range(rounds):
        found: dict[int, list[Prediction]] = {}
        barrier = threading.Barrier(2)

        def predict(which: int, found=found, barrier=barrier) -> None:  # type: ignore[no-untyped-def]
            barrier.wait()
            found[which] = list(detector.predict(sets[which]))

        workers = [threading.Thread(target=predict, args=(which,)) for which in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for which, expected in enumerate(alone):
            if which not in found:
                print(f"round {number}: thread {which} died")
                continue
            for image, (a, b) in enumerate(zip(expected, found[which], strict=True)):
                same = np.array_equal(a.probability, b.probability) and np.array_equal(a.mask, b.mask)
                if not same or a.score != b.score:
                    print(f"round {number}: image {image} of thread {which} has other bits")


def folder(place: Path, count: int) -> Iterator[Row]:
    """Memory of the command that predicts a folder, after few and after very many images."""
    few = min(FEW, max(1, count // 2))
    peaks, broken, seconds = [], [], 0.0
    place.mkdir(parents=True)
    (place / "run").mkdir()
    untrained(64, 1, 1).save(place / "run" / "detector.pt")
    for number in range(8):
        image = Image.new("RGB", (64, 64), (100, 100, 100 + number))  # noise would take PNG twice as long
        image.save(place / f"{number}.png")
    for images in (few, count):
        home = place / f"images{images}"
        home.mkdir()
        for number in range(images):
            os.link(place / f"{number % 8}.png", home / f"{number:05}.png")
        words = ("--run", "run", "--images", home.name, "--out", f"out{images}", "--device", "cpu")
        outcome = command("nbs_env.detect.predict", *words, cwd=place)
        made = len(list((place / f"out{images}" / "masks").glob("*.png")))
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
