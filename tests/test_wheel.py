"""The wheel generator: what each class shows, anti-aliasing and seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from baselines.d_anogan.wheel import CLASSES, METAL, NORMAL, Wheel, draw, make


def at(picture: np.ndarray, radius: float, degrees: float) -> float:
    """Grey value at polar coordinates, 0 degrees being up, counter-clockwise; half the side is 1."""
    size = len(picture)
    angle = np.deg2rad(degrees + 90)
    x, y = radius * np.cos(angle), -radius * np.sin(angle)
    return picture[int((y + 1) / 2 * size), int((x + 1) / 2 * size)] / 255


@pytest.mark.parametrize("spokes", [3, 5])
@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize("bolts", [4, 5])
def test_parts_are_where_they_belong(spokes: int, forked: bool, bolts: int) -> None:
    picture = draw(Wheel(spokes, forked, (bolts,), rim=0.76, hub=0.3), 256)
    for number in range(spokes):
        turn = 360 / spokes * number
        assert at(picture, 0.7, turn) == pytest.approx(0 if forked else METAL, abs=0.01)
        assert at(picture, 0.34, turn) == pytest.approx(METAL, abs=0.01)  # the foot of a spoke is whole
        assert at(picture, 0.5, turn + 180 / spokes) == 0  # between two spokes
        assert at(picture, 0.85, turn + 180 / spokes) == pytest.approx(METAL, abs=0.01)
    for number in range(bolts):
        assert at(picture, 0.62 * 0.3, 360 / bolts * number) == 0
        assert at(picture, 0.62 * 0.3, 360 / bolts * (number + 0.5)) == pytest.approx(METAL, abs=0.01)
    assert at(picture, 0, 0) == at(picture, 0.98, 45) == 0


def test_edges_are_anti_aliased() -> None:
    """Coverage of pixels: a quarter of the side has the mean of its four parts."""
    fine, coarse = draw(Wheel(), 512) / 255, draw(Wheel(), 128) / 255
    mean = fine.reshape(128, 4, 128, 4).mean(axis=(1, 3))
    assert np.abs(mean - coarse).mean() < 0.01
    assert 0.03 < ((coarse > 0.02) & (coarse < METAL - 0.02)).mean() < 0.3


def test_diameters_are_continuous() -> None:
    base = Wheel()
    area = [draw(replace(base, rim=rim), 64).sum() for rim in (0.70, 0.705, 0.71)]
    assert area[0] > area[1] > area[2]


def test_classes_are_what_they_say() -> None:
    images, labels, wheels = make(4, 64, seed=0)
    assert images.shape == (40, 64, 64)
    assert labels.tolist() == [label for label in range(10) for _ in range(4)]
    for label, each in zip(labels, wheels, strict=True):
        kind = CLASSES[label]
        if kind in NORMAL:
            shape = "forked" if each.forked else "closed"
            assert kind == f"{each.spokes}-{shape}-{each.bolts[0]}"
            assert (len(each.bolts), each.fork_shade) == (1, 0)
        elif kind == "spoke":
            assert each.forked
            assert 0.2 < each.fork_shade < METAL - 0.2
        else:
            assert each.bolts == (4, 5)
    assert len({(each.rim, each.hub) for each in wheels}) == 40


def test_seeded() -> None:
    first, again, other = (make(2, 32, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
