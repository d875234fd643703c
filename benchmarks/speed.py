"""What everything costs, each against its simple reference: `python -m benchmarks.speed --out DIR`.

Things that are compared are in one process and take turns, so that what else the machine does falls on all
alike; the first round warms up and does not count, and iterations are timed once the predictor trains, too.
DIR gets speed.json and speed.md. Images are noise, actions random. `--threads 1` gives figures that others
on the machine disturb least.

The share of the limit is: operations counted by PyTorch, over seconds, over what a matrix product of 2048 by
2048 does per second here in the same arithmetic; for a step bytes, over those that a large copy moves. Memory
is what the first call needs beyond what is held before it, where the system tells (Linux, CUDA).

`python -m benchmarks.speed --memory-updates 2000 --out DIR` plays that many updates instead, and plots how
much memory the process holds to DIR/memory.png. With `--trace` it prints what takes longest in an iteration
with REINFORCE, and writes DIR/trace.json for chrome://tracing.
"""

from __future__ import annotations

import ctypes
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch.profiler import profile, supported_activities
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.report import machine
from benchmarks.speed_cases import GROUPS, Case, Task, eagerly, episode_cases, make, play
from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.networks import keep_freed_memory, pick_device
from nbs_env.common.pictures import new_figure
from nbs_env.common.runs import command
from nbs_env.config import PAPER


@dataclass(frozen=True)
class Args:
    """What to time."""

    out: Path | None = None
    """Folder for speed.json and speed.md; default: only print."""
    groups: str = "step,learner,iteration,episode,micro,detector,d_anogan,alcn"
    """What to time, separated by commas."""
    rounds: int = 5
    """Rounds that count; the slowest things get fewer."""
    threads: int = 0
    """CPU threads; 0: as many as PyTorch takes."""
    device: str = "auto"
    """cpu, cuda or auto."""
    memory_updates: int = 0
    """Plot the memory held over this many updates, and time nothing."""
    trace: bool = False
    """Trace one iteration with REINFORCE, and time nothing."""


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
    lines = dict(line.split(":", 1) for line in file.read_text(encoding="utf-8").splitlines())
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
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM begins anew
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
    figure = new_figure(8, 4)
    axes = figure.subplots()
    axes.plot(held)
    axes.set(xlabel="update", ylabel="memory held, MiB", ylim=(0, None))
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.save_figure(figure, out / "memory.png", dpi=80)
    checkpoint.save_json({"mib": held}, out / "memory.json")


def trace(device: str, out: Path) -> str:
    """Trace an iteration with REINFORCE after a few that warm up; the table of what took longest."""
    case = next(episode_cases(device))
    for _ in range(5):
        case.task()
    with profile(activities=supported_activities()) as record:
        case.task()
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.replace_file(out / "trace.json", lambda part: record.export_chrome_trace(str(part)))
    longest = f"self_{torch.device(device).type}_time_total"
    return record.key_averages().table(sort_by=longest, row_limit=15, max_name_column_width=50)


@command()
def main() -> None:
    """Measure and print the table."""
    args = tyro.cli(Args, description=__doc__)
    names = args.groups.split(",")
    device = str(pick_device(args.device))
    for name in names:
        if name not in GROUPS:
            raise RunError(f"there is no group {name!r}; choose from {', '.join(GROUPS)}")
    keep_freed_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.memory_updates:
        memory(args.memory_updates, device, args.out or Path())
        return
    if args.trace:
        print(trace(device, args.out or Path()))
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
            checkpoint.save_text(text, args.out / "speed.md")
        print(f"{name} done", flush=True)
    print(text)


if __name__ == "__main__":
    main()
