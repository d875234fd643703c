"""Where the runs of a comparison are computed: here, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal


@dataclass(frozen=True)
class EngineArgs:
    """Where to compute."""

    engine: Literal["local", "ray"] = "local"
    """Run one after the other here, or on a Ray cluster (extra `cluster`)."""
    cpus: float = 1
    """Cores of a run on Ray; as many threads."""
    gpus: float = 0
    """GPUs of a run on Ray; several share one with a fraction."""


def execute(tasks: Sequence[Callable[[], Any]], args: EngineArgs) -> Iterator[tuple[int, str]]:
    """Run all tasks; the index of each that has ended, with what went wrong or an empty string."""
    if args.engine == "local":
        for index, task in enumerate(tasks):
            yield index, _problem(task)
        return
    import ray

    ray.init(log_to_driver=False, ignore_reinit_error=True)
    # A worker or a machine that dies costs a retry, which goes on from the last checkpoint.
    remote = ray.remote(num_cpus=args.cpus, num_gpus=args.gpus, max_retries=3)(lambda task: task())
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
