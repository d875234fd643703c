"""Can R_pred tell samplers apart? `python -m benchmarks.credit --dataset crackforest --data-root DATA`.

Random patches train a learner. At some updates it is put aside, and each sampler plays one episode from that
very state, many times, with other draws. Printed are R_pred's mean and its spread, what a sampler changes in
it, and how many episodes a policy has to compare before that change is two standard errors.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from agents.base import play_episode
from agents.heuristics import HighestLoss, NormalOnly, RandomPatches
from nbs_env.config import PRESETS
from nbs_env.data import load
from nbs_env.env import PatchSamplingEnv
from nbs_env.runs import command


class AnomalousOnly(NormalOnly):
    """The oracle's opposite: only moves whose patch has an anomalous pixel, where there is one."""

    wanted = True


SAMPLERS = {
    "random-patches": RandomPatches,
    "normal-only": NormalOnly,
    "anomalous-only": AnomalousOnly,
    "highest-loss": HighestLoss,
}


@dataclass(frozen=True)
class CreditArgs:
    """What to measure on."""

    dataset: str = "synthetic"
    """Data set."""
    data_root: Path | None = None
    """Its folder."""
    updates: tuple[int, ...] = (20, 35, 50)
    """Updates after which the samplers are compared; all within one cycle of `quick`."""
    episodes: int = 12
    """Episodes of each sampler from each state."""
    seed: int = 0
    """Of everything."""


def measure(env: PatchSamplingEnv, sampler: RandomPatches, episodes: int) -> tuple[np.ndarray, float]:
    """R_pred (episodes,) of as many episodes from the present state, and the share of anomalous patches."""
    state = copy.deepcopy(env.learner.state_dict())
    rewards, anomalous = [], []
    for episode in range(episodes):
        env.learner.load_state_dict(copy.deepcopy(state))
        env.learner.rng = np.random.default_rng(episode)  # augmentation and the predictor's draws differ too
        rewards.append(play_episode(env, sampler.act)["R_pred"])
        for image, top, left in env.walk.path:
            mask = env.walker.mask_of.get(image, env.dataset.masks[image])
            anomalous.append(mask[top : top + 64, left : left + 64].any())
    env.learner.load_state_dict(state)
    return np.array(rewards), float(np.mean(anomalous))


@command()
def main() -> None:
    """Measure and print the table."""
    args = tyro.cli(CreditArgs, description=__doc__)
    config = PRESETS["quick"]
    data = load(args.dataset, args.data_root, seed=args.seed)
    env = PatchSamplingEnv(data, 5, config)
    env.reset(seed=args.seed)
    walk = RandomPatches(env, args.seed)
    print("| update | sampler | anomalous patches | R_pred | its spread | change | episodes to see it |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for update in args.updates:
        while env.learner.updates < update:
            play_episode(env, walk.act)
        base = np.zeros(0)
        for name, cls in SAMPLERS.items():
            rewards, anomalous = measure(env, cls(env, args.seed), args.episodes)
            base = rewards if name == "random-patches" else base
            change, spread = (
                rewards.mean() - base.mean(),
                np.sqrt((rewards.var(ddof=1) + base.var(ddof=1)) / 2),
            )
            needed = "-" if change == 0 else f"{2 * (2 * spread / change) ** 2:.0f}"
            print(
                f"| {update} | {name} | {anomalous:.2f} | {rewards.mean():.4f} | {rewards.std(ddof=1):.4f} | "
                f"{change:+.4f} | {needed} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
