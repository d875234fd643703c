"""Can an episode's reward tell samplers apart? `python -m benchmarks.credit --out DIR`.

Random patches train a learner. At some updates it is put aside, and each sampler plays many episodes of one
update from that very state, under each reward (`Config.reward`). How often the better sampler's episode is
paid more says what one episode can teach.

Further options go to `train.py` (default: `--preset micro`). What DIR holds is not computed again. DIR gets
results.csv and table.md. `--engine ray` spreads the seeds over a Ray cluster.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from nbs_env.twin import untouched

import train
from agents.base import play_episode
from agents.heuristics import HighestLoss, NormalOnly, RandomPatches
from agents.run import RunArgs, read_images, settings
from benchmarks.engine import EngineArgs, check, gather, is_made
from benchmarks.report import INTERVALS, estimate, finish, probability_of_improvement
from benchmarks.tables import markdown
from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.networks import keep_freed_memory, pick_device
from nbs_env.common.runs import at_least, command
from nbs_env.config import Config
from nbs_env.env import PatchSamplingEnv
from nbs_env.rewards import REWARDS, auc
from nbs_env.task import play as play_game
from nbs_env.wrappers import Alone


class AnomalousOnly(NormalOnly):
    """The oracle's opposite: only moves whose patch has an anomalous pixel, where there is one."""

    wanted = True


SAMPLERS = {
    "random-patches": RandomPatches,
    "normal-only": NormalOnly,
    "anomalous-only": AnomalousOnly,
    "highest-loss": HighestLoss,
}
BETTER = {"normal-only": ("anomalous-only", "random-patches"), "random-patches": ("anomalous-only",)}
"""Choices known to be good over a run, and what they are better than."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CreditArgs(EngineArgs):
    """What to measure, and where to put it."""

    out: Path
    """Folder for results and table."""
    at: tuple[int, ...] = (130, 160, 190)
    """Updates after which the samplers are compared, in rising order."""
    episodes: int = 24
    """Episodes of each sampler from each state."""
    rewards: tuple[str, ...] = tuple(REWARDS)
    """Rewards to measure."""

    def check(self, config: Config) -> None:
        """Refuse what could not run.

        Raises:
            RunError: naming the value and the remedy.
        """
        check(self)
        at_least(2, episodes=self.episodes)
        for name in self.rewards:
            if name not in REWARDS:
                raise RunError(f"rewards has {name!r}; choose among {', '.join(REWARDS)}")
        if not self.at or list(self.at) != sorted(set(self.at)):
            raise RunError(f"at is {self.at}; give updates in rising order")
        for update in self.at:
            if update % config.reinit_period < config.warmup_updates:
                raise RunError(
                    f"at has {update}, in a warm-up, which pays nothing; choose updates whose remainder by "
                    f"reinit_period ({config.reinit_period}) is at least {config.warmup_updates}"
                )


@dataclass(frozen=True)
class Cell:
    """The states of one seed."""

    args: CreditArgs
    run: RunArgs
    config: Config

    @property
    def file(self) -> Path:
        """What it writes."""
        return self.args.out.resolve() / "cells" / f"{self.run.seed}.json"


def episode(env: PatchSamplingEnv, act: Any, number: int) -> tuple[list[float], list[bool]]:
    """One episode, which the learner forgets: pay and whether the patch has a defect, of each training step.

    Args:
        env: whose learner is in the state to play from.
        act: gives an action for an observation.
        number: seeds the walk, and the learner's draws of symmetries and profiles.
    """
    paid, defects, game = [], [], Alone(env)
    with untouched(env.learner):
        env.learner.rng = np.random.default_rng(number)
        begun, _ = game.begin(seed=number)
        for _, _, (info,) in play_game(game, lambda seen: [act(seen[0])], begun):
            if info["segment"] == "training":
                image, top, left = env.walk.path[-1]
                paid.append(info["R_pred"] + info.get("R_shape", 0.0))
                defects.append(bool(env.dataset.masks[image, top : top + 64, left : left + 64].any()))
    return paid, defects


def measure(job: Cell) -> None:
    """Train on random patches, compare rewards and samplers on the way, and write it, unless it is there.

    Raises:
        RunError: it was made with other settings.
    """
    args = job.args
    more = {"at": list(args.at), "episodes": args.episodes, "rewards": list(args.rewards)}
    now = settings(job.run, job.config, None) | more
    if is_made(job.file, now):
        return
    keep_freed_memory()
    data, labeled, _ = read_images(job.run, job.config)
    names = [data.names[i] for i in labeled]
    configs = [job.config, *(replace(job.config, reward=name) for name in args.rewards)]  # type: ignore[arg-type]
    trained, *others = (PatchSamplingEnv(data, names, config, job.run.device) for config in configs)
    for env in (trained, *others):
        env.reset(seed=job.run.seed)
    walk, rows = RandomPatches(trained, job.run.seed), []
    for update in args.at:
        while trained.learner.updates < update:
            play_episode(trained, walk.act)
        for env in others:
            env.learner.load_state_dict(copy.deepcopy(trained.learner.state_dict()))
            for name, cls in SAMPLERS.items():
                sampler, start = cls(env, job.run.seed), time.perf_counter()
                played = [episode(env, sampler.act, number) for number in range(args.episodes)]
                rows.append(
                    {
                        "reward": env.config.reward,
                        "seed": job.run.seed,
                        "update": update,
                        "sampler": name,
                        "milliseconds": 1000 * (time.perf_counter() - start) / args.episodes,
                        "paid": [paid for paid, _ in played],
                        "defects": [defects for _, defects in played],
                    }
                )
    job.file.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save_json({"settings": now, "rows": rows}, job.file)


def sums(rows: list[Row], reward: str, sampler: str) -> list[np.ndarray]:
    """What each state's episodes were paid in all, (episodes,) each."""
    wanted = [row for row in rows if (row["reward"], row["sampler"]) == (reward, sampler)]
    return [np.sum(row["paid"], axis=1) for row in wanted]


def signal(better: list[np.ndarray], worse: list[np.ndarray]) -> float:
    """Difference of the means over the spread of single episodes, the mean over states."""
    each = []
    for x, y in zip(better, worse, strict=True):
        change, spread = x.mean() - y.mean(), np.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2)
        each.append(change / spread if spread else np.sign(change) * np.inf if change else 0.0)
    return float(np.mean(each))


def step_sign(rows: list[Row], reward: str) -> float:
    """How often random patches' steps are paid more without a defect than with one, within a state."""
    wanted = [row for row in rows if (row["reward"], row["sampler"]) == (reward, "random-patches")]
    return float(np.mean([1 - auc(np.array(row["paid"]), np.array(row["defects"])) for row in wanted]))


def summary(rows: list[Row]) -> list[list[str]]:
    """Of each reward: whether known good choices are paid more, in an episode and in a step."""
    lines = [
        [
            *("reward", "better", "worse", "signal to noise", "one episode shows it [95 %]"),
            *("episodes to see it", "one step shows a defect", "ms an episode"),
        ]
    ]
    for reward in dict.fromkeys(row["reward"] for row in rows):
        took = np.median([row["milliseconds"] for row in rows if row["reward"] == reward])
        for better, others in BETTER.items():
            for worse in others:
                pair = sums(rows, reward, better), sums(rows, reward, worse)
                shown, low, high = estimate([*pair[0], *pair[1]], probability_of_improvement, 2000)
                ratio = signal(*pair)
                # two standard errors of a difference of two means
                needed = f"{2 * (2 / ratio) ** 2:.0f}" if ratio else "-"
                cells = [f"{ratio:+.2f}", f"{shown:.2f} [{low:.2f}, {high:.2f}]", needed]
                lines.append([reward, better, worse, *cells, f"{step_sign(rows, reward):.2f}", f"{took:.0f}"])
    return lines


def details(rows: list[Row]) -> list[Row]:
    """Each state, reward and sampler: what an episode is paid, how much that varies, share of defects."""
    table = []
    for row in rows:
        paid = np.sum(row["paid"], axis=1)
        table.append(
            {name: row[name] for name in ("reward", "seed", "update", "sampler")}
            | {"paid": paid.mean(), "spread": paid.std(ddof=1), "defects": np.mean(row["defects"])}
        )
    return table


@command("interrupted; the same command goes on")
def main() -> None:
    """Measure, and write the tables."""
    args, words = tyro.cli(CreditArgs, description=__doc__, return_unknown_args=True)
    line = ["--preset", "micro", "--segmenter-steps", "0", *words, "--agent", "random-patches"]
    run, config, _ = train.parse(line)
    args.check(config)
    todo = [Cell(args, replace(run, seed=seed), config) for seed in range(args.seeds)]
    tasks = [(f"seed {job.run.seed}", partial(measure, job), job.file) for job in todo]
    found, failed = gather(tasks, args)
    rows = [row for content in found.values() for row in content["rows"]]
    table = details(rows)
    checkpoint.save_csv(table, args.out / "results.csv")
    figures = [
        [f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()]
        for row in table
    ]
    parts = [
        markdown(summary(rows)),
        f"{INTERVALS} They redraw episodes, not states.\n\nEach state:\n",
        markdown([list(table[0]), *figures]),
    ]
    finish(args.out, "credit", str(pick_device(run.device)), parts, failed)


if __name__ == "__main__":
    main()
