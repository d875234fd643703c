"""Moves, coverage and the window, each against a slow and obvious second implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nbs_env.config import Config
from nbs_env.walk import CHANGE_IMAGE, DIRECTIONS, Walk

HEIGHT, WIDTH = 150, 190


class Slow:
    """Keeps everything as it is told: a set of sampled pixels, and windows built pixel by pixel."""

    def __init__(self, images: np.ndarray, losses: np.ndarray) -> None:
        self.images, self.losses = images, losses
        self.sampled: set[tuple[int, int, int]] = set()

    def sample(self, image: int, top: int, left: int) -> float:
        pixels = {(image, top + y, left + x) for y in range(64) for x in range(64)}
        new = len(pixels - self.sampled) / 64**2
        self.sampled |= pixels
        return new

    def window(self, image: int, top: int, left: int) -> np.ndarray:
        window = np.zeros((5, 128, 128), np.float32)
        for y in range(128):
            for x in range(128):
                row, column = top - 32 + y, left - 32 + x
                if 0 <= row < HEIGHT and 0 <= column < WIDTH:
                    rgb = self.images[image, row, column].astype(np.float32) / 255
                    history = (image, row, column) in self.sampled
                    window[:, y, x] = (*rgb, self.losses[image, row, column], history)
        return window


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def losses() -> np.ndarray:
    return np.random.default_rng(2).random((3, HEIGHT, WIDTH)).astype(np.float32)


@pytest.fixture
def walk(images: np.ndarray, losses: np.ndarray, config: Config) -> Walk:
    return Walk(images, lambda i: torch.from_numpy(losses[i]), config)


@pytest.mark.parametrize("layers", ["array", "tensor"])
def test_walk_against_slow_reference(
    layers: str, images: np.ndarray, losses: np.ndarray, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    if layers == "tensor":  # as on a GPU
        make = Walk._make_layers
        monkeypatch.setattr(Walk, "_make_layers", lambda self: torch.as_tensor(make(self)))
    walk, slow = Walk(images, lambda i: torch.from_numpy(losses[i]), config), Slow(images, losses)
    rng = np.random.default_rng(3)
    walk.start(np.arange(3), rng)
    for number, action in enumerate(np.random.default_rng(4).integers(9, size=40)):
        before = (walk.image, walk.top, walk.left)
        walk.move(int(action), rng)
        here = (walk.image, walk.top, walk.left)
        if action != CHANGE_IMAGE:
            rows, columns = DIRECTIONS[action]
            assert here == (
                before[0],
                np.clip(before[1] + 24 * rows, 0, HEIGHT - 64),
                np.clip(before[2] + 24 * columns, 0, WIDTH - 64),
            )
        assert walk.sample() == pytest.approx(slow.sample(*here))
        assert walk.path[-1] == here
        if number % 5 == 0:
            np.testing.assert_array_equal(walk.window(), slow.window(*here))
            np.testing.assert_array_equal(walk.window_tensor().numpy(), walk.window())
        history = [[(here[0], y, x) in slow.sampled for x in range(WIDTH)] for y in range(HEIGHT)]
        np.testing.assert_array_equal(walk.history(), history)
    assert len({image for image, _, _ in walk.path}) == 3


def test_eight_directions_are_different_and_of_one_step() -> None:
    assert len(set(DIRECTIONS)) == 8
    assert {abs(r) for r, _ in DIRECTIONS} | {abs(c) for _, c in DIRECTIONS} == {0, 1}
    assert (0, 0) not in DIRECTIONS
    north, east, south, west = DIRECTIONS[::2]
    assert (north, east, south, west) == ((-1, 0), (0, 1), (1, 0), (0, -1))


def test_changing_the_image_never_stays(walk: Walk) -> None:
    rng = np.random.default_rng(0)
    walk.start(np.array([0, 2]), rng)
    places = set()
    for _ in range(50):
        before = walk.image
        walk.move(CHANGE_IMAGE, rng)
        assert {before, walk.image} == {0, 2}
        assert 0 <= walk.top <= HEIGHT - 64
        assert 0 <= walk.left <= WIDTH - 64
        places.add((walk.top, walk.left))
    assert len(places) > 40


def test_change_among_one_image_changes_the_place(walk: Walk) -> None:
    rng = np.random.default_rng(0)
    walk.start(np.array([1]), rng)
    before = (walk.top, walk.left)
    walk.move(CHANGE_IMAGE, rng)
    assert walk.image == 1
    assert (walk.top, walk.left) != before


def test_new_segment_has_an_empty_history_and_asks_for_the_loss_again(
    images: np.ndarray, losses: np.ndarray, config: Config
) -> None:
    asked: list[int] = []

    def loss_map(image: int) -> torch.Tensor:
        asked.append(image)
        return torch.from_numpy(losses[image])

    walk = Walk(images, loss_map, config)
    rng = np.random.default_rng(0)
    for _ in range(2):
        walk.start(np.array([1]), rng)
        for action in (0, 4, 8):
            walk.move(action, rng)
            walk.sample()
            walk.window()
        assert walk.path[-1][0] == 1
        assert len(walk.path) == 3
    assert asked == [1, 1]  # once a segment, however often the image is looked at
    walk.start(np.array([1]), rng)
    assert not walk.history().any()
    assert walk.sample() == 1
