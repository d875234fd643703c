"""The frame of every comparison: cells -> play -> table.

A comparison is its cells, what plays one, and what their figures come to. Figures are kept with the settings
and the version of the code that made them, and are not computed again as long as both hold. What others made
is put aside, and the cell is played again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.runs import versions
from nbs_env.common.settings import Count, check_types

PACKAGES = ("nbs_env", "agents", "baselines", "benchmarks")
OTHER = "by another version of the code"


@dataclass(frozen=True, kw_only=True)
class FrameArgs:
    """How often, where to compute, and where to put it."""

    out: Path
    """Folder for runs and tables; on a cluster one that all its machines see, as for the data."""
    seeds: Count = 3
    """Runs of each kind, with the seeds 0, 1, ...; each seed has labelled images of its own."""
    engine: Literal["local", "ray"] = "local"
    """Run one after the other here, or on a Ray cluster (extra `cluster`)."""
    cpus: float = 1
    """Cores of a run on Ray; as many threads."""
    gpus: float = 0
    """GPUs of a run on Ray; several share one with a fraction."""

    def __post_init__(self) -> None:
        """Check types and bounds, and refuse what could not run."""
        check_types(self, RunError)
        if self.engine == "ray" and importlib.util.find_spec("ray") is None:
            raise RunError("engine is ray; install it: python -m pip install -e '.[cluster]'")

    @property
    def runs(self) -> Path:
        """Where the runs lie; absolute, for Ray's workers stand elsewhere."""
        return self.out.resolve() / "runs"


@dataclass(frozen=True, kw_only=True)
class DataArgs(FrameArgs):
    """And on which data sets."""

    datasets: str = "crackforest"
    """Data sets, separated by commas; a category follows a colon (mvtec:grid)."""
    data_root: Path | None = None
    """Folder that holds the data sets."""

    def splits(self) -> Iterator[tuple[str, int, list[str]]]:
        """Each data set under each seed, with its options of `nbs train`; all of a seed come first."""
        for seed in range(self.seeds):  # so that an unfinished comparison is a fair one
            for dataset in self.datasets.split(","):
                name, _, category = dataset.partition(":")
                words = ["--dataset", name, "--seed", str(seed)]
                words += ["--category", category] if category else []
                if self.data_root and name != "synthetic":
                    words += ["--data-root", str(self.data_root)]
                yield dataset, seed, words


@dataclass(frozen=True, eq=False)
class Cell:
    """One thing to compute.

    Attributes:
        key: the columns that name it, its seed among them.
        place: the folder that it may fill; its figures lie beside it.
        settings: what makes it what it is, as JSON gives it back.
        play: computes it, going on with what lies in `place` if it can; its figures, as JSON can hold them.
        asked: what it is to tell of itself; where that changes it is played, but stays what it is.
    """

    key: dict[str, Any]
    place: Path
    settings: dict[str, Any]
    play: Callable[[], Any]
    asked: Any = None

    @property
    def name(self) -> str:
        """What it is called, without its seed."""
        return " ".join(str(value) for column, value in self.key.items() if column != "seed")

    @property
    def file(self) -> Path:
        """Its settings, the version of the code, and figures once it is played."""
        return self.place.with_name(f"{self.place.name}.json")

    def look(self) -> tuple[Any, str]:
        """Its figures, or None if it has to be played; and who made what it left, if not this code so set.

        Data that have moved are no other setting, but are looked at: whether they are the same.
        """
        if not self.file.is_file():
            return None, OTHER if self.place.exists() else ""
        with checkpoint.unpacking(self.file):
            stored = json.loads(self.file.read_text(encoding="utf-8"))
            reason = OTHER if stored["code"] != code() else different(stored["settings"], self.settings)
            same = (stored["settings"], stored["asked"]) == (self.settings, self.asked)
            return stored.get("figures") if same else None, reason

    def make(self, version: str) -> None:
        """Play it, and keep its figures."""
        state = {"settings": self.settings, "asked": self.asked, "code": version}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save_json(state, self.file)
        checkpoint.save_json(state | {"figures": self.play()}, self.file)


def different(before: Any, now: Any, name: str = "settings") -> str:
    """The first setting that differs, in words; empty if none does. Where the data lie is no matter."""
    if isinstance(before, dict) and isinstance(now, dict):
        names = [each for each in before | now if each != "data_root"]
        return next(filter(None, (different(before.get(n), now.get(n), n) for n in names)), "")
    return "" if before == now else f"with {name} = {before}, not {now}"


@functools.cache
def code() -> str:
    """The version of the code: the package's number, and a digest of its sources."""
    home, digest = Path(__file__).parents[1], hashlib.sha256()
    files = {file.relative_to(home).as_posix(): file for p in PACKAGES for file in (home / p).rglob("*.py")}
    for name in sorted(files):
        digest.update(name.encode() + files[name].read_bytes())
    return f"{versions().get('neural-batch-sampling', 'not installed')}, {digest.hexdigest()[:16]}"


@dataclass
class Played:
    """Cells, and what those that have ended came to."""

    cells: Sequence[Cell]
    figures: dict[Cell, Any] = field(default_factory=dict)
    problems: dict[Cell, str] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each cell that has ended: its key, what went wrong, its figures."""
        return [
            cell.key | {"error": self.problems.get(cell, "")} | self.figures.get(cell, {})
            for cell in self.cells
            if cell in self.figures or cell in self.problems
        ]

    def failed(self, *more: tuple[str, int]) -> list[str]:
        """A line for what failed, and for `more`, lines with their seed; seeds that are alike share one."""
        seeds: dict[str, list[str]] = {}
        pairs = [(f"{cell.name}: {problem}", cell.key["seed"]) for cell, problem in self.problems.items()]
        for line, seed in [*pairs, *more]:
            seeds.setdefault(line, []).append(str(seed))
        return [f"{line} (seed {', '.join(each)})" for line, each in seeds.items()]


Rows = Callable[[Played], list[dict[str, Any]]]


def play(cells: Iterable[Cell], args: FrameArgs, csv: str, rows: Rows = Played.rows) -> Played:
    """Compute the cells that are not there yet, a line for each; one that fails stops no other.

    The file `csv` gets the `rows` of those that have ended, time and again.

    Raises:
        RunError: all failed.
    """
    played = Played(list(cells))
    args.out.mkdir(parents=True, exist_ok=True)
    played.figures |= _standing(played.cells, args.out.resolve())
    todo = [cell for cell in played.cells if cell not in played.figures]
    for count, (cell, problem) in enumerate(_ended(todo, args), 1):
        print(
            f"{count} of {len(todo)}: {cell.name}, seed {cell.key['seed']}: {problem or 'done'}", flush=True
        )
        if problem:
            played.problems[cell] = problem
        else:
            played.figures[cell], _ = cell.look()
        checkpoint.save_csv(rows(played), args.out / csv)
    checkpoint.save_csv(rows(played), args.out / csv)
    if not played.figures:
        raise RunError("nothing could be computed: " + "; ".join(played.failed()))
    return played


def _standing(cells: Sequence[Cell], out: Path) -> dict[Cell, Any]:
    """The figures that are there; what may not stand is put aside, and a line says so for each reason."""
    figures, put_aside = {}, dict[str, list[str]]()
    for cell in cells:
        found, reason = cell.look()
        if reason:
            put_aside.setdefault(reason, []).append(f"{cell.name} {cell.key['seed']}")
            for old in filter(Path.exists, (cell.place, cell.file)):
                new = out / "before" / old.relative_to(out)
                shutil.rmtree(new, ignore_errors=True)
                new.parent.mkdir(parents=True, exist_ok=True)
                old.replace(new)
        elif found is not None:
            figures[cell] = found
    for reason, names in put_aside.items():
        print(f"made {reason}, so put into {out / 'before'} and played again: {', '.join(names)}", flush=True)
    return figures


def _ended(cells: Sequence[Cell], args: FrameArgs) -> Iterator[tuple[Cell, str]]:
    """Each cell when it has ended, with what went wrong or an empty string."""
    if args.engine == "local":
        for cell in cells:
            yield cell, _problem(partial(cell.make, code()))
        return
    import ray

    ray.init(log_to_driver=False, ignore_reinit_error=True)
    # A worker or a machine that dies costs a retry, which goes on from the last checkpoint.
    remote: Any = ray.remote(num_cpus=args.cpus, num_gpus=args.gpus, max_retries=3)(Cell.make)
    waiting = {remote.remote(cell, code()): cell for cell in cells}
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
