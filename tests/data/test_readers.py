"""The readers of files, on small trees in the layout of the real data sets."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from trees import (
    SHAPE,
    image,
    make_crackforest,
    make_folder,
    make_magnetic_tile,
    make_mvtec,
    make_nanotwice,
    mask,
    save,
)

from nbs_env.data import DataError, load, reading, resize_image, resize_mask
from nbs_env.data.folder import read_mvtec_training


def test_folder_round_trip(tmp_path: Path) -> None:
    data = load("folder", make_folder(tmp_path / "mine"), image_size=64)
    assert data.name == "folder/mine"
    assert data.names == ("a", "b", "c")
    assert data.kinds == ("", "", "good")
    assert list(data.has_mask) == [True, False, True]
    assert data.sizes == (SHAPE,) * 3
    for number in range(3):
        assert (data.images[number] == resize_image(image(number), 64)).all()
    assert (data.masks[0] == resize_mask(mask(0), 64)).all()
    assert not data.masks[1:].any()


def test_folder_of_the_right_size_is_read_pixel_for_pixel(tmp_path: Path) -> None:
    made = load("synthetic", count=3, image_size=64)
    for name, picture, truth in zip(made.names, made.images, made.masks, strict=True):
        save(tmp_path / "images" / f"{name}.png", picture)
        save(tmp_path / "masks" / f"{name}.png", truth)
    data = load("folder", tmp_path, image_size=64)
    assert (data.images == made.images).all()
    assert (data.masks == made.masks).all()
    assert data.names == made.names


@pytest.mark.parametrize("place", ["good", "Good", "train/good"])
def test_images_known_to_be_good_are_neither_labelled_nor_scored(place: str, tmp_path: Path) -> None:
    make, name = (make_mvtec, "mvtec") if "/" in place else (make_folder, "folder")
    root = make(tmp_path / "mine")
    if name == "mvtec":
        root /= "grid"
        shutil.rmtree(root / "train")
    before = load(name, root, image_size=64)
    assert len(before.good) == 0
    for number in (7, 8):
        save(root / place / f"{number}.png", image(number))
    data = load(name, root, image_size=64)
    assert data.names == before.names
    assert (data.good == np.stack([resize_image(image(number), 64) for number in (7, 8)])).all()


def test_images_past_a_size_lie_on_disc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(tmp_path / "mine")
    in_memory = load("folder", root, image_size=64)
    monkeypatch.setattr(reading, "ON_DISC", 2 * 64 * 64 * 3)  # two of three images, all masks
    on_disc = load("folder", root, image_size=64)
    assert isinstance(on_disc.images, np.memmap)
    assert not isinstance(on_disc.masks, np.memmap)
    assert np.array_equal(in_memory.images, on_disc.images)
    assert np.array_equal(in_memory.masks, on_disc.masks)


def test_mvtec(tmp_path: Path) -> None:
    home = make_mvtec(tmp_path)
    data = load("mvtec", home, category="grid", image_size=64)
    assert data.name == "mvtec/grid"
    assert data.names == ("bent/000", "bent/001", "good/000", "good/001")
    assert data.kinds == ("bent", "bent", "good", "good")
    assert data.has_mask.all()
    assert (data.masks[1] == resize_mask(mask(1), 64)).all()
    assert not data.masks[2:].any()
    for name, root, category in (
        ("mvtec", tmp_path, "grid"),
        ("mvtec", home / "grid", None),
        ("mvtec", home / "grid", "grid"),
        ("folder", home / "grid", None),
        ("folder", home, "grid"),
    ):
        same = load(name, root, category=category, image_size=64)
        assert (same.name, same.names) == (f"{name}/grid", data.names)
        assert (same.images == data.images).all()
    train = read_mvtec_training(home / "grid", 64)
    assert train.shape == (3, 64, 64, 3)
    assert (train[2] == resize_image(image(12), 64)).all()


def test_crackforest(tmp_path: Path) -> None:
    home = make_crackforest(tmp_path)
    data = load("crackforest", home, image_size=64)
    assert data.names == ("001", "002", "042")
    assert list(data.has_mask) == [True, True, False]
    assert data.kinds == ("crack", "crack", "")
    assert (data.masks[1] == resize_mask(mask(1), 64)).all()  # the label 2 alone, neither 3 nor 4
    assert (load("crackforest", tmp_path, image_size=64).masks == data.masks).all()


def test_nanotwice(tmp_path: Path) -> None:
    make_nanotwice(tmp_path)
    data = load("nanotwice", tmp_path, image_size=64)
    assert data.names == ("Anomalous/ITIA1100", "Anomalous/ITIA1101", "Normal/ITIA1141")
    assert data.kinds == ("anomalous", "anomalous", "good")
    assert data.has_mask.all()
    assert (data.masks[1] == resize_mask(mask(1), 64)).all()
    assert not data.masks[2].any()
    assert (data.images[..., 0] == data.images[..., 2]).all()


def test_magnetic_tile(tmp_path: Path) -> None:
    make_magnetic_tile(tmp_path)
    data = load("magnetic_tile", tmp_path, image_size=64)
    assert data.names == ("Blowhole/x_1", "Free/x_1", "Uneven/x_1", "Uneven/x_2")
    assert data.kinds == ("Blowhole", "good", "Uneven", "Uneven")
    assert len(data.good) == len(data.good_originals) == 1  # Free/x_0
    assert list(data.has_mask) == [True, True, False, True]
    assert (data.masks[3] == resize_mask(mask(2), 64)).all()
    for category in ("Blowhole", "MT_Blowhole"):
        one = load("magnetic_tile", tmp_path, category=category)
        assert (one.name, one.kinds) == ("magnetic_tile/Blowhole", ("Blowhole", "good"))


def narrow(path: Path) -> None:
    save(path, np.zeros((40, 100), np.uint8))


def damage(path: Path) -> None:
    path.write_bytes(b"no longer an image")


def remove(path: Path) -> None:
    path.unlink()


def twin(path: Path) -> None:
    save(path.with_suffix(".bmp"), image(0))


def renamed(path: Path) -> None:
    path.rename(path.with_stem("stranger" + path.stem[3:]))


def bare(path: Path) -> None:
    path.rename(path.with_stem(path.stem.removesuffix("_gt")))


def masked(path: Path) -> None:
    shutil.copy(path, path.with_stem(f"{path.stem}_mask"))


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("/not/mounted.png")


def as_gif(path: Path) -> None:
    path.rename(path.with_suffix(".gif"))


def as_folder(path: Path) -> None:
    path.unlink()
    path.with_suffix("").mkdir()


def restructure(path: Path) -> None:
    scipy.io.savemat(path, {"other": np.zeros(3)})


FAULTS: list[tuple[Callable[[Path], Path], str, str, Callable[[Path], None], str]] = [
    (make_folder, "", "masks/a.png", narrow, r"masks/a\.png: 100x40 pixels, but its image a\.png has 100x80"),
    (make_folder, "", "images/b.png", damage, r"images/b\.png: not a readable image"),
    (make_folder, "", "images/b.png", narrow, r"images/b\.png: 100x40 pixels, smaller than a patch.*64"),
    (make_folder, "", "images/b.png", twin, r"images/b\.png: b\.bmp has the same stem"),
    (make_folder, "", "masks/a.png", twin, r"masks/a\.png: a\.bmp has the same stem"),
    (make_folder, "", "masks/a.png", masked, r"a_mask\.png: a\.png has the same stem"),
    (make_folder, "", "masks/a.png", dangle, r"a\.png: a link to a file that is not there; mount or copy it"),
    (make_folder, "", "masks/a.png", as_gif, r"a\.gif: the mask of a\.png cannot be read; .* one of \.bmp"),
    (make_folder, "", "masks/a.png", as_folder, r"masks/a: the mask of a\.png cannot be read"),
    (make_mvtec, "grid", "grid/ground_truth/bent/001_mask.png", remove, r"bent/001\.png: no mask"),
    (make_mvtec, "grid", "grid/test/bent/001.png", remove, r"001_mask\.png: a mask without its image"),
    (make_mvtec, "grid", "grid/test/good/001.png", damage, r"good/001\.png: not a readable image"),
    (make_crackforest, "", "groundTruth/002.mat", remove, r"002\.jpg: no ground truth"),
    (make_crackforest, "", "groundTruth/002.mat", damage, r"002\.mat: not a CrackForest ground truth"),
    (make_crackforest, "", "groundTruth/002.mat", restructure, r"002\.mat: not a CrackForest ground truth"),
    (make_crackforest, "", "image/002.jpg", remove, r"002\.mat: a mask without its image"),
    (make_crackforest, "", "image/002.jpg", narrow, r"002\.jpg: 100x40 pixels"),
    (make_nanotwice, "", "Anomalous/gt/ITIA1101_gt.png", remove, r"ITIA1101\.tif: no mask"),
    (make_nanotwice, "", "Anomalous/gt/ITIA1101_gt.png", renamed, r"strangerA1101_gt\.png: a mask without"),
    (
        make_nanotwice,
        "",
        "Anomalous/gt/ITIA1101_gt.png",
        bare,
        r"ITIA1101\.png: its name should end in _gt\.png",
    ),
    (make_nanotwice, "", "Normal/ITIA1141.tif", narrow, r"ITIA1141\.tif: 100x40 pixels"),
    (make_magnetic_tile, "", "MT_Blowhole/Imgs/x_1.png", remove, r"x_1\.jpg: no mask; expected x_1\.png"),
    (make_magnetic_tile, "", "MT_Blowhole/Imgs/x_1.jpg", remove, r"x_1\.png: a mask without its image"),
]


@pytest.mark.parametrize(("make", "category", "file", "fault", "message"), FAULTS)
def test_a_fault_is_named(
    make: Callable[[Path], Path],
    category: str,
    file: str,
    fault: Callable[[Path], None],
    message: str,
    tmp_path: Path,
) -> None:
    name = make.__name__.removeprefix("make_")
    home = make(tmp_path)
    load(name, home, category=category or None)
    fault(home / file)
    with pytest.raises(DataError, match=message) as caught:
        load(name, home, category=category or None)
    assert "\n" not in str(caught.value)


def test_mvtec_folders_that_do_not_fit(tmp_path: Path) -> None:
    home = make_mvtec(tmp_path)
    shutil.rmtree(home / "grid" / "test" / "bent")
    with pytest.raises(DataError, match="ground_truth/bent: masks without images"):
        load("mvtec", home, category="grid")
    shutil.rmtree(home / "grid" / "ground_truth")
    shutil.rmtree(home / "grid" / "test" / "good")
    with pytest.raises(DataError, match="grid/test: no folder inside"):
        load("mvtec", home, category="grid")


@pytest.mark.parametrize(
    ("make", "inside", "category", "message"),
    [
        (make_mvtec, "", None, "choose one of grid, screw"),
        (make_mvtec, "", "zipper", "choose one of grid, screw"),
        (make_mvtec, "grid", "screw", "this is one category, not 'screw'"),
        (make_magnetic_tile, "", "MT_Crack", "'MT_Crack'; choose one of Blowhole, Uneven"),
        (make_crackforest, "", "x", "crackforest has no categories; leave out 'x'"),
    ],
)
def test_categories_that_do_not_fit(
    make: Callable[[Path], Path], inside: str, category: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        load(make.__name__.removeprefix("make_"), make(tmp_path) / inside, category=category)
