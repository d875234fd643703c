"""What a comparison leaves to be read: table.md."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import torch

from benchmarks.statistics import INTERVALS
from nbs_env.common import checkpoint
from nbs_env.common.networks import pick_device

Table = list[list[str]]
"""Lines of cells, the head first."""


def machine(device: str) -> str:
    """What figures were measured on, in one line with versions and date."""
    device = str(pick_device(device))
    cpu = f"CPU, {torch.get_num_threads()} threads"
    where = cpu if device == "cpu" else torch.cuda.get_device_name(device)
    return f"{where}; PyTorch {torch.__version__}, Python {platform.python_version()}; {date.today()}"


def markdown(lines: Table) -> str:
    """A table whose first line is its head."""
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], "|" + " --- |" * len(lines[0]), *text[1:]])


def report(
    out: Path,
    module: str,
    argv: Sequence[str] | None,
    device: str,
    tables: Sequence[Table],
    failed: Sequence[str],
    pictures: Mapping[str, Path],
) -> None:
    """Write and print table.md: the command, the machine, tables, what failed, and pictures."""
    command = f"python -m benchmarks.{module} {shlex.join(sys.argv[1:] if argv is None else argv)}"
    notes = [INTERVALS, *(f"Not computed: {each}" for each in failed)]
    places = {title: place.resolve().relative_to(out.resolve()) for title, place in pictures.items()}
    notes += [f"{title}:\n\n![]({place.as_posix()})" for title, place in places.items()]
    text = "\n\n".join([f"`{command}`", f"{machine(device)}.", *map(markdown, tables), *notes]) + "\n"
    checkpoint.save_text(text, out / "table.md")
    print(text)
