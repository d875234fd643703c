"""Try what the commands promise: `python -m tests.drills --out DIR`; exit code 1 if one was broken.

Commands run in children of this process, on one thread each, with the autoencoder of Table 4.2 at a sixteenth
of its width. DIR gets drills.md, the table with what was broken, and drills.json.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch._dynamo  # what optimisers import when they are first made, and all else that children need
import tyro

from benchmarks import ablations, policies, tables  # noqa: F401
from benchmarks.report import machine, markdown
from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.runs import command
from nbs_env.common.settings import Count, check_types

from .attacker import attacker
from .disc import disc
from .inputs import inputs
from .kills import kills
from .service import folder, threads
from .small import COMMANDS, Row, complete, furnish

GROUPS = ("kills", "inputs", "disc", "attacker", "threads", "folder")


@dataclass(frozen=True)
class DrillArgs:
    """What to try, and where to put the table."""

    out: Path
    """Folder for drills.md and drills.json."""
    groups: str = ",".join(GROUPS)
    """Drills, separated by commas."""
    kills: Count = 100
    """Kills of each command."""
    images: Count = 20_000
    """Images of the large folder."""
    seed: int = 0
    """Of the moments of the kills."""

    def __post_init__(self) -> None:
        check_types(self, RunError)


def drills(args: DrillArgs, place: Path) -> Iterator[Row]:
    """The rows of all groups asked for; `place` is a folder to work in."""
    model = furnish(place / "model")
    complete(COMMANDS["train"], model)
    (model / "run").rename(model / "done")
    groups: dict[str, Callable[[], Iterator[Row]]] = {
        "kills": lambda: kills(place / "kills", model, args.kills, args.seed),
        "inputs": lambda: inputs(place / "inputs", model),
        "disc": lambda: disc(place / "disc", model),
        "attacker": lambda: attacker(place / "attacker", model),
        "threads": threads,
        "folder": lambda: folder(place / "folder", args.images),
    }
    for name in args.groups.split(","):
        yield from groups[name]()


def report(rows: list[Row], words: list[str], minutes: float) -> str:
    """The table, and each promise that was not kept."""
    cells = [["", "promise", "tried", "broken", ""]]
    cells += [[row.group, row.promise, str(row.tried), str(len(row.broken)), row.remark] for row in rows]
    broken = [f"- {row.group}: {each}\n" for row in rows for each in row.broken]
    head = f"`python -m tests.drills {' '.join(words)}`\n\n{machine('cpu')}; {minutes:.0f} minutes.\n\n"
    return f"{head}{markdown(cells)}\n" + ("\nBroken:\n\n" + "".join(broken) if broken else "")


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the drills, and write the table."""
    args = tyro.cli(DrillArgs, args=argv, description=__doc__)
    for name in args.groups.split(","):
        if name not in GROUPS:
            raise RunError(f"groups has {name!r}; choose from {', '.join(GROUPS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    start, rows, words = time.monotonic(), [], sys.argv[1:] if argv is None else list(argv)
    with tempfile.TemporaryDirectory() as place:
        for row in drills(args, Path(place)):
            rows.append(row)
            print(f"{row.group}: {row.promise}: {row.tried} tried, {len(row.broken)} broken", flush=True)
            text = report(rows, words, (time.monotonic() - start) / 60)
            checkpoint.save_text(text, args.out / "drills.md")
            checkpoint.save_json([asdict(row) for row in rows], args.out / "drills.json")
    print(text)
    if any(row.broken for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
