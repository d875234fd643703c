"""Commands in forked children: what each printed, how it ended, and the most memory that it held.

Importing PyTorch takes seconds. A parent that has imported everything forks a child in milliseconds. It must
not have begun a second thread, for a child inherits locks, but no threads that would give them back.
"""

from __future__ import annotations

import os
import re
import runpy
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

BAR = re.compile(r"\[\d+:\d\d.*\]$")
"""How a line of a progress bar ends."""


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit code, or less its signal, what it printed, seconds, and MiB at most."""

    code: int
    out: str
    err: str
    seconds: float
    peak: float

    def lines(self) -> list[str]:
        """What stands on standard error beside progress bars and notes."""
        lines = [line.strip() for line in re.split("[\r\n]", self.err)]
        return [line for line in lines if line and not line.startswith("note: ") and not BAR.search(line)]

    def complaint(self, named: str) -> str:
        """What is wrong with this way to refuse; empty if it is one error line with `named` and code 2."""
        lines = self.lines()
        if "Traceback" in self.err:
            return f"a traceback: {lines[-1]}"
        if self.code != 2:
            return f"exit code {self.code}: {' / '.join(lines[-3:])}"
        if len(lines) != 1 or not lines[0].startswith("error: "):
            return f"{len(lines)} lines instead of one error: {' / '.join(lines[:5])}"
        return "" if named in lines[0] else f"{named} is not named: {lines[0]}"


def fork(task: Callable[[], object], kill_after: float | None = None) -> Outcome:
    """Run `task` in a child; it is killed with SIGKILL after so many seconds, None: never."""
    start = time.monotonic()
    pipes = [os.pipe(), os.pipe()]
    child = os.fork()
    if not child:
        _run(task, [write for _, write in pipes])
    texts = {}
    for read, write in pipes:
        os.close(write)
        texts[read] = b""
    waiting = list(texts)
    while waiting:
        left = None if kill_after is None else max(0.0, start + kill_after - time.monotonic())
        ready, _, _ = select.select(waiting, [], [], left)
        if not ready:
            os.kill(child, signal.SIGKILL)
            kill_after = None
        for read in ready:
            part = os.read(read, 2**16)
            texts[read] += part
            if not part:
                os.close(read)
                waiting.remove(read)
    _, status, usage = os.wait4(child, 0)
    out, err = (text.decode(errors="replace") for text in texts.values())
    code = os.waitstatus_to_exitcode(status)
    return Outcome(code, out, err, time.monotonic() - start, usage.ru_maxrss / 1024)


def _run(task: Callable[[], object], pipes: Sequence[int]) -> NoReturn:
    """Be the child: end as the interpreter would, but without what the parent does at its end."""
    code: object = 1
    try:
        for pipe, descriptor in zip(pipes, (1, 2), strict=True):
            os.dup2(pipe, descriptor)
        sys.stdout, sys.stderr = (os.fdopen(each, "w", buffering=1, closefd=False) for each in (1, 2))
        task()
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code if isinstance(code, int) else 1)


def command(
    name: str,
    words: str,
    cwd: Path,
    kill_after: float | None = None,
    before: Callable[[], object] = lambda: None,
) -> Outcome:
    """`python -m NAME WORDS` in the folder `cwd`; the child calls `before` first."""

    def task() -> None:
        os.chdir(cwd)
        before()
        for module in (name, f"{name}.__main__"):
            sys.modules.pop(module, None)
        sys.argv = [name, *words.split()]
        runpy.run_module(name, run_name="__main__", alter_sys=True)

    return fork(task, kill_after)
