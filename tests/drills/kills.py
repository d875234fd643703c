"""Commands killed at random moments, resumed, and held against one that was left alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .forks import command
from .small import COMMANDS, Command, Row, complete, content, difference, furnished

KILLS_A_RUN = 5
"""After so many a run is left to finish."""


def kills(place: Path, model: Path, count: int, seed: int) -> Iterator[Row]:
    """Kill each command `count` times; those that train with an agent share theirs."""
    for names in (("train", "ppo"), ("teach",), ("d_anogan",), ("alcn",)):
        rng = np.random.default_rng(seed)
        commands = [COMMANDS[name] for name in names]
        yield killed(place / names[0], model, commands, count, rng)


def killed(place: Path, model: Path, commands: list[Command], count: int, rng: np.random.Generator) -> Row:
    """Kill `commands` in turns, `count` times in all."""
    undisturbed = []
    for number, each in enumerate(commands):
        folder = furnished(place / f"{each.module}-whole-{number}", model)
        undisturbed.append((complete(each, folder).seconds, content(folder / "run")))
    done = runs = again = 0
    broken = []
    while done < count:
        which = runs % len(commands)
        each, (seconds, expected) = commands[which], undisturbed[which]
        folder = furnished(place / f"{each.module}-{runs}", model)
        runs += 1
        words, left = each.start, min(KILLS_A_RUN, count - done)
        while True:
            moment = rng.uniform(0, seconds) if left else None
            outcome = command(each.module, words, folder, kill_after=moment)
            what = f"{each.title}, run {runs}, after {done} kills"
            if outcome.code == -signal.SIGKILL:
                left, done, words = left - 1, done + 1, each.resume
                try:
                    content(folder / "run")
                except ValueError as error:
                    broken.append(f"{what}: {error}")
            elif outcome.code == 2 and words == each.resume and "holds no run to resume" in outcome.err:
                again, words = again + 1, each.start  # killed before there was anything to go on from
            else:
                wrong = (
                    difference(content(folder / "run"), expected) if not outcome.code else outcome.err[-300:]
                )
                broken += [f"{what}: {wrong}"] if wrong else []
                break
    titles = " and ".join(each.title for each in commands)
    durations = " and ".join(f"{seconds:.1f}" for seconds, _ in undisturbed)
    return Row(
        "kills",
        f"{titles}: killed, resumed, and the same bits at the end",
        done,
        broken,
        f"{runs} runs of {durations} s; {again} times killed before the run was claimed, and started again",
    )
