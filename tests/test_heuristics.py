"""Samplers that do not learn, each against what its name promises."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agents.base import AgentError
from agents.heuristics import HighestLoss, LowestLoss, NormalOnly, Random, RandomPatches, Sweep
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv
from nbs_env.walk import DIRECTIONS
from nbs_env.wrappers import SkipWarmup

ALL = (Random, RandomPatches, Sweep, HighestLoss, LowestLoss, NormalOnly)


@pytest.fixture
def env(dataset: AnomalyDataset, config: Config) -> PatchSamplingEnv:
    made = PatchSamplingEnv(dataset, ["0", "1"], replace(config, cloning_length=60), "cpu")
    made.reset(seed=0)
    return made


def walk(env: PatchSamplingEnv, agent: Random, steps: int) -> list[tuple[int, int, int, dict[str, Any]]]:
    observation, _ = env.reset()
    places = []
    for _ in range(steps):
        observation, *_, info = env.step(agent.act(observation))
        places.append((*env.walk.path[-1], info))
    return places


@pytest.mark.parametrize("kind", ALL)
def test_same_seed_gives_the_same_updates(
    kind: type[Random], dataset: AnomalyDataset, config: Config
) -> None:
    rows: list[list[dict[str, Any]]] = [[], []]
    for run in rows:
        env = PatchSamplingEnv(dataset, ["0", "1"], config, "cpu")
        env.reset(seed=4)
        kind(env, seed=4).learn(env, 3, run.append)
    assert rows[0] == rows[1]
    assert [row["update"] for row in rows[0]] == [1, 2, 3]


def test_random_patches_are_uniform(env: PatchSamplingEnv) -> None:
    places = walk(env, RandomPatches(env, 0), 59)
    images = [image for image, _, _, _ in places]
    assert images == [images[0], 1 - images[0]] * 29 + [images[0]]  # another image every time
    for coordinate in (1, 2):
        values = np.array([place[coordinate] for place in places])
        assert values.min() < 8
        assert values.max() > 56
        assert abs(values.mean() - 32) < 10


def test_sweep_covers_rows_from_where_it_starts(env: PatchSamplingEnv) -> None:
    places = walk(env, Sweep(env, 0), 59)
    rightwards = True
    for before, after in itertools.pairwise(places):
        if after[0] != before[0]:  # another image only from a bottom corner
            assert before[1] == 64
            assert before[2] in (0, 64)
        elif after[1] != before[1]:  # down from the end of a row
            assert before[2] == (64 if rightwards else 0)
            assert after[1] == min(before[1] + 24, 64)
            rightwards = not rightwards
        else:
            assert after[2] == min(max(before[2] + (24 if rightwards else -24), 0), 64)
    assert len({place[0] for place in places}) == 2


@pytest.mark.parametrize(("kind", "best"), [(HighestLoss, max), (LowestLoss, min)])
def test_loss_seekers_go_where_the_new_pixels_loss_is(
    kind: type[HighestLoss], best: Any, env: PatchSamplingEnv
) -> None:
    agent = kind(env, 0)
    observation, _ = env.reset()
    moves = 0
    for _ in range(50):
        here, top, left = env.walk.image, env.walk.top, env.walk.left
        loss, history = env.learner.loss_map(here).numpy(), env.walk.history().copy()
        action = agent.act(observation)
        if action < 8:
            scores = {}
            for number, (rows, columns) in enumerate(DIRECTIONS):
                y, x = top + 24 * rows, left + 24 * columns  # the part of the moved patch inside the image
                inside = np.zeros((128, 128), bool)
                inside[max(y, 0) : y + 64, max(x, 0) : x + 64] = True
                new = inside & (history == 0)
                if inside.sum() > 64**2 / 2 and new.any():
                    scores[number] = loss[new].mean()
            assert scores[action] == pytest.approx(best(scores.values()), rel=1e-5)
            moves += 1
        observation, *_ = env.step(action)
    assert moves > 10


def test_loss_seekers_refuse_moves_that_they_cannot_see(dataset: AnomalyDataset, config: Config) -> None:
    far = PatchSamplingEnv(dataset, 2, replace(config, shift=40))
    with pytest.raises(AgentError, match="shift is 40; this agent sees no further than 32"):
        HighestLoss(far, 0)


def test_normal_only_meets_no_anomaly_where_it_can_be_helped(env: PatchSamplingEnv) -> None:
    places = walk(env, NormalOnly(env, 0), 59)
    jumped = [a[0] != b[0] for a, b in itertools.pairwise(places)]
    met = [info["R_clone"] < 0 for *_, info in places[1:]]
    assert not any(m and not j for m, j in zip(met, jumped, strict=True))
    random = np.mean([info["R_clone"] < 0 for *_, info in walk(env, Random(env, 0), 59)])
    assert random > 0.2


def test_the_oracle_reads_labelled_masks_alone(dataset: AnomalyDataset, config: Config) -> None:
    garbage = dataset.masks.copy()
    garbage[2:] = True
    taken = []
    for masks in (dataset.masks, garbage):
        env = PatchSamplingEnv(replace(dataset, masks=masks), ["0", "1"], config, "cpu")
        env.reset(seed=0)
        rows: list[dict[str, Any]] = []
        NormalOnly(env, 0).learn(env, 3, rows.append)
        taken.append(rows)
    assert taken[0] == taken[1]


def test_wrapper_plays_warm_ups_inside_reset(dataset: AnomalyDataset, config: Config) -> None:
    inner = PatchSamplingEnv(dataset, ["0", "1"], config, "cpu")
    env = SkipWarmup(inner, Random(inner, 0).act)
    _, info = env.reset(seed=0)
    assert inner.learner.updates == 2
    assert not info["warmup"]
    for expected in (3, 4, 5):
        terminated = False
        while not terminated:
            _, _, terminated, _, info = env.step(np.int64(0))
        assert info["update"] == expected
        env.reset()
    assert inner.learner.updates == 7  # past the next warm-up
