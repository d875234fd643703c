"""Does REINFORCE learn to see? `python -m benchmarks.cloning --minutes 15`.

With beta = 1 only R_clone and R_cover are paid. The agent learns on the labelled images; every two minutes it
walks over images it was not trained on, beside random actions, and a row is printed: the share of sampled
patches that hold an anomaly, and the mean share of a patch's pixels that are new.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from agents.reinforce import Reinforce, ReinforceOptions
from nbs_env.common.runs import command
from nbs_env.config import Config
from nbs_env.data import load
from nbs_env.env import PatchSamplingEnv
from nbs_env.walk import Walk

Act = Callable[[np.ndarray], int]


@dataclass(frozen=True)
class CloningArgs:
    """What to learn on, and for how long."""

    dataset: str = "synthetic"
    """A data set whose unlabelled images have masks."""
    data_root: Path | None = None
    """Its folder."""
    labeled: int = 5
    """Labelled images."""
    minutes: float = 15
    """Wall-clock time to learn for."""
    seed: int = 0
    """Of everything."""
    cloning_length: int = 256
    """Steps of an episode; its training segment is as short as it can be."""
    cover_weight: float = 0.7
    """See `Config`."""
    agent: ReinforceOptions = field(default_factory=ReinforceOptions)
    """The agent's options."""


def walk_unlabeled(env: PatchSamplingEnv, act: Act, walks: int, seed: int) -> tuple[float, float, np.ndarray]:
    """Walk over the unlabelled images with known masks, 64 steps a walk.

    Returns:
        The share of patches with an anomalous pixel, the mean share of new pixels, and the frequencies (9,)
        of the actions.
    """
    rng, data = np.random.default_rng(seed), env.dataset
    walk = Walk(data.images, env.learner.loss_map, env.config)
    anomalous, new, actions = [], [], []
    for _ in range(walks):
        walk.start(env.unlabeled[data.has_mask[env.unlabeled]], rng)
        for _ in range(64):
            actions.append(act(walk.window()))
            walk.move(actions[-1], rng)
            new.append(walk.sample())
            anomalous.append(walk.patch(data.masks[walk.image]).any())
    return float(np.mean(anomalous)), float(np.mean(new)), np.bincount(actions, minlength=9) / len(actions)


class _TimeIsUp(Exception):
    pass


@command()
def main() -> None:
    """Learn, and print the rows."""
    args = tyro.cli(CloningArgs, description=__doc__)
    config = Config(
        beta_horizon=10**9,
        cloning_length=args.cloning_length,
        episode_length=8,
        cover_weight=args.cover_weight,
        predictor_crop=64,
    )
    data = load(args.dataset, args.data_root, seed=args.seed)
    env = PatchSamplingEnv(data, args.labeled, config)
    env.reset(seed=args.seed)
    agent = Reinforce(env, args.seed, args.agent)
    rng = np.random.default_rng(args.seed)
    start = time.monotonic()
    shown = 0

    def show(name: str, update: int, act: Act, walks: int) -> None:
        anomalous, new, actions = walk_unlabeled(env, act, walks, seed=1)
        minutes = (time.monotonic() - start) / 60
        print(
            f"| {name} | {minutes:.1f} | {update} | {anomalous:.3f} | {new:.3f} | {np.round(actions, 2)} |",
            flush=True,
        )

    def on_episode(info: dict[str, Any]) -> None:
        nonlocal shown
        minutes = (time.monotonic() - start) / 60
        if minutes > 2 * (shown + 1):
            shown += 1
            show("REINFORCE", info["update"], agent.act, 30)
        if minutes > args.minutes:
            raise _TimeIsUp

    print(
        "| agent | minutes | episodes | anomalous patches | new pixels | actions |\n|---|---|---|---|---|---|"
    )
    show("random", 0, lambda _: int(rng.integers(9)), 100)
    try:
        agent.learn(env, 10**9, on_episode)
    except _TimeIsUp:
        show("REINFORCE, end", env.learner.updates, agent.act, 100)


if __name__ == "__main__":
    main()
