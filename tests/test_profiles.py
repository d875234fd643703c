"""The buffer against a list of windows, the symmetries of the square, weights that give equal maps."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fast_bfloat16

from nbs_env.autoencoder import AutoencoderTrainer, loss_maps
from nbs_env.common import checkpoint
from nbs_env.common.symmetries import dihedral, inverse
from nbs_env.predictor import normalize
from nbs_env.profiles import ProfileBuffer, ProfileMeter, copy_weights

CPU = torch.device("cpu")


class SlowBuffer:
    """Keeps the last maps in a list and builds every window anew."""

    def __init__(self, capacity: int, length: int) -> None:
        self.capacity, self.length = capacity, length
        self.rows: list[tuple[int, torch.Tensor, int]] = []

    def append(self, number: int, maps: torch.Tensor, cycle: int) -> None:
        self.rows = [*self.rows, (number, maps, cycle)][-self.capacity :]

    def windows(self) -> dict[int, torch.Tensor]:
        """Number of the last update -> (n, T, H, W)."""
        found = {}
        for i in range(len(self.rows) - self.length + 1):
            window = self.rows[i : i + self.length]
            if len({cycle for _, _, cycle in window}) == 1:
                found[window[-1][0]] = torch.stack([maps for _, maps, _ in window], dim=1)
        return found


# (capacity, length, updates of each cycle): shorter than a profile, longer than the buffer, and between
CASES = [
    (7, 3, (5, 5, 5, 5)),
    (4, 4, (6, 3, 4)),
    (5, 2, (1, 2, 1, 9, 1, 1, 3)),
    (9, 1, (4, 20)),
    (3, 3, (8,)),
]


@pytest.mark.parametrize(("capacity", "length", "cycles"), CASES)
def test_buffer_against_list_of_windows(capacity: int, length: int, cycles: tuple[int, ...]) -> None:
    buffer, slow = ProfileBuffer(capacity, length, (2, 4, 5), CPU), SlowBuffer(capacity, length)
    assert not len(buffer.ends())
    assert buffer.newest() is None
    generator = torch.Generator().manual_seed(0)
    numbers = itertools.count()
    for cycle, updates in enumerate(cycles):
        for age in range(1, updates + 1):
            number = next(numbers)
            maps = torch.rand(2, 4, 5, generator=generator).half().float()
            buffer.append(maps, cycle)
            slow.append(number, maps, cycle)
            windows = slow.windows()
            ends = buffer.ends()
            assert ends.tolist() == list(windows)
            for first in range(2):
                images = (np.arange(len(ends)) + first) % 2  # each end with an image of its own
                found = buffer.profiles(ends, images)
                assert found.dtype == torch.float32
                for profile, window, image in zip(found, windows.values(), images, strict=True):
                    assert torch.equal(profile, window[image])
            newest = buffer.newest()
            if age < length:
                assert newest is None  # a profile never reaches across a re-initialisation
            else:
                assert newest is not None
                assert torch.equal(newest, windows[number])


# Symmetries


def test_eight_symmetries_of_the_square() -> None:
    square = torch.arange(2 * 9).reshape(2, 3, 3)
    images = [dihedral(square, k) for k in range(8)]
    assert torch.equal(images[0], square)
    for a, b in itertools.combinations(images, 2):
        assert not torch.equal(a, b)
    for image in images:
        assert image[:, 1, 1].tolist() == square[:, 1, 1].tolist()
        assert {*image[0, ::2, ::2].flatten().tolist()} == {*square[0, ::2, ::2].flatten().tolist()}
        for k in range(8):  # closed: one after another is again one of them
            assert sum(torch.equal(dihedral(image, k), other) for other in images) == 1
    for k in range(8):
        assert torch.equal(dihedral(dihedral(square, k), inverse(k)), square)


# Weights kept for later


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=fast_bfloat16)])
def test_kept_weights_give_the_maps_of_the_live_autoencoder(dtype: torch.dtype, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 128, 64), dtype=torch.uint8, generator=generator)
    trainer = AutoencoderTrainer(6, 1e-3, CPU, dtype, width=4)
    trainer.reinitialize(generator)
    ring, maps = [], []
    for _ in range(3):
        trainer.train(images[:, :, :64], 2)
        ring.append(copy_weights(trainer.network, dtype))
        maps.append(loss_maps(trainer.network, images, dtype))
    live = torch.stack(maps, dim=1)
    assert not torch.equal(live[:, 0], live[:, 1])  # later training has not changed what was kept
    for mode in (True, False):  # the network that measures is kept, and must not be one mode's
        with torch.inference_mode(mode):
            meter = ProfileMeter(ring[0], CPU, dtype)
            assert torch.equal(meter.measure(ring, images), live)
    assert torch.equal(meter.measure(ring, images), live)
    checkpoint.save({"ring": ring}, tmp_path / "ring.pt")
    assert torch.equal(meter.measure(checkpoint.load(tmp_path / "ring.pt")["ring"], images), live)


def test_normalized_crop_is_the_crop_of_the_normalized_profile() -> None:
    """The reference normalises the whole profile and cuts afterwards; wrapped rows included."""
    buffer = ProfileBuffer(5, 3, (2, 16, 16), torch.device("cpu"))
    for _ in range(7):
        buffer.append(torch.rand(2, 16, 16), 0)
    whole = normalize(buffer.profiles(np.array([6]), np.array([1])))[0]
    crop = buffer.normalized(6, 1, (slice(3, 11), slice(5, 9)))
    assert torch.allclose(crop, whole[:, 3:11, 5:9], rtol=1e-3)
