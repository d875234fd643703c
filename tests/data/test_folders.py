"""What lies in people's folders: names of masks, links to nothing, leavings of archives and notebooks."""

from __future__ import annotations

import re
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image
from trees import make_crackforest, make_folder, make_magnetic_tile, make_mvtec, make_nanotwice, mask, save

from nbs_env.data import DataError, DataWarning, cifar10, load
from nbs_env.data.classes import read_folder, read_plant_village

MAKERS = (make_crackforest, make_folder, make_magnetic_tile, make_mvtec, make_nanotwice)


def read(make: Callable[[Path], Path], home: Path) -> tuple[str, ...]:
    """Names of the images, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        category = "grid" if make is make_mvtec else None
        return load(make.__name__.removeprefix("make_"), home, category=category, image_size=64).names


@pytest.mark.parametrize("make", MAKERS)
def test_what_nobody_put_there_is_ignored(make: Callable[[Path], Path], tmp_path: Path) -> None:
    home = make(tmp_path / "data")
    names = read(make, home)
    for folder in [home, *(path for path in home.rglob("*") if path.is_dir())]:
        for junk in ("__MACOSX", ".ipynb_checkpoints"):
            (folder / junk).mkdir()
            (folder / junk / "001-checkpoint.png").write_bytes(b"x")
        for file in [path for path in folder.iterdir() if path.is_file()]:
            (folder / f"._{file.name}").write_bytes(b"\0\5\26\7")
        (folder / ".DS_Store").touch()
    assert read(make, home) == names


@pytest.mark.parametrize("make", MAKERS)
def test_folders_may_be_in_another_case(make: Callable[[Path], Path], tmp_path: Path) -> None:
    home = make(tmp_path / "data")
    names = read(make, home)
    inner = [path for path in home.rglob("*") if path.is_dir() and "MT_" not in path.name]
    for folder in sorted(inner, reverse=True):
        if folder.name not in ("grid", "screw", "bent"):
            folder.rename(folder.with_name(folder.name.title()))
    assert sorted(read(make, home)) == sorted(names)  # Good comes before bent


@pytest.mark.parametrize("name", ["a.png.png", "a.PNG.png", "a_mask.png", "a.png_mask.png", "a.TIFF"])
def test_names_of_masks(name: str, tmp_path: Path) -> None:
    home = make_folder(tmp_path)
    truth = load("folder", home, image_size=64).masks
    Image.open(home / "masks" / "a.png").save(tmp_path / "x.tif")
    shutil.move(tmp_path / "x.tif", home / "masks" / name)
    (home / "masks" / "a.png").unlink()
    assert (load("folder", home, image_size=64).masks == truth).all()


@pytest.mark.parametrize(("drawn", "photographed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_apart_from_their_letters(
    drawn: Literal["NFC", "NFD"], photographed: Literal["NFC", "NFD"], tmp_path: Path
) -> None:
    """Systems write the same name in two ways, and a mask may have been drawn on another one."""
    home = make_folder(tmp_path)
    truth = load("folder", home, image_size=64).masks
    (home / "images" / "a.png").rename(home / "images" / f"{normalize(photographed, 'aé')}.png")
    (home / "masks" / "a.png").rename(home / "masks" / f"{normalize(drawn, 'aé')}_mask.png")
    assert (load("folder", home, image_size=64).masks == truth).all()


def test_two_images_whose_names_look_the_same(tmp_path: Path) -> None:
    home = make_folder(tmp_path)
    forms: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
    for form in forms:
        shutil.copy(home / "images" / "b.png", home / "images" / f"{normalize(form, 'é')}.png")
    with pytest.raises(DataError, match="has the same stem"):
        load("folder", home)


@pytest.mark.parametrize(
    ("image", "drawn", "rest"),
    [
        ("IMG_7.jpg", "img_7.png", ", rename the mask (to IMG_7.png?) or remove the mask"),
        ("IMG_7.jpg", "img_7_mask.png", ", rename the mask (to IMG_7_mask.png?) or remove the mask"),
        ("IMG_7.png", "mask_IMG_7.png", ", rename the mask (to IMG_7.png?) or remove the mask"),
        ("IMG_7.png", "IMG_8.png", " or remove the mask"),
        ("IMG_7.png", "scan.png", " or remove the mask"),
    ],
)
def test_a_mask_of_no_image_names_the_nearest(image: str, drawn: str, rest: str, tmp_path: Path) -> None:
    home = make_folder(tmp_path)
    (home / "images" / "a.png").rename(home / "images" / image)
    (home / "masks" / "a.png").rename(home / "masks" / drawn)
    stem = Path(drawn).stem.removesuffix("_mask")
    message = f"{drawn}: a mask without its image; add an image named {stem}{rest}"
    with pytest.raises(DataError, match=re.escape(message)):
        load("folder", home)


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    home = make_folder(tmp_path)
    for number in range(7):
        (home / "images" / f"notes{number}.txt").touch()
    (home / "images" / "d.png").symlink_to("/not/mounted.png")
    (home / "images" / "more").mkdir()
    (home / "masks" / "readme.txt").touch()
    (home / "mask").mkdir()
    with pytest.warns(DataWarning) as caught:
        assert load("folder", home, image_size=64).names == ("a", "b", "c")
    messages = [str(warning.message) for warning in caught]
    first = "d.png (a link to nothing), more/, notes0.txt, notes1.txt, notes2.txt"
    assert messages == [
        f"{home}: left out: mask/ (1 in all)",
        f"{home}/images: left out: {first} and 4 more (9 in all)",
        f"{home}/masks: left out: readme.txt (1 in all)",
    ]


def test_a_folder_of_masks_of_another_name(tmp_path: Path) -> None:
    home = make_folder(tmp_path)
    (home / "masks").rename(home / "labels")
    with pytest.warns(DataWarning, match=r"left out: labels/ \(1 in all\); masks are looked for in masks/"):
        assert not load("folder", home).has_mask.any()


def test_a_folder_of_links_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").symlink_to("/not/mounted.png")
    with pytest.raises(DataError, match=r"no image file in this directory \(a\.png \(a link to nothing"):
        load("folder", tmp_path)


def test_two_folders_that_differ_in_case_alone(tmp_path: Path) -> None:
    home = make_folder(tmp_path)
    (home / "masks").rename(home / "Masks")
    (home / "MASKS").mkdir()
    if len(list(home.iterdir())) < 3:
        pytest.skip("this file system does not tell them apart")
    with pytest.raises(DataError, match="MASKS: Masks differs in case alone"):
        load("folder", home)


def test_a_mask_among_the_good_images(tmp_path: Path) -> None:
    home = make_mvtec(tmp_path) / "grid"
    save(home / "ground_truth" / "good" / "000.png", mask(0) & False)
    save(home / "ground_truth" / "good" / "001.png", mask(0))
    with pytest.raises(DataError, match=r"good/001\.png: among the good images, but its mask marks a defect"):
        load("mvtec", home)


def test_files_beside_the_kinds_are_named(tmp_path: Path) -> None:
    home = make_mvtec(tmp_path) / "grid"
    save(home / "test" / "loose.png", mask(0))
    with pytest.warns(DataWarning, match=r"test: left out: loose\.png \(1 in all\)"):
        load("mvtec", home, image_size=64)


def test_classes_ignore_and_name(tmp_path: Path) -> None:
    for name in ("Fig___healthy", "Fig___rot", ".ipynb_checkpoints", "__MACOSX"):
        save(tmp_path / name / "1.png", mask(0))
        save(tmp_path / name / "._1.png", mask(0))
    for names, data in (
        (("Fig___healthy", "Fig___rot"), read_folder(tmp_path, 32, 1)),
        (("good", "rot"), read_plant_village(tmp_path, 32, 1)["Fig"]),
    ):
        assert data.names == names
        assert len(data.images) == 2
    (tmp_path / "Gone___rot").symlink_to("/not/mounted")
    for read in (read_folder, read_plant_village):
        with pytest.warns(DataWarning, match=r"left out: Gone___rot \(a link to nothing\) \(1 in all\)"):
            read(tmp_path, 32, 1)


def test_a_zip_ignores_and_names(tmp_path: Path) -> None:
    save(tmp_path / "x.png", np.zeros((32, 32), np.uint8))
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in ("a/cat/1.png", "a/dog/2.PNG"):
            archive.write(tmp_path / "x.png", name)
        for name in ("__MACOSX/cat/1", "a/cat/._1", "a/.ipynb_checkpoints/cat/1", "a/cat/notes"):
            archive.writestr(f"{name}.{'txt' if 'notes' in name else 'png'}", b"x")
    (tmp_path / "._images.zip").touch()
    with pytest.warns(DataWarning, match=r"images\.zip: left out: a/cat/notes\.txt \(1 in all\)"):
        images, labels = cifar10.read(tmp_path)
    assert images.shape == (2, 32, 32, 3)
    assert [cifar10.NAMES[label] for label in labels] == ["cat", "dog"]
