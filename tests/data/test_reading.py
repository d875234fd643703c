"""Levels, EXIF data, pages and sizes of images; defects that are lost when a data set is made small."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from trees import SHAPE, image, save

from nbs_env.data import DataError, DataWarning, load, read_image, resize_image, split
from nbs_env.data.classes import read_folder
from nbs_env.data.reading import read_large

GREY = image(0)[..., 0]
TWELVE = (GREY.astype(np.uint16) * 16).clip(0, 4095)
SIXTEEN = GREY.astype(np.uint16) * 257


def folder(root: Path, *images: np.ndarray) -> Path:
    for number, array in enumerate(images):
        save(root / "images" / f"{number}.png", array)
    return root


def test_12_bit_is_scaled_as_12_bit_and_said_once(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match=r"no level of 16 bit above 4095 in 0\.png, 2\.png, so 0") as caught:
        data = load("folder", folder(tmp_path, TWELVE, GREY, TWELVE), image_size=64)
    assert len(caught) == 1
    assert data.white == 4095
    assert (data.images[0] == resize_image(np.round(TWELVE / 4095 * 255).astype(np.uint8), 64)).all()
    assert (data.images[0] == resize_image(TWELVE, 64, white=4095)).all()
    assert np.abs(data.images[0].astype(int) - data.images[1]).max() <= 2


def test_16_bit_is_scaled_as_16_bit_without_a_word(tmp_path: Path) -> None:
    black = np.zeros(SHAPE, np.uint16)  # fits either range
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load("folder", folder(tmp_path, SIXTEEN, GREY, black), image_size=64)
    assert data.white == 65535
    assert (data.images[0] == data.images[1]).all()
    assert load("folder", folder(tmp_path / "8", GREY), image_size=64).white == 255


def test_a_set_of_both_ranges_is_refused(tmp_path: Path) -> None:
    message = r"1\.png: no level of 16 bit above 4095, so 12 bit, but 0\.png has 16; save both"
    with pytest.raises(DataError, match=message):
        load("folder", folder(tmp_path, SIXTEEN, TWELVE))
    save(tmp_path / "classes" / "a" / "0.png", SIXTEEN)
    save(tmp_path / "classes" / "b" / "1.png", TWELVE)
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path / "classes", 32, 1)


def test_white_is_the_callers(tmp_path: Path) -> None:
    save(tmp_path / "x.png", TWELVE)
    dark, light = (read_large(tmp_path / "x.png", 64, white=white) for white in (65535, 4095))
    assert dark.max() == 16
    assert light.max() == 254
    with pytest.warns(DataWarning, match=r"x\.png: no level of 16 bit above 4095, so it is read as 12 bit"):
        assert (read_image(tmp_path / "x.png") == light).all()
    save(tmp_path / "y.png", SIXTEEN)
    with pytest.raises(DataError, match=r"y\.png: levels up to 65535, above 4095, the white of this data"):
        read_image(tmp_path / "y.png", white=4095)
    with pytest.raises(DataError, match="image: levels up to 65535"):
        resize_image(SIXTEEN, 64, white=4095)


BAD_EXIF = (
    struct.pack("<IH", 8, 2) + struct.pack("<HHII", 0x112, 3, 1, 6) + struct.pack("<HHIi", 0x128, 9, 1, -5)
)


def test_exif_data_that_pillow_chokes_on(tmp_path: Path) -> None:
    picture = Image.fromarray(image(0))
    picture.save(tmp_path / "turned.jpg", exif=b"Exif\0\0II*\0" + BAD_EXIF + bytes(4))
    assert read_image(tmp_path / "turned.jpg").shape == (*SHAPE[::-1], 3)
    picture.save(tmp_path / "none.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read_image(tmp_path / "none.jpg").shape == (*SHAPE, 3)
    for file in ("images/a.jpg", "images/b.jpg", "good/c.jpg"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / file, exif=b"Exif\0\0XXXX\0\0\0\0")
    message = r"a\.jpg, b\.jpg, c\.jpg: damaged EXIF data, so it is read as stored"
    with pytest.warns(DataWarning, match=message) as caught:
        load("folder", tmp_path, image_size=64)
    assert len(caught) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_every_orientation_is_turned_as_pillow_does(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image(0)).save(tmp_path / f"x.{suffix}", exif=exif)
    with Image.open(tmp_path / f"x.{suffix}") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    assert (read_image(tmp_path / f"x.{suffix}") == expected).all()
    assert expected.shape[:2] == (SHAPE if orientation < 5 else SHAPE[::-1])


def test_images_of_several_pages(tmp_path: Path) -> None:
    first, second = (Image.fromarray(image(number)) for number in range(2))
    first.save(tmp_path / "x.tif", save_all=True, append_images=[second])
    with pytest.raises(DataError, match=r"x\.tif: an image of 2 pages; save each as a file of its own"):
        read_image(tmp_path / "x.tif")
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    first.save(tmp_path / "plain.jpg")
    assert (read_image(tmp_path / "phone.jpg") == read_image(tmp_path / "plain.jpg")).all()


def test_a_scan_that_is_too_large_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "x.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"x\.png: too large an image .*; cut it into tiles"):
        read_image(tmp_path / "x.png")


def test_a_16_bit_tiff_in_which_0_is_white(tmp_path: Path) -> None:
    Image.fromarray(SIXTEEN).save(tmp_path / "x.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "x.tif") as picture:
        assert picture.tag_v2[262] == 0
    with pytest.raises(DataError, match=r"x\.tif: a 16-bit TIFF in which 0 is white"):
        read_image(tmp_path / "x.tif")


def thin(root: Path, *widths: int) -> Path:
    """Images of 1024 pixels with an upright line of a width in each."""
    for number, width in enumerate(widths):
        drawn = np.zeros((1024, 1024), bool)
        drawn[50:900, 500 : 500 + width] = True
        save(root / "images" / f"{number}.png", np.zeros((1024, 1024), np.uint8))
        save(root / "masks" / f"{number}.png", drawn)
    return root


def test_a_defect_that_vanishes_is_unknown_not_normal(tmp_path: Path) -> None:
    root = thin(tmp_path, 1, 20, 0)
    with pytest.warns(DataWarning, match="too thin for image_size 128: the defects in 0;") as caught:
        data = load("folder", root, image_size=128)
    assert list(data.has_mask) == [False, True, True]
    assert data.kinds == ("", "", "good")
    with pytest.raises(DataError, match="'0' has no mask"):
        split(data, ("0",), np.random.default_rng(0))
    size = int(str(caught[0].message).split("image_size ")[-1].split()[0])
    assert load("folder", root, image_size=size).has_mask.all()


def test_when_all_defects_vanish_the_message_says_so(tmp_path: Path) -> None:
    root = thin(tmp_path, 1, 0)
    with pytest.raises(DataError, match=r"the defects in 0, so none is left; image_size (256) keeps them"):
        load("folder", root, image_size=128)
    assert load("folder", root, image_size=256).masks[0].any()
