"""What everything costs: `python -m benchmarks.speed --out DIR`.

Things that are compared are in one process and take turns, so that what else the machine does falls on all
alike; the first round warms up and does not count, and iterations are timed once the predictor trains, too.
DIR gets speed.json and speed.md. Images are noise, actions random. `--threads 1` gives figures that others
on the machine disturb least.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from agents.reinforce import Reinforce, ReinforceOptions
from baselines.alcn.trainer import ALCN, ALCNConfig
from baselines.d_anogan.config import DAnoGANConfig
from baselines.d_anogan.trainer import DAnoGAN
from benchmarks.report import machine, markdown
from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.networks import compute_dtype, keep_freed_memory, pick_device
from nbs_env.common.runs import command
from nbs_env.config import PAPER, Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv
from nbs_env.walk import CHANGE_IMAGE

LABELED = 5
Task = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """Something to time: what the table calls it, the work, and how often it counts."""

    name: str
    task: Task
    reference: str = ""
    """Name of the case of the same group that it is held against."""
    share: float = 1.0
    """Factor on the rounds."""


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


def make(unlabeled: int, config: Config, device: str) -> PatchSamplingEnv:
    """An environment on noise, after its first reset."""
    env = PatchSamplingEnv(noise(unlabeled, config.image_size), LABELED, config, device=device)
    env.reset(seed=0)
    return env


def play(env: PatchSamplingEnv, rng: np.random.Generator) -> None:
    """One episode, its training included; each ninth action changes the image, as at random."""
    env.reset()
    for number in itertools.count(1):
        if env.step(rng.integers(8) if number % 9 else CHANGE_IMAGE)[2]:
            return


def ready(env: PatchSamplingEnv) -> PatchSamplingEnv:
    """`env` with profiles as long as they get, so that the predictor trains at each update."""
    patches = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    for _ in range(env.config.profile_length):
        env.learner.update(patches)
    return env


def step_cases(device: str) -> Iterator[Case]:
    """Steps that are not terminal, a reset now and then among them; so are an image's first visits."""
    env, rng = make(20, PAPER, device), np.random.default_rng(0)
    play(env, rng)
    numbers = itertools.cycle(range(PAPER.cloning_length + PAPER.episode_length - 1))

    def step() -> None:
        if next(numbers) == 0:
            env.reset()
        env.step(rng.integers(9))

    yield Case("step, not terminal", step, share=400)


def iteration_cases(device: str) -> Iterator[Case]:
    """Whole iterations by the number of unlabelled images, and in float32."""
    rng, first = np.random.default_rng(1), "iteration, 20 unlabelled, float32"
    yield Case(first, partial(play, ready(make(20, replace(PAPER, precision="float32"), device)), rng))
    for count in (20, 200, 1000):
        name = f"iteration, {count} unlabelled"
        yield Case(name, partial(play, ready(make(count, PAPER, device)), rng), first)


def episode_cases(device: str) -> Iterator[Case]:
    """An iteration that REINFORCE plays and learns from, 64 and 64 patches by one walker or by eight."""
    names = {1: "iteration with REINFORCE, 1 walker", 8: "iteration with REINFORCE, 8 walkers"}
    for walkers, name in names.items():
        steps = 64 // walkers
        # In warm-up the agent does not learn.
        config = replace(PAPER, warmup_updates=9, cloning_length=steps, episode_length=steps)
        env = ready(make(20, config, device))
        agent = Reinforce(env, 0, ReinforceOptions(walkers=walkers))
        yield Case(name, partial(agent.learn, env, 1, lambda *_: None), names[1] if walkers > 1 else "")


def d_anogan_cases(device: str) -> Iterator[Case]:
    """Five critic steps and one of all others, 15 clusters, batch 128, against float32."""
    images = torch.randint(256, (1000, 1, 28, 28), dtype=torch.uint8, device=device)
    return _ways("D-AnoGAN step", DAnoGAN, DAnoGANConfig(critic_start=0), images, device)


def alcn_cases(device: str) -> Iterator[Case]:
    """Algorithm 1 on a batch of 64, the paper's sizes, against float32."""
    return _ways("ALCN step", ALCN, ALCNConfig(), torch.randn((64, 1, 28, 28), device=device), device)


def _ways(name: str, kind: Any, config: Any, images: torch.Tensor, device: str) -> Iterator[Case]:
    fast = replace(config, bfloat16=compute_dtype("auto", torch.device(device)) == torch.bfloat16)
    yield Case(f"{name}, float32", partial(kind(config, 0, device).step, images))
    task = partial(kind(fast, 0, device).step, images)
    yield Case(f"{name}, as fast as it goes", task, f"{name}, float32")


GROUPS: dict[str, Callable[[str], Iterator[Case]]] = {
    "step": step_cases,
    "iteration": iteration_cases,
    "episode": episode_cases,
    "d_anogan": d_anogan_cases,
    "alcn": alcn_cases,
}


@dataclass(frozen=True)
class SpeedArgs:
    """What to time."""

    out: Path | None = None
    """Folder for speed.json and speed.md; default: only print."""
    groups: str = ",".join(GROUPS)
    """What to time, separated by commas."""
    rounds: int = 5
    """Rounds that count; the slowest things get fewer."""
    threads: int = 0
    """CPU threads; 0: as many as PyTorch takes."""
    device: str = "auto"
    """cpu, cuda or auto."""


def timed(task: Task, device: str) -> float:
    """Seconds of one call, the device's work included."""
    wait = partial(torch.cuda.synchronize, device) if device != "cpu" else int
    wait()
    start = time.perf_counter()
    task()
    wait()
    return time.perf_counter() - start


def measure(cases: Sequence[Case], rounds: int, device: str) -> list[dict[str, Any]]:
    """Time `cases` in turns, after one that warms up; a row for each."""
    counts = {case.name: max(1, round(case.share * rounds)) for case in cases}
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    for turn in range(1 + max(counts.values())):
        for case in cases:
            if turn <= counts[case.name]:
                seconds[case.name].append(timed(case.task, device))
    rows = []
    for case in cases:
        low, middle, high = np.quantile(seconds[case.name][1:], (0.25, 0.5, 0.75)).tolist()
        row: dict[str, Any] = {"name": case.name, "seconds": middle, "low": low, "high": high}
        row["reference"] = case.reference
        slow = float(np.median(seconds[case.reference][1:])) if case.reference else None
        rows.append(row | {"times_faster": slow and slow / middle})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The rows as they are printed."""
    lines = [["", "median", "quartiles", "times faster"]]
    for row in rows:
        ratio = f"{row['times_faster']:.2f}" if row["times_faster"] else ""
        units = ((1e6, "us"), (1e3, "ms"))
        scale, unit = next((each for each in units if row["seconds"] * each[0] < 1000), (1, "s"))
        middle, low, high = (f"{scale * row[name]:.3g}" for name in ("seconds", "low", "high"))
        lines.append([row["name"], f"{middle} {unit}", f"{low} - {high}", ratio])
    return lines


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    args = tyro.cli(SpeedArgs, args=argv, description=__doc__)
    names = args.groups.split(",")
    device = str(pick_device(args.device))
    for name in names:
        if name not in GROUPS:
            raise RunError(f"groups has {name!r}; choose from {', '.join(GROUPS)}")
    keep_freed_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    for name in names:
        rows += measure(list(GROUPS[name](device)), args.rounds, device)
        text = f"{machine(device)}.\n\n{markdown(table(rows))}\n"
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            checkpoint.save_json({"machine": machine(device), "rows": rows}, args.out / "speed.json")
            checkpoint.save_text(text, args.out / "speed.md")
        print(f"{name} done", flush=True)
    print(text)


if __name__ == "__main__":
    main()
