"""What becomes of each kind of mask file, and that `docs/masks.md` says so."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trees
from conftest import raw_png
from PIL import Image, ImageFilter

from nbs_env.data import DataError, DataWarning, load, read_mask

SHAPE = (70, 90)
TRUTH = np.zeros(SHAPE, bool)
TRUTH[20:45, 30:70] = True
BYTE = TRUTH * np.uint8(255)
DOCS = Path(__file__).parents[2] / "docs" / "masks.md"
Save = Callable[[Path], object]


def grey(array: np.ndarray, **options: object) -> Save:
    return lambda path: Image.fromarray(array).save(path.with_suffix(".png"), **options)


def jpeg(array: np.ndarray, quality: int = 60) -> Save:
    return lambda path: Image.fromarray(array).save(path.with_suffix(".jpg"), quality=quality)


def palette(indices: np.ndarray, *colours: int, **options: object) -> Save:
    def save(path: Path) -> None:
        picture = Image.fromarray(indices.astype(np.uint8)).convert("P")
        picture.putpalette(colours)
        picture.save(path.with_suffix(".png"), **options)

    return save


def colours(inside: tuple[int, ...], outside: tuple[int, ...]) -> Save:
    return grey(np.where(TRUTH[..., None], np.uint8(inside), np.uint8(outside)))


def areas(*values: int, dtype: type = np.uint8) -> np.ndarray:
    """Strips of values, equally wide, on 0."""
    result = np.zeros(SHAPE, dtype)
    for number, value in enumerate(values):
        result[30:50, 10 + 20 * number : 25 + 20 * number] = value
    return result


def pages(path: Path) -> None:
    first, second = Image.fromarray(BYTE & 0), Image.fromarray(BYTE)
    first.save(path.with_suffix(".tif"), save_all=True, append_images=[second])


def deep_colours(path: Path) -> None:
    rows = b"".join(b"\0" + np.repeat(row.astype(">u2"), 3).tobytes() for row in TRUTH)
    path.with_suffix(".png").write_bytes(raw_png(SHAPE[1], SHAPE[0], 16, 2, rows))


def smooth(filters: ImageFilter.Filter) -> np.ndarray:
    return np.asarray(Image.fromarray(BYTE).filter(filters))


NOISE = np.random.default_rng(0).integers(40, 220, SHAPE, dtype=np.uint8)
READ: dict[str, Save] = {
    "black and white": grey(BYTE),
    "0 and 1": grey(TRUTH.astype(np.uint8)),
    "0 and 1 in 16 bit": grey(TRUTH.astype(np.uint16)),
    "0 and 255 in 16 bit": grey(BYTE.astype(np.uint16)),
    "black and white in 16 bit": grey(TRUTH * np.uint16(65535)),
    "one bit": grey(TRUTH),
    "a palette": palette(~TRUTH, 255, 255, 255, 0, 0, 0),
    "a palette of 0 and 1 in grey": palette(TRUTH, 0, 0, 0, 1, 1, 1),
    "one colour on black": colours((200, 0, 0), (0, 0, 0)),
    "smooth edges": grey(smooth(ImageFilter.BoxBlur(0.5))),
    "blurred edges": grey(smooth(ImageFilter.GaussianBlur(2))),
    "JPEG noise": jpeg(BYTE),
    "an alpha channel that is opaque": grey(np.dstack([BYTE, BYTE, BYTE, BYTE | 255])),
    "drawn in the alpha channel": grey(np.dstack([BYTE | 255] * 3 + [BYTE])),
    "black paint on transparent": grey(np.dstack([BYTE & 0] * 3 + [BYTE])),
    "alpha and colours that agree": grey(np.dstack([BYTE] * 4)),
    "transparent black in a palette": palette(TRUTH, 0, 0, 0, 255, 255, 255, transparency=0),
    "all black": grey(BYTE & 0),
    "mostly white": grey(~BYTE),
}
REFUSED: dict[str, Save] = {
    "classes (0, 85, 170, 255)": grey(areas(85, 170, 255)),
    "class numbers (0 to 3)": grey(areas(1, 2, 3)),
    "1 is the defect, 255 is ignored": grey(areas(1, 255)),
    "1 and 255": grey(BYTE | 1),
    "grey on black": grey(areas(128)),
    "classes in 16 bit": grey(areas(4095, dtype=np.uint16)),
    "classes in JPEG": jpeg(areas(85, 170, 255)),
    "a palette of classes": palette(areas(1, 2), 0, 0, 0, 128, 0, 0, 0, 128, 0),
    "a palette of equal colours": palette(TRUTH, 0, 0, 0, 0, 0, 0),
    "red on white": colours((255, 0, 0), (255, 255, 255)),
    "two colours on black": grey(np.dstack([areas(255), areas(0, 255), areas()])),
    "transparent everywhere": grey(np.dstack([BYTE] * 3 + [BYTE & 0])),
    "alpha against colours": grey(np.dstack([~BYTE] * 3 + [BYTE])),
    "all white": grey(BYTE | 255),
    "several pages": pages,
    "a photo": grey(NOISE),
    "16-bit colours": deep_colours,
    "damaged": lambda path: path.with_suffix(".png").write_bytes(b"\x89PNG\r\n\x1a\nxyz"),
}


def rows(heading: str) -> dict[str, list[str]]:
    """The cells of the table under a heading, by the first one."""
    section = DOCS.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {kind: rest for kind, *rest in cells if kind != "---"}


def saved(save: Save, folder: Path) -> Path:
    save(folder / "mask")
    return next(folder.glob("mask.*"))


def test_the_page_has_every_kind() -> None:
    assert list(rows("Read")) == list(READ)
    assert list(rows("Refused")) == list(REFUSED)


@pytest.mark.parametrize("kind", READ)
def test_a_mask_is_read_as_it_looks(kind: str, tmp_path: Path) -> None:
    file = saved(READ[kind], tmp_path)
    truth = {"all black": TRUTH & False, "mostly white": ~TRUTH}.get(kind, TRUTH)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mask = read_mask(file)
    assert mask.dtype == np.bool_
    if kind in ("smooth edges", "blurred edges", "JPEG noise"):
        edge = smooth(ImageFilter.MaxFilter(3)) != smooth(ImageFilter.MinFilter(3))
        truth = np.where(edge, mask, truth)
    assert (mask == truth).all()
    assert [str(w.message).endswith("invert it") for w in caught] == [True] * (kind == "mostly white")


@pytest.mark.parametrize("kind", REFUSED)
def test_a_mask_that_could_mean_two_things_is_refused(kind: str, tmp_path: Path) -> None:
    file = saved(REFUSED[kind], tmp_path)
    message, remedy = rows("Refused")[kind]
    with pytest.raises(DataError, match=f"{re.escape(str(file))}: .*{re.escape(message)}") as caught:
        read_mask(file)
    assert "\n" not in str(caught.value)
    if "--mask-values" in remedy:
        assert "--mask-values" in str(caught.value)


def test_the_chosen_values_are_anomalous_and_nothing_else(tmp_path: Path) -> None:
    for save, values in (
        (grey(areas(85, 170, 255)), (85, 170)),
        (grey(areas(1, 255)), (1,)),
        (grey(areas(300, 4095, dtype=np.uint16)), (300,)),
        (palette(areas(1, 2, 3), *range(12)), (2, 3)),
        (grey(np.dstack([areas(85, 170)] * 3)), (170,)),
        (grey(np.dstack([areas(85, 170)] * 3 + [BYTE | 255])), (170,)),
    ):
        file = saved(save, tmp_path)
        stored = np.asarray(Image.open(file))
        stored = stored if stored.ndim == 2 else stored[..., 0]
        assert (read_mask(file, values) == np.isin(stored, values)).all()
    assert (read_mask(saved(grey(~BYTE), tmp_path), (0,)) == TRUTH).all()
    with pytest.raises(DataError, match="every pixel is anomalous"):
        read_mask(saved(grey(BYTE), tmp_path), (0, 255))
    with pytest.raises(DataError, match="a coloured mask has no single values"):
        read_mask(saved(colours((255, 0, 0), (0, 0, 0)), tmp_path), (255,))
    Image.fromarray(BYTE).save(tmp_path / "x.jpg")
    with pytest.raises(DataError, match="JPEG changes values; save it as PNG"):
        read_mask(tmp_path / "x.jpg", (255,))


def test_values_reach_the_readers(tmp_path: Path) -> None:
    for folder, array in (("images", NOISE), ("masks", areas(85, 170, 255))):
        trees.save(tmp_path / folder / "1.png", array)
    with pytest.raises(DataError, match="--mask-values 85 170"):
        load("folder", tmp_path, image_size=64)
    shares = [load("folder", tmp_path, image_size=64, mask_values=v).masks.mean() for v in ((85,), (85, 170))]
    assert 0 < shares[0] < shares[1]
    assert load("folder", tmp_path, image_size=64, mask_values=(7, 85)).masks.mean() == shares[0]
    with pytest.raises(DataError, match="no mask has a pixel of the mask_values 7, 8; name values"):
        load("folder", tmp_path, image_size=64, mask_values=(7, 8))
    with pytest.raises(DataError, match=r"mask_values holds 1\.5; give whole numbers"):
        load("folder", tmp_path, mask_values=(1.5,))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="synthetic has no mask files of its own; leave out mask_values"):
        load("synthetic", mask_values=(1,))


@pytest.mark.parametrize("quality", [10, 40, 75, 95])
def test_noise_at_the_edges_is_no_class(quality: int, tmp_path: Path) -> None:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for radius in (3, 8, 20):
        disc = (y - 31) ** 2 + (x - 44) ** 2 < radius**2
        mask = read_mask(saved(jpeg(disc * np.uint8(255), quality), tmp_path))
        edge = np.abs(np.hypot(y - 31, x - 44) - radius) < 3
        assert (mask == disc)[~edge].all()


def test_a_class_of_a_few_pixels_is_seen(tmp_path: Path) -> None:
    line = BYTE.copy()
    line[60, 5:80] = 128  # one pixel wide, apart from the white
    with pytest.raises(DataError, match="the values 0, 128, 255"):
        read_mask(saved(grey(line), tmp_path))


def pair(folder: Path, size: tuple[int, int], orientation: int, mask: np.ndarray, tag: int | None) -> None:
    for file, picture, turn in (
        ("images/1.jpg", Image.new("RGB", size), orientation),
        ("masks/1.png", Image.fromarray(mask), tag),
    ):
        exif = Image.Exif()
        if turn is not None:
            exif[0x0112] = turn
        (folder / file).parent.mkdir(exist_ok=True)
        picture.save(folder / file, exif=exif)


def test_a_mask_and_an_image_turned_by_exif(tmp_path: Path) -> None:
    square = np.pad(BYTE, ((0, 20), (0, 0)))
    for orientation, mask, tag, message in (
        (6, BYTE.T, None, None),
        (
            6,
            BYTE,
            None,
            r"90x70 pixels, as its image 1\.jpg is stored, but .* EXIF data turns it to 70x90; save",
        ),
        (6, BYTE | 255, None, "EXIF data turns it"),  # the sizes tell more than that all is anomalous
        (6, BYTE, 6, None),  # its own tag turns it
        (6, BYTE[:60], None, "90x60 pixels, but its image"),
        (3, BYTE, None, "may be drawn either way up"),
        (3, BYTE, 1, None),
        (3, BYTE & 0, None, None),
        (1, BYTE, None, None),
    ):
        pair(tmp_path, (90, 70), orientation, mask, tag)
        if message is None:
            assert load("folder", tmp_path, image_size=64).masks.any() == mask.any()
        else:
            with pytest.raises(DataError, match=message):
                load("folder", tmp_path, image_size=64)
    pair(tmp_path, (90, 90), 8, square, None)
    with pytest.raises(DataError, match="may be drawn either way up"):
        load("folder", tmp_path, image_size=64)


def test_a_warning_names_the_masks_that_are_mostly_anomalous(tmp_path: Path) -> None:
    for number in range(8):
        for folder, array in (("images", NOISE), ("masks", ~BYTE)):
            trees.save(tmp_path / folder / f"{number}.png", array)
    with pytest.warns(DataWarning, match=r"0\.png, 1\.png, .* and 3 more: more than half") as caught:
        load("folder", tmp_path, image_size=64)
    assert len(caught) == 1
