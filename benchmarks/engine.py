"""Where the runs of a comparison are computed: here, or on a Ray cluster."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.runs import at_least, check_settings


@dataclass(frozen=True)
class EngineArgs:
    """How often, and where to compute."""

    seeds: int = 3
    """Runs of each kind, with the seeds 0, 1, ...; each seed has labelled images of its own."""

    engine: Literal["local", "ray"] = "local"
    """Run one after the other here, or on a Ray cluster (extra `cluster`)."""
    cpus: float = 1
    """Cores of a run on Ray; as many threads."""
    gpus: float = 0
    """GPUs of a run on Ray; several share one with a fraction."""


def check(args: EngineArgs) -> None:
    """Refuse what could not run.

    Raises:
        RunError: no seed, or Ray is not installed.
    """
    at_least(1, seeds=args.seeds)
    if args.engine == "ray" and importlib.util.find_spec("ray") is None:
        raise RunError("engine ray needs Ray; python -m pip install -e '.[cluster]', or leave --engine out")


def is_made(file: Path, settings: Mapping[str, Any]) -> bool:
    """Whether `file` is there, a JSON object whose "settings" are these.

    Raises:
        RunError: it was made with others.
        CheckpointError: it is no such file.
    """
    if not file.is_file():
        return False
    with checkpoint.unpacking(file):
        stored = json.loads(file.read_text(encoding="utf-8"))["settings"]
    check_settings(stored, settings, file)
    return True


def execute(tasks: Sequence[tuple[str, Callable[[], Any]]], args: EngineArgs) -> Iterator[tuple[int, str]]:
    """Run all tasks, each with its name, and print a line for each.

    Yields the index of each that has ended, with what went wrong or an empty string.
    """
    for count, (index, problem) in enumerate(_ended([task for _, task in tasks], args), 1):
        print(f"{count} of {len(tasks)}: {tasks[index][0]}: {problem or 'done'}", flush=True)
        yield index, problem


def gather(
    tasks: Sequence[tuple[str, Callable[[], Any], Path]], args: EngineArgs
) -> tuple[dict[int, Any], list[str]]:
    """Run all tasks, each with its name and the JSON file that it leaves.

    Returns:
        What the files hold, by the index of their task, and what failed.

    Raises:
        RunError: all failed.
    """
    found, failed = {}, []
    for index, problem in execute([(name, task) for name, task, _ in tasks], args):
        name, _, file = tasks[index]
        if problem:
            failed.append(f"{name}: {problem}")
        else:
            found[index] = json.loads(file.read_text(encoding="utf-8"))
    if not found:
        raise RunError("nothing could be computed: " + "; ".join(failed))
    return dict(sorted(found.items())), failed  # on a cluster they end in any order


def tidy(directory: Path) -> None:
    """Delete what a finished run no longer needs, most of what it takes on disc."""
    for name in ("checkpoint.pt", "detector.pt", "nbs.pt", "teaching.pt"):
        (directory / name).unlink(missing_ok=True)


def _ended(tasks: Sequence[Callable[[], Any]], args: EngineArgs) -> Iterator[tuple[int, str]]:
    if args.engine == "local":
        for index, task in enumerate(tasks):
            yield index, _problem(task)
        return
    import ray

    ray.init(log_to_driver=False, ignore_reinit_error=True)
    # A worker or a machine that dies costs a retry, which goes on from the last checkpoint.
    remote: Any = ray.remote(num_cpus=args.cpus, num_gpus=args.gpus, max_retries=3)(lambda task: task())
    waiting = {remote.remote(task): index for index, task in enumerate(tasks)}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        yield waiting.pop(done), _problem(partial(ray.get, done))


def _problem(task: Callable[[], Any]) -> str:
    """Run `task`; the first line of what it raises, or an empty string."""
    try:
        task()
    except Exception as error:
        cause = getattr(error, "cause", None) or error  # Ray wraps what a run raises
        return f"{type(cause).__name__}: {cause}".splitlines()[0]
    return ""
