"""A sampler to take along: REINFORCE on several data sets in turn, and its policy in a file.

python examples/take_along.py policy.pt DATA magnetic_tile:Blowhole mvtec:grid nanotwice
python -m benchmarks.policies --agents random-patches,trained:policy.pt --datasets crackforest \\
    --data-root DATA --preset micro --metric nbs.pixel_f1 --out DIR
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from agents.reinforce import Reinforce
from agents.trained import save
from nbs_env import PRESETS, Config, PatchSamplingEnv
from nbs_env.data import AnomalyDataset, load

EPISODES = 10_000


def train(datasets: list[AnomalyDataset], config: Config, episodes: int) -> Reinforce:
    """An agent that has played about `episodes` episodes, as many on each of the data sets."""
    rounds = max(1, round(episodes / config.reinit_period / len(datasets)))
    config = replace(config, beta_horizon=max(1, rounds * config.reinit_period // 2))  # then R_pred alone
    envs = [PatchSamplingEnv(data, labeled=4, config=config) for data in datasets]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    agent = Reinforce(envs[0], seed=0)
    cloned: list[float] = []
    with tqdm(total=rounds * len(envs) * config.reinit_period, unit="episode") as bar:
        for _ in range(rounds):
            for env in envs:
                agent.learn(env, config.reinit_period, lambda info: cloned.append(info["R_clone_mean"]))
                agent.baseline = {}  # what is usual on these images is not so on the next
                bar.update(config.reinit_period)
                bar.set_postfix(R_clone=f"{np.mean(cloned[-config.reinit_period :]):.2f}")
    return agent


if __name__ == "__main__":
    file, root, *names = sys.argv[1:]
    pairs = [name.partition(":")[::2] for name in names]
    size = PRESETS["micro"].image_size
    found = [
        load(name, None if name == "synthetic" else Path(root), category=category or None, image_size=size)
        for name, category in pairs
    ]
    save(train(found, PRESETS["micro"], EPISODES).policy, Path(file))
