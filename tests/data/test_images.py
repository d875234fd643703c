"""Reading image files, and the resizing of images and masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nbs_env.data import DataError, DataWarning, image_files, read_image, read_mask, resize_image, resize_mask
from nbs_env.data.images import MASK_SHARE


def slow_resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Cut every source pixel into size x size pieces: each target pixel is a whole number of them."""
    height, width = mask.shape
    pieces = np.kron(mask, np.ones((size, size), dtype=bool))
    result = np.zeros((size, size), dtype=bool)
    for y in range(size):
        for x in range(size):
            block = pieces[y * height : (y + 1) * height, x * width : (x + 1) * width]
            result[y, x] = int(block.sum()) >= MASK_SHARE * block.size
    return result


@pytest.mark.parametrize("shape", [(12, 12), (24, 36), (17, 13), (5, 7), (12, 25), (1, 9)])
@pytest.mark.parametrize("density", [0.1, 0.3])
def test_resize_mask_is_the_area_average(shape: tuple[int, int], density: float) -> None:
    mask = np.random.default_rng(sum(shape)).random(shape) < density
    assert (resize_mask(mask, 12) == slow_resize_mask(mask, 12)).all()


def test_resize_mask_keeps_a_thin_crack() -> None:
    mask = np.zeros((480, 480), dtype=bool)
    mask[:, 241] = True  # one pixel of 480: over half of a pixel of 256, and between the nearest ones picked
    assert resize_mask(mask, 256).any(axis=1).all()


def test_resize_mask_share_is_met_exactly() -> None:
    mask = np.zeros((512, 512), dtype=bool)
    mask[::2, ::2] = True  # exactly a quarter of every target pixel
    assert resize_mask(mask, 256).all()
    mask[0, 0] = False
    assert not resize_mask(mask, 256)[0, 0]


def test_resize_image_leaves_its_own_size_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    resized = resize_image(image, 64)
    assert (resized == image).all()
    assert not np.shares_memory(resized, image)


def test_resize_image_is_anti_aliased() -> None:
    stripes = np.zeros((256, 256), dtype=np.uint8)
    stripes[:, ::2] = 200
    resized = resize_image(stripes, 64)[:, 4:-4]
    assert resized.shape == (64, 56, 3)
    assert np.abs(resized.astype(int) - 100).max() <= 2  # picking single pixels would give 0 or 200


def test_resize_image_treats_all_arrays_alike() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (90, 130), dtype=np.uint8)
    expected = resize_image(np.repeat(grey[..., None], 3, axis=2), 64)
    assert (resize_image(grey, 64) == expected).all()
    assert (resize_image(grey[..., None], 64) == expected).all()
    assert (resize_image(grey.astype(np.uint16) * 257, 64) == expected).all()


@pytest.mark.parametrize("array", [np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8), np.float32)])
def test_resize_image_rejects_other_arrays(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected uint8 or uint16"):
        resize_image(array, 8)


def test_read_image_gives_rgb_for_every_mode(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    pictures = {
        "grey": Image.fromarray(grey),
        "rgb": Image.fromarray(rgb),
        "rgba": Image.fromarray(np.concatenate([rgb, 255 - rgb[..., :1]], axis=2)),
        "deep": Image.fromarray(grey.astype(np.uint16) * 257),
        "palette": Image.fromarray(grey).convert("P"),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        read = read_image(tmp_path / f"{name}.png")
        assert read.dtype == np.uint8
        assert (read == rgb).all(), name


def test_read_image_names_the_broken_file(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "cut.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "float.tif")
    for name in ("cut.png", "text.png", "empty.jpg"):
        with pytest.raises(
            DataError, match=f"{name}: not a readable image .*; replace or remove it"
        ) as caught:
            read_image(tmp_path / name)
        assert str(caught.value).count(name) == 1
    with pytest.raises(DataError, match=r"float\.tif: a floating-point image"):
        read_image(tmp_path / "float.tif")
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")


def test_masks_of_other_kinds_than_the_page_has(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).random((20, 30)) < 0.3
    for name, values in {
        "colour ones": np.repeat(truth.astype(np.uint8)[..., None], 3, axis=2),
        "opaque ones": np.stack([truth.astype(np.uint8)] * 3 + [np.full((20, 30), 255, np.uint8)], axis=2),
        "dim": truth * np.uint8(192),
    }.items():
        Image.fromarray(values).save(tmp_path / f"{name}.png")
        assert (read_mask(tmp_path / f"{name}.png") == truth).all(), name


def test_image_files(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.tif", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.warns(DataWarning, match=r"left out: folder\.png/, notes\.txt \(2 in all\)"):
        assert [path.name for path in image_files(tmp_path)] == ["a.jpg", "b.PNG", "c.tif"]
    with pytest.raises(DataError, match=r"folder\.png: no image file"):
        image_files(tmp_path / "folder.png")
    with pytest.raises(DataError, match="missing: no such directory"):
        image_files(tmp_path / "missing")
