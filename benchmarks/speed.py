"""What a step and an iteration cost: `python -m benchmarks.speed`.

One thread, random actions with a fixed seed, images of random noise. Three questions:

- a non-terminal `env.step` of the default configuration (goal: below 150 microseconds at the median);
- a whole iteration with 20 and with 1000 unlabelled images (goal: a ratio of at most 1.15);
- an iteration with `evaluation="lazy"` and `"full"` at CrackForest's 113 unlabelled images.

The iterations that are compared take turns, so that what else the machine does falls on both alike.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch

from nbs_env.config import PAPER, Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv

LABELED = 5


def noise(unlabeled: int, size: int) -> AnomalyDataset:
    """Labelled and unlabelled images of noise (n, size, size, 3), each with an anomalous square."""
    count = LABELED + unlabeled
    masks = np.zeros((count, size, size), bool)
    masks[:, :32, :32] = True
    return AnomalyDataset(
        name="noise",
        images=np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        masks=masks,
        has_mask=np.ones(count, bool),
        names=tuple(map(str, range(count))),
        kinds=("square",) * count,
    )


def make(unlabeled: int, config: Config) -> PatchSamplingEnv:
    """An environment on noise, after its first reset."""
    env = PatchSamplingEnv(noise(unlabeled, config.image_size), LABELED, config, device="cpu")
    env.reset(seed=0)
    return env


def time_steps(env: PatchSamplingEnv, count: int) -> np.ndarray:
    """Seconds of `count` non-terminal steps, after an episode for warming up.

    Nothing trains in between, so an image's loss map is measured on its first visit alone; those few steps
    are slower by far, and they are in the sample.
    """
    rng = np.random.default_rng(0)
    time_iteration(env, rng)
    length = env.config.cloning_length + env.config.episode_length
    seconds: list[float] = []
    while len(seconds) < count:
        env.reset()
        for _ in range(length - 1):
            action = rng.integers(9)
            start = time.perf_counter()
            env.step(action)
            seconds.append(time.perf_counter() - start)
    return np.array(seconds[:count])


def time_iteration(env: PatchSamplingEnv, rng: np.random.Generator) -> float:
    """Seconds of one episode, its reset and its training included."""
    start = time.perf_counter()
    env.reset()
    terminated = False
    while not terminated:
        terminated = env.step(rng.integers(9))[2]
    return time.perf_counter() - start


def compare(first: PatchSamplingEnv, second: PatchSamplingEnv, iterations: int) -> np.ndarray:
    """Seconds (iterations, 2) of iterations in turns, after one of each for warming up."""
    rngs = np.random.default_rng(1), np.random.default_rng(1)
    pairs = [
        [time_iteration(env, rng) for env, rng in zip((first, second), rngs, strict=True)]
        for _ in range(iterations + 1)
    ]
    return np.array(pairs[1:])


def row(name: str, seconds: np.ndarray, scale: float, unit: str) -> str:
    """A line of the table: median and quartiles."""
    low, middle, high = np.quantile(seconds * scale, (0.25, 0.5, 0.75))
    return f"{name:44}{middle:10.1f}{low:10.1f}{high:10.1f}  {unit}"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="steps to time")
    parser.add_argument("--iterations", type=int, default=5, help="iterations to time with 20 and with 1000")
    parser.add_argument("--full", type=int, default=1, help="iterations to time of lazy and full; 0: none")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'one thread':44}{'median':>10}{'25 %':>10}{'75 %':>10}")
    few = make(20, PAPER)
    steps = time_steps(few, args.steps)
    print(row("step, not terminal", steps, 1e6, "us   (goal: below 150)"), flush=True)
    pairs = compare(few, make(1000, PAPER), args.iterations)
    for column, count in enumerate((20, 1000)):
        print(row(f"iteration, {count} unlabelled images", pairs[:, column], 1, "s"))
    ratio = np.median(pairs[:, 1]) / np.median(pairs[:, 0])
    print(f"{'ratio of the medians':44}{ratio:10.2f}{'':22}(goal: at most 1.15)", flush=True)
    if args.full:
        pairs = compare(make(113, PAPER), make(113, replace(PAPER, evaluation="full")), args.full)
        for column, kind in enumerate(("lazy", "full")):
            print(row(f"iteration, 113 unlabelled images, {kind}", pairs[:, column], 1, "s"))


if __name__ == "__main__":
    main()
