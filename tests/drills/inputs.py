"""Every kind of bad input of `cases`, handed to its command."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .cases import CASES, USAGE, Case
from .forks import Outcome, command
from .small import COMMANDS, RIVAL, Row, furnished

RIVALS = ("forest", "reconstruction")
SECONDS = 60
"""A command that is still at work then has not refused."""


def inputs(
    place: Path, model: Path, cases: Sequence[Case] = CASES, usage: Sequence[Case] = USAGE
) -> Iterator[Row]:
    """Hand each command what it has to refuse."""
    answers = ((case, given(place, model, case).complaint(case.named)) for case in cases)
    broken = [f"{case.what} ({case.command}): {wrong}" for case, wrong in answers if wrong]
    yield Row("inputs", "one error line that names the file or value, exit code 2", len(cases), broken)
    broken = []
    for case in usage:
        outcome = given(place, model, case)
        if outcome.code != 2 or case.named not in outcome.err or "Traceback" in outcome.err:
            broken.append(f"{case.command} {case.options}: exit code {outcome.code}: {outcome.err[-200:]}")
    yield Row("inputs", "a command line that does not parse: usage, exit code 2", len(usage), broken)


def given(place: Path, model: Path, case: Case) -> Outcome:
    """What a command does with a case, in a fresh folder."""
    folder = furnished(place / "case", model)
    case.spoil(folder)
    if case.command in RIVALS:
        module, words = f"baselines.{case.command}", RIVAL
    elif case.command in COMMANDS:
        module, words = COMMANDS[case.command].module, COMMANDS[case.command].start
    else:
        module, words = case.command, ""
    if case.resumed:
        words = "--resume --run-dir done --data-root data"
    outcome = command(module, *f"{words} {case.options}".split(), cwd=folder, kill_after=SECONDS)
    shutil.rmtree(folder)
    return outcome
