"""What everything costs, each against its simple reference: `python -m benchmarks.speed --out DIR`.

Things that are compared are in one process and take turns, so that what else the machine does falls on all
alike; the first round warms up and does not count, and iterations are timed once the predictor trains, too.
DIR gets speed.json and speed.md. Images are noise, actions random. `--threads 1` gives figures that others
on the machine disturb least.

The share of the limit is: operations counted by PyTorch, over seconds, over what a matrix product of 2048 by
2048 does per second here in the same arithmetic; for a step bytes, over those that a large copy moves. Memory
is what the first call needs beyond what is held before it, where the system tells (Linux, CUDA).

`python -m benchmarks.speed --memory-updates 2000 --out DIR` plays that many updates instead, and plots how
much memory the process holds to DIR/memory.png.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from agents.reinforce import Reinforce, ReinforceOptions
from baselines.alcn.trainer import ALCN, ALCNConfig
from baselines.common import RunError, pick_device
from baselines.d_anogan.trainer import DAnoGAN, DAnoGANConfig
from benchmarks.d_anogan import LoopedDAnoGAN
from benchmarks.report import machine
from nbs_env import autoencoder, checkpoint, graphs
from nbs_env import learner as learning
from nbs_env.autoencoder import AutoencoderTrainer
from nbs_env.config import PAPER, PRESETS, Config, ConfigError
from nbs_env.data import AnomalyDataset
from nbs_env.detector import AT_ONCE, Detector
from nbs_env.env import PatchSamplingEnv
from nbs_env.learner import Learner
from nbs_env.networks import compute_dtype, initialize, keep_freed_memory
from nbs_env.predictor import Predictor
from nbs_env.profiles import copy_weights
from nbs_env.walk import CHANGE_IMAGE

LABELED = 5
Task = Callable[[], object]


@dataclass(frozen=True)
class Args:
    """What to time."""

    out: Path | None = None
    """Folder for speed.json and speed.md; default: only print."""
    groups: str = "step,learner,iteration,episode,detector,d_anogan,alcn"
    """What to time, separated by commas."""
    rounds: int = 5
    """Rounds that count; the slowest things get fewer."""
    threads: int = 0
    """CPU threads; 0: as many as PyTorch takes."""
    device: str = "auto"
    """cpu, cuda or auto."""
    memory_updates: int = 0
    """Plot the memory held over this many updates, and time nothing."""


@dataclass(frozen=True)
class Case:
    """Something to time: what the table calls it, the work, and how often it counts."""

    name: str
    task: Task
    reference: str = ""
    """Name of the case of the same group that it is held against."""
    dtype: torch.dtype | None = None
    """Arithmetic of the operations that limit it; None: none is given."""
    moved: float = 0.0
    """Bytes read and written that limit it, instead."""
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


def eagerly(task: Task) -> object:
    """Call `task` without replaying CUDA graphs."""
    with mock.patch.object(graphs, "can_record", return_value=False):
        return task()


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
    length = PAPER.cloning_length + PAPER.episode_length
    left = 0

    def step() -> None:
        nonlocal left
        if not left:
            env.reset()
            left = length - 1
        left -= 1
        env.step(rng.integers(9))

    moved = 2 * 4 * 5 * PAPER.window_size**2  # what the agent sees, copied
    yield Case("step, not terminal", step, moved=moved, share=400)


def learner_cases(device: str) -> Iterator[Case]:
    """An update and its parts, against float32 with channels first and without CUDA graphs."""
    patches = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    data = noise(20, 256)
    ways = {"float32, channels first": "float32", "as shipped": "auto"}
    learners = {}
    for way, precision in ways.items():
        config = replace(PRESETS["quick"], precision=precision)  # type: ignore[arg-type]
        labeled = np.arange(LABELED)
        with ExitStack() as stack:
            if way != "as shipped":
                for user in (autoencoder, learning):
                    stack.enter_context(mock.patch.object(user, "place", nn.Module.to))
            learner = Learner(data.images, labeled, data.masks[:LABELED], config, torch.device(device), 0)
        if way != "as shipped":
            for network in (learner.trainer.network, learner.predictor):
                # Inputs come with channels last, and either is enough for PyTorch to compute so.
                network.register_forward_pre_hook(lambda _, inputs: tuple(x.contiguous() for x in inputs))
        for _ in range(config.profile_length):
            eagerly(partial(learner.update, patches))
        learners[way] = learner
    parts: dict[str, Callable[[Learner], Task]] = {
        "update": lambda learner: partial(learner.update, patches),
        "autoencoder": lambda learner: partial(
            learner.trainer.train, torch.from_numpy(patches).permute(0, 3, 1, 2), 8
        ),
        "loss maps of the labelled": lambda learner: partial(learner._measure, learner.labeled),
        "predictor step": lambda learner: learner._train_predictor,
    }
    for part, task in parts.items():
        slow, fast = (f"{part}, {way}" for way in ways)
        plain = partial(eagerly, task(learners["float32, channels first"]))
        yield Case(slow, plain, dtype=torch.float32)
        yield Case(fast, task(learners["as shipped"]), slow, learners["as shipped"].dtype)


def iteration_cases(device: str) -> Iterator[Case]:
    """Whole iterations by the number of unlabelled images, and with all of them measured at every update."""
    rng = np.random.default_rng(1)
    first = "iteration, 20 unlabelled"
    for count in (20, 200, 1000):
        name = f"iteration, {count} unlabelled"
        env = ready(make(count, PAPER, device))
        yield Case(name, partial(play, env, rng), first if name != first else "", env.learner.dtype)
    full = "iteration, 113 unlabelled, full"
    ways = {full: replace(PAPER, evaluation="full"), "iteration, 113 unlabelled, lazy": PAPER}
    for name, config in ways.items():
        reference = full if name != full else ""
        env = ready(make(113, config, device))
        yield Case(name, partial(play, env, rng), reference, env.learner.dtype, share=0.4)


def episode_cases(device: str) -> Iterator[Case]:
    """An iteration that REINFORCE plays and learns from, 64 and 64 patches by one walker or by eight."""
    reference = ""
    for walkers in (1, 8):
        steps = 64 // walkers
        # In warm-up the agent does not learn.
        config = replace(PAPER, warmup_updates=9, cloning_length=steps, episode_length=steps)
        env = ready(make(20, config, device))
        agent = Reinforce(env, 0, ReinforceOptions(walkers=walkers))
        task = partial(agent.learn, env, 1, lambda *_: None)
        name = f"iteration with REINFORCE, {walkers} walker{'s' * (walkers > 1)}"
        yield Case(name, task, reference, env.learner.dtype)
        reference = name


def detector_cases(device: str) -> Iterator[Case]:
    """Masks, with one snapshot."""
    where = torch.device(device)
    dtype = compute_dtype("auto", where)
    trainer = AutoencoderTrainer(200, 1e-4, where, dtype)
    trainer.reinitialize(torch.Generator().manual_seed(0))
    predictor = Predictor(PAPER.profile_length, 2)
    initialize(predictor, torch.Generator().manual_seed(0))
    ring = [copy_weights(trainer.network, dtype)] * PAPER.profile_length
    detector = Detector([ring], predictor.state_dict(), 256, "auto", where)
    for size in (256, 1024):
        images = np.random.default_rng(0).integers(0, 256, (AT_ONCE, size, size, 3), dtype=np.uint8)
        names = [f"{AT_ONCE} images of {size} pixels, {how}" for how in ("one by one", "Detector.predict")]
        yield Case(names[0], partial(_predict, detector, [[image] for image in images]), "", dtype, share=0.4)
        yield Case(names[1], partial(_predict, detector, [list(images)]), names[0], dtype, share=0.4)


def _predict(detector: Detector, batches: Sequence[Sequence[np.ndarray]]) -> None:
    for batch in batches:
        list(detector.predict(batch))


def d_anogan_cases(device: str) -> Iterator[Case]:
    """Five critic steps and one of all others, 15 clusters, batch 128, against a loop over the clusters."""
    plain = DAnoGANConfig()
    data = torch.randint(256, (1000, 1, 28, 28), dtype=torch.uint8, device=device)
    fast = compute_dtype("auto", torch.device(device))
    loop = "D-AnoGAN, loop over clusters, float32"
    models = {
        loop: LoopedDAnoGAN(plain, 0, device),
        "D-AnoGAN, at once, float32": DAnoGAN(plain, 0, device),
        "D-AnoGAN, at once, as fast as it goes": DAnoGAN(
            replace(plain, bfloat16=fast == torch.bfloat16), 0, device
        ),
    }
    for name, model in models.items():  # PyTorch cannot count the operations of the gradient penalty
        yield Case(name, partial(_rounds, model, data, plain.critic_steps), loop if name != loop else "")


def _rounds(model: DAnoGAN, data: torch.Tensor, count: int) -> None:
    for _ in range(count):
        model.step(data)


def alcn_cases(device: str) -> Iterator[Case]:
    """Algorithm 1 on a batch of 64, the paper's sizes."""
    fast = compute_dtype("auto", torch.device(device))
    images = torch.randn((64, 1, 28, 28), device=device)
    slow = "ALCN step, float32"
    yield Case(slow, partial(ALCN(ALCNConfig(), 0, device).step, images), dtype=torch.float32)
    model = ALCN(ALCNConfig(bfloat16=fast == torch.bfloat16), 0, device)
    yield Case("ALCN step, as fast as it goes", partial(model.step, images), slow, fast)


GROUPS: dict[str, Callable[[str], Iterator[Case]]] = {
    "step": step_cases,
    "learner": learner_cases,
    "iteration": iteration_cases,
    "episode": episode_cases,
    "detector": detector_cases,
    "d_anogan": d_anogan_cases,
    "alcn": alcn_cases,
}


def timed(task: Task, device: str) -> float:
    """Seconds of one call, the device's work included."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    task()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def status(field: str) -> float:
    """A size of this process in MiB by its name in proc(5), VmRSS or VmHWM; NaN where there is no such."""
    file = Path("/proc/self/status")
    if not file.is_file():
        return math.nan
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def peak(task: Task, device: str) -> float | None:
    """MiB that a call needs at most beyond what is held before it; None where the system does not tell."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        timed(task, device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what is freed but kept counts, too
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    except (AttributeError, OSError, TypeError):
        task()
        return None
    held = status("VmRSS")
    task()
    return status("VmHWM") - held


def bandwidth(device: str) -> float:
    """Bytes a second that a copy of 256 MiB reads and writes."""
    source = torch.ones(2**28, dtype=torch.uint8, device=device)
    copy = source.clone()
    return 2 * 2**28 / min(timed(lambda: copy.copy_(source), device) for _ in range(5))


def limit(dtype: torch.dtype, device: str) -> float:
    """Operations a second of a matrix product."""
    a, b = torch.randn((2, 2048, 2048), device=device).to(dtype)
    return 2 * 2048**3 / min(timed(lambda: a @ b, device) for _ in range(5))


def measure(
    cases: list[Case], rounds: int, device: str, limits: dict[torch.dtype | None, float]
) -> list[dict[str, Any]]:
    """Time `cases` in turns; a row for each. `limits` are operations a second, and under None bytes."""
    memory = {case.name: peak(case.task, device) for case in cases}
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    counts = {case.name: max(1, round(case.share * rounds)) for case in cases}
    for turn in range(max(counts.values())):
        for case in cases:
            if turn < counts[case.name]:
                seconds[case.name].append(timed(case.task, device))
    rows = []
    for case in cases:
        low, middle, high = np.quantile(seconds[case.name], (0.25, 0.5, 0.75)).tolist()
        row: dict[str, Any] = {"name": case.name, "seconds": middle, "low": low, "high": high}
        row["reference"] = case.reference
        row["times_faster"] = float(np.median(seconds[case.reference])) / middle if case.reference else None
        row["peak_mib"], row["limit"] = memory[case.name], None
        if case.dtype is not None:
            with FlopCounterMode(display=False) as counter:
                eagerly(case.task)  # operations of a replay are not counted
            row["limit"] = counter.get_total_flops() / middle / limits[case.dtype]
        elif case.moved:
            row["limit"] = case.moved / middle / limits[None]
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = [
        "| | median | quartiles | times faster | share of the limit | MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ratio = f"{row['times_faster']:.2f}" if row["times_faster"] else ""
        share = f"{row['limit']:.0%}" if row["limit"] else ""
        held = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        units = ((1e6, "us"), (1e3, "ms"))
        scale, unit = next((each for each in units if row["seconds"] * each[0] < 1000), (1, "s"))
        middle, low, high = (f"{scale * row[name]:.3g}" for name in ("seconds", "low", "high"))
        lines.append(f"| {row['name']} | {middle} {unit} | {low} - {high} | {ratio} | {share} | {held} |")
    return "\n".join(lines) + "\n"


def memory(updates: int, device: str, out: Path) -> None:
    """Play episodes of random actions, short ones on small images, and plot the memory held after each."""
    config = replace(PAPER, image_size=128, cloning_length=0, episode_length=16, updates=updates)
    env, rng = make(50, config, device), np.random.default_rng(0)
    held = []
    for _ in tqdm(range(updates), unit="update"):
        play(env, rng)
        held.append(torch.cuda.memory_allocated(device) / 2**20 if device != "cpu" else status("VmRSS"))
    figure, axes = plt.subplots(figsize=(8, 4), constrained_layout=True)
    axes.plot(held)
    axes.set(xlabel="update", ylabel="memory held, MiB", ylim=(0, None))
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.replace_file(out / "memory.png", partial(figure.savefig, format="png", dpi=80))
    checkpoint.save_json({"mib": held}, out / "memory.json")
    plt.close(figure)


def main() -> None:
    """Measure and print the table."""
    args = tyro.cli(Args, description=__doc__)
    names = args.groups.split(",")
    try:
        device = pick_device(args.device)
        for name in names:
            if name not in GROUPS:
                raise RunError(f"there is no group {name!r}; choose from {', '.join(GROUPS)}")
    except (ConfigError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    keep_freed_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.memory_updates:
        memory(args.memory_updates, device, args.out or Path())
        return
    # On a GPU float32 convolutions round their factors; so does the matrix product they are held against.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    limits: dict[torch.dtype | None, float] = {None: bandwidth(device)}
    limits |= {dtype: limit(dtype, device) for dtype in (torch.float32, torch.bfloat16)}
    head = (
        f"{machine(device)}. Matrix products: {limits[torch.float32] / 1e9:.0f} GFLOP/s in float32, "
        f"{limits[torch.bfloat16] / 1e9:.0f} in bfloat16; a copy reads and writes "
        f"{limits[None] / 1e9:.0f} GB/s"
    )
    rows = []
    for name in names:
        rows += measure(list(GROUPS[name](device)), args.rounds, device, limits)
        text = f"{head}.\n\n{markdown(rows)}"
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            state = {"machine": head, "rows": rows}
            checkpoint.save_json(state, args.out / "speed.json")
            checkpoint.replace_file(args.out / "speed.md", partial(Path.write_text, data=text))
        print(f"{name} done", flush=True)
    print(text)


if __name__ == "__main__":
    main()
