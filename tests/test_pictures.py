"""Pictures: the colours keep the order of the values, outlines lie on boundaries, sheets hold columns."""

import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion

from nbs_env.common.pictures import heat, outline, overlay_sheet

CYAN, MAGENTA = (0, 229, 255), (255, 64, 224)


def test_heat_grows_brighter_evenly_and_clips() -> None:
    colours = heat(np.linspace(0, 2, 65)[None], 0, 2)
    assert colours.shape == (1, 65, 3)
    assert colours.dtype == np.uint8
    linear = (colours[0] / 255.0) ** 2.2 @ (0.2126, 0.7152, 0.0722)  # luminance
    steps = np.diff(116 * np.cbrt(linear))  # lightness
    assert (steps > 0).all()
    assert steps[8:].max() < 3 * steps[8:].min()  # beyond the near black, no step is far larger than another
    ends = heat(np.array([[-5.0, 0.0, 2.0, np.inf]]), 0, 2)[0]
    assert (ends[0] == ends[1]).all()
    assert (ends[2] == ends[3]).all()


def test_outline_is_the_border_of_a_mask() -> None:
    """Of a square, of everything, and of a line, which is all border."""
    image = np.full((12, 15, 3), 7, np.uint8)
    masks = np.zeros((3, 12, 15), bool)
    masks[0, 3:9, 4:10] = masks[1] = masks[2, 2] = True
    for mask in masks:
        drawn = outline(image, mask, CYAN)
        border = mask & ~binary_erosion(mask)
        np.testing.assert_array_equal((drawn == CYAN).all(axis=-1), border)
        assert (drawn[~border] == 7).all()
    assert (image == 7).all()  # the input is left alone


def holds(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(picture) == colour).all(axis=-1)


def test_sheet_holds_every_picture_in_its_column() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (2, 64, 64, 3), dtype=np.uint8)
    probabilities = rng.random((2, 64, 64)).astype(np.float32)
    predicted, true = np.zeros((2, 64, 64), bool), np.zeros((2, 64, 64), bool)
    predicted[0, 10:20, 10:20] = True
    true[1, 30:50, 5:25] = True
    sheet = overlay_sheet(images, probabilities, predicted, true, ["a", "b"], tile=64)
    pixels = np.asarray(sheet)
    columns = [16 + k * 72 for k in range(4)]
    rows = [68, 68 + 64 + 8 + 26]
    assert sheet.size == (columns[3] + 64 + 16, rows[1] + 64 + 16)
    for i, y in enumerate(rows):
        expected = [
            images[i],
            heat(probabilities[i], 0, 1),
            outline(images[i], predicted[i], CYAN),
            outline(images[i], true[i], MAGENTA),
        ]
        for x, picture in zip(columns, expected, strict=True):
            np.testing.assert_array_equal(pixels[y : y + 64, x : x + 64], picture)
    without = overlay_sheet(images, probabilities, predicted, None, ["a", "b"], tile=64)
    assert without.width == columns[2] + 64 + 16
    assert not holds(without, MAGENTA).any()


def test_sheet_scales_images_of_any_size_and_keeps_thin_masks() -> None:
    image = np.full((400, 1024, 3), 120, np.uint8)
    mask = np.zeros((400, 1024), bool)
    mask[200:204, 100:900] = True  # four pixels thick, one in the sheet
    small = np.full((32, 32, 3), 90, np.uint8)
    sheet = overlay_sheet(
        [image, small],
        [np.zeros((400, 1024)), np.zeros((32, 32))],
        [mask, np.zeros((32, 32), bool)],
        None,
        ["a/" * 500 + "long.png", ""],
        tile=256,
    )
    assert sheet.size == (2 * 16 + 3 * 256 + 2 * 8, 2 * 16 + 26 + 26 + 100 + 8 + 26 + 256)
    assert holds(sheet.crop((544, 68, 800, 168)), CYAN).sum() == 200


def test_names_are_legible_and_stay_on_the_sheet() -> None:
    image = np.zeros((1, 64, 64, 3), np.uint8)
    arguments = (image, np.zeros((1, 64, 64)), np.zeros((1, 64, 64), bool), None)

    def strip_of(name: str) -> np.ndarray:
        return np.asarray(overlay_sheet(*arguments, [name], tile=128).convert("L").crop((0, 42, 432, 68)))

    assert (strip_of("") == 255).all()
    assert not np.array_equal(strip_of("crack_001"), strip_of("crack_002"))
    long = strip_of("folder/" * 100 + "1.png")
    assert long.min() < 100
    assert (long[:, -12:] == 255).all()
    assert not np.array_equal(long, strip_of("folder/" * 100 + "2.png"))  # the end of a long name is kept
