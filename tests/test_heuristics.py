"""Samplers that do not learn, each against what its name promises."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agents.base import AgentError
from agents.heuristics import (
    HighestLoss,
    LowestLoss,
    NormalOnly,
    Random,
    RandomPatches,
    Sweep,
    Weighted,
    WeightedOptions,
)
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv
from nbs_env.walk import DIRECTIONS
from nbs_env.wrappers import SkipWarmup

ALL = (Random, RandomPatches, Sweep, HighestLoss, LowestLoss, NormalOnly, Weighted)


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


@pytest.mark.parametrize("kind", [NormalOnly, lambda env, seed: Weighted(env, seed, WeightedOptions(-9))])
def test_oracles_read_labelled_masks_alone(kind: Any, dataset: AnomalyDataset, config: Config) -> None:
    garbage = dataset.masks.copy()
    garbage[2:] = True
    taken = []
    for masks in (dataset.masks, garbage):
        env = PatchSamplingEnv(replace(dataset, masks=masks), ["0", "1"], config, "cpu")
        env.reset(seed=0)
        rows: list[dict[str, Any]] = []
        kind(env, 0).learn(env, 3, rows.append)
        taken.append(rows)
    assert taken[0] == taken[1]


def test_weights_are_the_logits_of_moves(env: PatchSamplingEnv) -> None:
    agent = Weighted(env, 0, WeightedOptions(2.0, 3.0, 0.3, -1.5, 0.4))
    observation, _ = env.reset()
    compared = 0
    for _ in range(40):
        walk, mask = env.walk, env.dataset.masks[env.walk.image]
        loss, history = env.learner.loss_map(walk.image).numpy(), walk.history().copy()
        places = []
        for rows, columns in DIRECTIONS:
            top, left = np.clip([walk.top + 24 * rows, walk.left + 24 * columns], 0, 64)
            places.append((slice(top, top + 64), slice(left, left + 64)))
        losses = [float(loss[place].mean()) for place in places]
        if len(set(losses)) == 8:  # at a border two moves are one
            scores = [
                2.0 * (mask[place].any() - 0.5)
                + 3.0 * (0.5 - abs(sorted(losses).index(each) / 7 - 0.3))
                - 1.5 * (0.5 - history[place].mean())
                for place, each in zip(places, losses, strict=True)
            ]
            expected = np.exp([*scores, 0.4]) / np.exp([*scores, 0.4]).sum()
            np.testing.assert_allclose(agent.probabilities(observation), expected, rtol=1e-5)
            compared += 1
        observation, *_ = env.step(agent.act(observation))
    assert compared > 5


def test_weights_may_turn_within_a_cycle(dataset: AnomalyDataset, config: Config) -> None:
    env = PatchSamplingEnv(dataset, ["0", "1"], replace(config, reinit_period=6), "cpu")
    env.reset(seed=0)
    observation, *_ = env.step(0)
    agents = [Weighted(env, 0, WeightedOptions(cover=sign * 4.0, late=-1.0)) for sign in (1, -1)]
    likes, dislikes = (agent.probabilities(observation) for agent in agents)
    assert not np.allclose(likes, dislikes, atol=0.01)
    env.learner.updates = 3  # half way
    np.testing.assert_allclose(agents[0].probabilities(observation), 1 / 9)
    np.testing.assert_allclose(Weighted(env, 0).probabilities(observation), 1 / 9)
    assert Weighted(env, 0, WeightedOptions(jump=100)).probabilities(observation)[8] == 1


def test_weights_that_cannot_be_are_named() -> None:
    with pytest.raises(AgentError, match=r"loss_quantile is 2\.0; choose a value from 0 to 1"):
        WeightedOptions(loss_quantile=2.0)


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
