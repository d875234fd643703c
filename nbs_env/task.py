"""The task underneath every environment: an iteration of Algorithm 1 an episode, and how one is played."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium.error import ResetNeeded

from nbs_env import rewards
from nbs_env.config import PATCH, Config
from nbs_env.data import AnomalyDataset
from nbs_env.rewards import Step, Update
from nbs_env.walker import Walker

Infos = list[dict[str, Any]]


class InternalLearner(Protocol):
    """What the patches teach: it outlives the episodes, and says what they were worth."""

    device: torch.device
    updates: int

    @property
    def warmup(self) -> bool:
        """Whether the next update pays no R_pred."""

    def loss_map(self, image: int) -> torch.Tensor:
        """Present loss (H, W) float32, > 0, of one image, which walkers see; on the device."""

    def probability(self, image: int) -> torch.Tensor | None:
        """Present anomaly probability (H, W) of one image, for pictures; None while there is none."""

    def update(self, patches: np.ndarray, places: np.ndarray) -> Update:
        """Learn from patches (N, P, P, 3) uint8, cut at `places` (N, 3): image, top row, left column."""

    def restart(self, seed: int) -> None:
        """Begin from nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on with the same bits, as tensors, numbers and strings."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


CELL = 16
"""Side in pixels of the cells that `PatchSamplingTask.visits` counts in."""


class PatchSamplingTask:
    """Walkers, the learner that they share, and the generator that moves them; environments are its faces.

    Args:
        dataset: images and masks.
        labeled: indices of the labelled images.
        learner: what trains on the patches.
        config: lengths, rewards and sizes.
    """

    def __init__(
        self, dataset: AnomalyDataset, labeled: np.ndarray, learner: InternalLearner, config: Config
    ) -> None:
        self.dataset, self.labeled, self.learner, self.config = dataset, labeled, learner, config
        self._made = [self._walker()]
        self.walkers = self._made  # those of the present episode
        self._started = False
        cells = config.image_size // CELL
        # How many patches of training segments had their centre in a cell of an image: (n, cells, cells).
        self.visits = np.zeros((len(dataset), cells, cells), np.int32)

    def _walker(self) -> Walker:
        return Walker(self.dataset, self.labeled, self.learner.loss_map, self.config)

    def begin(
        self, rng: np.random.Generator, walkers: int = 1, *, seeded: bool = False, restart: bool = False
    ) -> list[Step]:
        """Begin an episode; before the first one the learner begins from nothing.

        Args:
            rng: moves the walkers of this episode.
            walkers: how many; the first is the same one in every episode.
            seeded: whether `rng` is new; it then walks alike whether the learner begins from nothing or not.
            restart: whether it does.
        """
        self.rng = rng
        restart = restart or not self._started
        if seeded or restart:
            learner_seed = int(rng.integers(2**31))
            if restart:
                self.learner.restart(learner_seed)
                self._started = True
                self.visits[:] = 0
        self._made += [self._walker() for _ in range(walkers - len(self._made))]
        self.walkers = self._made[:walkers]
        beta, warmup = rewards.beta(self.learner.updates, self.config.beta_horizon), self.learner.warmup
        return [walker.begin(rng, beta, warmup) for walker in self.walkers]

    def step(self, actions: Sequence[Any] | np.ndarray) -> list[Step]:
        """Take one action a walker; the last step of an episode trains on what all of them have sampled.

        Raises:
            ResetNeeded: no episode has begun, or it has ended.
            InvalidAction: there is no such action; then no walker has moved.
        """
        if len(actions) != len(self.walkers):
            raise ResetNeeded("the episode has not begun; call reset before step")  # another face's has
        numbers = [walker.check(action) for walker, action in zip(self.walkers, actions, strict=True)]
        steps = [walker.step(number, self.rng) for walker, number in zip(self.walkers, numbers, strict=True)]
        if self.done:
            half = PATCH // 2
            places = np.concatenate([walker.walk.path for walker in self.walkers])
            for image, top, left in places:
                self.visits[image, (top + half) // CELL, (left + half) // CELL] += 1
            patches = np.concatenate([walker.patches for walker in self.walkers])
            update = self.learner.update(patches, places)
            steps = [walker.settle(step, update) for walker, step in zip(self.walkers, steps, strict=True)]
        return steps

    @property
    def done(self) -> bool:
        """Whether the episode is complete."""
        return self.walkers[0].done

    def windows(self) -> torch.Tensor:
        """What each walker sees: (walkers, 5, 128, 128), on the learner's device."""
        return torch.stack([walker.walk.window_tensor() for walker in self.walkers])


class Game(Protocol):
    """What `play` plays: episodes of one walker or several."""

    def begin(self) -> tuple[Any, Infos]:
        """Begin an episode: observations (walkers, 5, 128, 128), and infos."""

    def advance(self, actions: Any) -> tuple[Any, np.ndarray, bool, Infos]:
        """Take an action a walker: observations, rewards (walkers,), whether the episode is over, infos."""


def play(game: Game, act: Callable[[Any], Any], observations: Any) -> Iterator[tuple[Any, np.ndarray, Infos]]:
    """Play the episode that has begun to its end; the actions, rewards and infos of each step."""
    done = False
    while not done:
        actions = act(observations)
        observations, paid, done, infos = game.advance(actions)
        yield actions, paid, infos


def past_warmup(
    game: Game,
    act: Callable[[Any], Any],
    begun: tuple[Any, Infos],
    on_episode: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Any, Infos]:
    """Play episodes for as long as they pay no R_pred.

    Args:
        game: whose episode has begun.
        act: gives the actions for observations.
        begun: what `game.begin` gave.
        on_episode: called with the last info of each.

    Returns:
        What `game.begin` gives of the first episode that does pay it.
    """
    while begun[1][0]["warmup"]:
        *_, (_, _, infos) = play(game, act, begun[0])
        if on_episode is not None:
            on_episode(infos[0])
        begun = game.begin()
    return begun
