"""What a comparison leaves to be read: table.md and table.html."""

from __future__ import annotations

import html
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import torch

from nbs_env import checkpoint

Table = list[list[str]]
"""Lines of cells, the head first."""


def machine(device: str) -> str:
    """What figures were measured on, in one line with versions and date."""
    cpu = f"CPU, {torch.get_num_threads()} threads"
    where = cpu if device == "cpu" else torch.cuda.get_device_name(device)
    return f"{where}; PyTorch {torch.__version__}, Python {platform.python_version()}; {date.today()}"


def command_line(module: str, argv: Sequence[str] | None) -> str:
    """What was typed."""
    return f"python -m {module} {shlex.join(sys.argv[1:] if argv is None else argv)}"


def markdown(lines: Table) -> str:
    """A table whose first line is its head."""
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], "|" + " --- |" * len(lines[0]), *text[1:]])


def report(
    out: Path,
    command: str,
    device: str,
    tables: Sequence[Table],
    notes: Sequence[str],
    failed: Sequence[str],
    pictures: Mapping[str, Path] = {},
) -> None:
    """Write and print table.md: the command, the machine, tables and notes; table.html has pictures, too."""
    missing = [f"Not computed: {each}" for each in failed]
    parts = [f"`{command}`", f"{machine(device)}.", *map(markdown, tables), *notes, *missing]
    text = "\n\n".join(parts) + "\n"
    checkpoint.save_text(text, out / "table.md")
    print(text)
    page = f'<!doctype html><meta charset="utf-8"><title>Tables</title><pre>{html.escape(command)}</pre>'
    for table in tables:
        cells = [
            "".join(f"<td>{html.escape(cell.replace('**', ''))}</td>" for cell in line) for line in table
        ]
        page += (
            "<table border=1 cellpadding=4>" + "".join(f"<tr>{line}</tr>" for line in cells) + "</table><br>"
        )
    page += "".join(f"<p>{html.escape(line)}</p>" for line in [*notes, *missing])
    for title, picture in pictures.items():
        where = picture.resolve().relative_to(out.resolve()).as_posix()
        page += f'<h3>{html.escape(title)}</h3><img src="{html.escape(where)}" width=700>'
    checkpoint.save_text(page, out / "table.html")
