"""What the labelling page makes of a folder: masks as training reads them, and which image comes next."""

from __future__ import annotations

import shutil
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from conftest import python, spot, stored
from PIL import Image

from nbs_env.common.errors import RunError
from nbs_env.data import DataError, load
from nbs_env.data.images import ORIENTATION
from nbs_env.desk.label.folder import UNLABELLED, Folder
from nbs_env.desk.label.looking import Looking
from nbs_env.desk.label.training import Training
from nbs_env.desk.run import DataArgs, read_images


def add_good(home: Path, count: int) -> None:
    """Put images of even grey into good/."""
    for number in range(count):
        (home / "good").mkdir(exist_ok=True)
        grey = np.random.default_rng(number).normal(120, 8, (128, 128, 3))
        Image.fromarray(grey.astype(np.uint8)).save(home / "good" / f"{number}.png")


@pytest.mark.parametrize("name", ["1_mask.png", "1.jpg.png", "1.bmp", "1.png"])
def test_masks_of_other_tools_are_read_the_same_and_rewritten_only_where_painted(
    mine: Path, name: str
) -> None:
    (mine / "masks" / "1.png").unlink()
    if ".jpg" in name:
        with Image.open(mine / "images" / "1.png") as picture:
            picture.save(mine / "images" / "1.jpg")
        (mine / "images" / "1.png").unlink()
    Image.fromarray(spot().astype(np.uint8) * (1 if name == "1.png" else 255)).save(mine / "masks" / name)
    before = (mine / "masks" / name).read_bytes()
    folder = Folder(mine)
    mask, version = folder.read(1)
    assert mask is not None
    np.testing.assert_array_equal(mask, load("folder", mine, image_size=128).masks[1])
    folder.paint(1, version, (0, 0, 128, 128), mask)
    assert (mine / "masks" / name).read_bytes() == before
    changed = mask.copy()
    changed[0, 0] = True
    folder.paint(1, version, (0, 0, 1, 1), changed[:1, :1])
    np.testing.assert_array_equal(load("folder", mine, image_size=128).masks[1], changed)
    np.testing.assert_array_equal(stored(folder.masks()["1"]), changed * 255)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_photo_gets_a_mask_that_training_reads(mine: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    with Image.open(mine / "images" / "4.png") as picture:
        picture.convert("RGB").resize((200, 150)).save(mine / "images" / "4.jpg", exif=exif)
    (mine / "images" / "4.png").unlink()
    folder = Folder(mine)
    width, height = folder.size(4)
    assert (width, height) == ((200, 150) if orientation == 3 else (150, 200))
    folder.paint(4, UNLABELLED, (0, 0, width, height), spot(height, width))
    mask, _ = folder.read(4)
    assert mask is not None
    np.testing.assert_array_equal(mask, spot(height, width))
    assert load("folder", mine, image_size=128).has_mask[4]


def test_a_process_killed_in_a_save_leaves_what_training_can_read(mine: Path) -> None:
    with Image.open(mine / "images" / "4.png") as picture:
        picture.save(mine / "images" / "4.png.png")  # whose mask 4.png.part could be taken for
    (mine / "images" / "4.png").unlink()
    code = (
        "import os, sys, numpy as np; from pathlib import Path; from nbs_env.common import checkpoint\n"
        "from nbs_env.desk.label.folder import Folder\n"
        "checkpoint.os.fsync = lambda _: os._exit(9)\n"
        "Folder(Path(sys.argv[1])).paint(4, 'none', (0, 0, 9, 9), np.ones((9, 9), bool))"
    )
    process = python(code, str(mine))
    process.communicate()
    assert process.returncode == 9
    assert not load("folder", mine, image_size=128).has_mask[4]


def test_images_that_browsers_do_not_know_are_converted(mine: Path) -> None:
    deep = np.arange(80 * 90).reshape(80, 90) * 9
    Image.fromarray(deep.astype(np.uint16)).save(mine / "images" / "deep.tif")
    folder = Folder(mine)
    content, kind = folder.shown(folder.numbers["deep"])
    assert kind == "image/bmp"
    (mine / "shown.bmp").write_bytes(content)
    with Image.open(mine / "shown.bmp") as picture:
        shown = np.asarray(picture)
    np.testing.assert_array_equal(shown, folder.pixels(folder.numbers["deep"]))
    content, kind = folder.shown(0)
    assert (content, kind) == ((mine / "images" / "0.png").read_bytes(), "image/png")


def test_errors_say_what_to_do(mine: Path, tmp_path: Path) -> None:
    for home, message in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, "no images/ in this folder"),
    ):
        with pytest.raises(DataError, match=message):
            Folder(home)
    (mine / "images" / "0.png").unlink()
    with pytest.raises(DataError, match="a mask without its image"):
        Folder(mine)


def test_the_queue_begins_with_the_names_and_goes_on_with_what_differs(mine: Path) -> None:
    for number in (1, 2, 3):
        (mine / "masks" / f"{number}.png").unlink()
    folder = Folder(mine)
    looking = Looking(folder, Training(folder, []))
    assert looking.next(set(), 9) == [1, 2, 3, 4]
    looking.features[:, 0] = [0, 1, 0, 7, 4]  # image 0 is labelled
    looking.described[:] = True
    assert looking.next(set(), 2) == [3, 4]
    assert looking.next({3}, 9) == [4, 1, 2]
    looking.described[4] = False  # not looked at yet
    assert looking.next(set(), 9) == [3, 1, 2, 4]
    looking.broken.add(1)
    assert looking.next(set(), 9) == [3, 2, 4]


def test_a_round_needs_a_defect_that_survives_resizing(mine: Path) -> None:
    for path in (mine / "masks").iterdir():
        path.unlink()
    folder = Folder(mine)
    training = Training(folder, ["--image-size", "128"])
    with pytest.raises(RunError, match="mark a defect in one image first, or 2 images as good"):
        training.start()
    Image.fromarray(np.zeros((600, 600), np.uint8)).save(mine / "images" / "2.png")
    folder.paint(2, UNLABELLED, (5, 5, 1, 1), np.ones((1, 1), bool))
    with pytest.raises(RunError, match="too thin for 128 pixels"):
        training.start()
    folder.paint(0, UNLABELLED, (0, 0, 128, 128), spot())
    assert training._labelled() == ([], ["0"], ["2"])


@pytest.mark.parametrize(
    ("beside", "empty", "words"),
    [(0, "01", ["0", "1"]), (1, "0", ["1"]), (2, "", ["0"]), (1, "", None), (0, "0", None)],
)
def test_good_images_make_a_round(
    beside: int, empty: str, words: list[str] | None, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(mine / "masks")
    add_good(mine, beside)
    folder = Folder(mine)
    training = Training(folder, ["--image-size", "128"])
    for name in empty:
        folder.paint(int(name), UNLABELLED, (0, 0, 128, 128), np.zeros((128, 128), bool))
    begun: list[list[str]] = []
    monkeypatch.setattr(training, "_run", lambda number, words: begun.append(words))
    if words is None:
        with pytest.raises(RunError, match="2 images as good"):
            training.start()
    else:
        training.start()
        assert begun[0][begun[0].index("--labeled") + 1 :] == words
        args = DataArgs("folder", mine, labeled=tuple(words))
        assert read_images(args, 128, 0)[1].tolist() == [int(name) for name in empty]


def test_a_round_without_a_mask_is_looked_at(mine: Path) -> None:
    shutil.rmtree(mine / "masks")
    add_good(mine, 3)
    folder = Folder(mine)
    training = Training(folder, ["--image-size", "128", "--device", "cpu"])
    training.start()
    assert training.process is not None
    assert training.process.wait(300) == 0
    assert training.rounds() == [{"round": 1, "labelled": 0, "f1": None}]
    looking = Looking(folder, training)
    looking._look_at(0, [1])
    assert looking._detector(1).methods == ("memory",)
    assert 0 < looking.unsure[0] <= 1
    assert looking.called == {1: {0: True}}


def test_the_command_names_the_extra_that_is_missing(mine: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv[1:] = ['--images', sys.argv[1]]\n"
        "import runpy; runpy.run_module('nbs_env.desk.label', run_name='__main__', alter_sys=True)"
    )
    process = python(code, str(mine))
    _, err = process.communicate()
    assert process.returncode == 2
    assert err == "error: uvicorn is missing; python -m pip install 'neural-batch-sampling[label]'\n"


def test_the_page_is_part_of_the_package() -> None:
    server = pytest.importorskip("nbs_env.desk.label.server", reason="the extra `label` is not installed")
    settings = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["nbs_env.desk.label"]
    for name in server.PAGE:
        assert files("nbs_env.desk.label").joinpath(name).is_file()
        assert any(Path(name).match(pattern) for pattern in patterns)
