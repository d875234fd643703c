"""Table 4.2's size, tiles and loss maps against slow references, and what a map may depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import fast_bfloat16

from nbs_env.autoencoder import GRIDS, Autoencoder, AutoencoderTrainer, from_tiles, loss_maps, to_tiles
from nbs_env.common.networks import initialize, place

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    network = Autoencoder(16)
    initialize(network, torch.Generator().manual_seed(0))
    return place(network, CPU)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (3, 3, 128, 192), dtype=torch.uint8, generator=generator)
    return noise // torch.tensor([1, 2, 4], dtype=torch.uint8).reshape(3, 1, 1, 1)


@pytest.mark.parametrize(("channels", "expected"), [(200, 5_955_211), (500, 8_413_111)])
def test_golden_parameter_counts(channels: int, expected: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in Autoencoder(channels).parameters()) == expected


def test_statistics_are_the_batchs_in_training_and_evaluation(autoencoder: Autoencoder) -> None:
    assert [name for name, _ in autoencoder.named_buffers()] == ["grid"]  # no running statistics
    patches = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        first = autoencoder.train()(patches)
        second = autoencoder.eval()(patches)
        other = autoencoder(torch.cat([patches[:1], patches[1:] * 0.1]))
    assert first.shape == patches.shape
    assert torch.equal(first, second)
    assert not torch.allclose(first[0], other[0])


def test_tiles_round_trip_and_order() -> None:
    images = torch.arange(2 * 3 * 128 * 192).reshape(2, 3, 128, 192)
    tiles = to_tiles(images)
    assert tiles.shape == (2, 6, 3, 64, 64)
    for n in range(2):
        for tile in range(6):
            row, column = divmod(tile, 3)
            expected = images[n, :, 64 * row : 64 * row + 64, 64 * column : 64 * column + 64]
            assert torch.equal(tiles[n, tile], expected)
    assert torch.equal(from_tiles(tiles, 128, 192), images)


def test_loss_map_against_slow_reference(autoencoder: Autoencoder, images: torch.Tensor) -> None:
    maps = loss_maps(autoencoder, images, torch.float32)
    for image, found in zip(images, maps, strict=True):
        corners = [(y, x) for y in (0, 64) for x in (0, 64, 128)]
        batch = torch.stack([image[:, y : y + 64, x : x + 64] / 255 for y, x in corners])
        with torch.no_grad():
            reconstruction = autoencoder(batch).numpy()
        expected = np.zeros((128, 192))
        for (y, x), original, copy in zip(corners, batch.numpy(), reconstruction, strict=True):
            expected[y : y + 64, x : x + 64] = sum((original[c] - copy[c]) ** 2 for c in range(3)) / 3
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_grid_shifts_the_tiles_of_the_mirrored_image(
    grid: tuple[int, int], autoencoder: Autoencoder, images: torch.Tensor
) -> None:
    """The reference mirrors by NumPy, measures the larger image with unshifted tiles, and cuts it back."""
    rows, columns = 32 * grid[0], 32 * grid[1]
    mirrored = np.pad(images.numpy(), ((0, 0), (0, 0), (rows, rows), (columns, columns)), mode="reflect")
    height, width = images.shape[-2:]
    expected = loss_maps(autoencoder, torch.from_numpy(mirrored), torch.float32)
    expected = expected[:, rows : rows + height, columns : columns + width]
    shifted = Autoencoder(autoencoder.bottleneck[2].out_channels)
    shifted.load_state_dict(autoencoder.state_dict() | {"grid": torch.tensor(grid)})
    assert torch.equal(loss_maps(shifted, images, torch.float32), expected)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=fast_bfloat16)])
def test_loss_map_depends_on_weights_and_image_alone(
    autoencoder: Autoencoder, images: torch.Tensor, dtype: torch.dtype
) -> None:
    images = images[:2, :, :128, :64]  # two tiles
    together = loss_maps(autoencoder, images, dtype)
    backwards = loss_maps(autoencoder, images.flip(0), dtype).flip(0)
    alone = torch.cat([loss_maps(autoencoder, image[None].clone(), dtype) for image in images])
    strided = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    for same in (alone, backwards, loss_maps(autoencoder, strided, dtype)):
        assert torch.equal(together, same)


@fast_bfloat16
def test_bfloat16_is_near_float32(autoencoder: Autoencoder, images: torch.Tensor) -> None:
    exact, rounded = (loss_maps(autoencoder, images, d) for d in (torch.float32, torch.bfloat16))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    error = (exact - rounded).abs().mean(dim=(1, 2)) / exact.mean(dim=(1, 2))
    assert error.max() < 0.02


def test_output_is_not_rounded_to_bfloat16(autoencoder: Autoencoder) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = autoencoder(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)))
    assert output.dtype == torch.float32
    assert not torch.equal(output, output.bfloat16().float())


# The trainer


def patches_of(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)


def trainer_of(seed: int) -> AutoencoderTrainer:
    trainer = AutoencoderTrainer(4, 1e-3, CPU, torch.float32)
    trainer.reinitialize(torch.Generator().manual_seed(seed))
    return trainer


def test_training_is_adam_on_the_mean_squared_error() -> None:
    trainer, network = trainer_of(0), Autoencoder(4)
    initialize(network, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    patches = patches_of(5)
    losses = []
    for part in (patches[:2], patches[2:]):  # the fifth joins the last mini-batch
        batch = part / 255
        loss = ((network(batch) - batch) ** 2).sum() / batch.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert trainer.train(patches, 2) == pytest.approx(sum(losses) / 2, rel=1e-3)
    state = optimizer.state[network.output.weight]
    own = trainer.optimizer.state[trainer.network.output.weight]
    assert (own["exp_avg"] - state["exp_avg"]).norm() < 0.01 * state["exp_avg"].norm()
    assert own["step"] == 2


def test_reinitialisation_forgets_weights_and_optimiser() -> None:
    trainer = trainer_of(0)
    start = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.train(patches_of(2), 2)
    trainer.reinitialize(torch.Generator().manual_seed(0))
    assert all(torch.equal(value, start[name]) for name, value in trainer.network.state_dict().items())
    assert not any(value.any() for state in trainer.optimizer.state.values() for value in state.values())
