"""Images of any size: tiles, working sizes, and the choice among them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SameBits
from torch import nn

from nbs_env.common.checkpoint import save_picture
from nbs_env.common.errors import ConfigError
from nbs_env.data import AnomalyDataset, DataError, load, read_image, resize_image
from nbs_env.detect import segmenter as segmenting
from nbs_env.detect import teaching
from nbs_env.detect.config import DetectorConfig
from nbs_env.detect.segmenter import Segmenter, blended, probable, segment_images, tiles
from nbs_env.detect.teaching import Teacher, candidates, teach
from nbs_env.detect.views import Views, working_size
from nbs_env.features.encoder import fused

CPU = torch.device("cpu")


# Any size


@pytest.mark.parametrize("size", [(64, 64), (65, 100), (16, 130)])
def test_logits_have_the_size_of_the_image(size: tuple[int, int]) -> None:
    segmenter = Segmenter(torch.Generator().manual_seed(0)).eval()
    assert segmenter(torch.rand(2, 3, *size)).shape == (2, *size)


def test_image_alone_or_among_others(dataset: AnomalyDataset) -> None:
    segmenter = Segmenter(torch.Generator().manual_seed(0))
    whole = segment_images(segmenter, dataset.images[:3])
    alone = segment_images(segmenter, dataset.images[1:2])
    np.testing.assert_allclose(whole[1:2], alone, atol=1e-6)
    assert ((whole > 0) & (whole < 1)).all()


def test_folded_norms_change_nothing(dataset: AnomalyDataset) -> None:
    generator = torch.Generator().manual_seed(0)
    segmenter = Segmenter(generator).eval()
    for norm in (x for x in segmenter.modules() if isinstance(x, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.2, generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
    folded = fused(segmenter)
    assert not any(isinstance(x, nn.BatchNorm2d) for x in folded.modules())
    whole, fast = (segment_images(x, dataset.images[:2]) for x in (segmenter, folded))
    assert whole.std() > 1e-3
    np.testing.assert_allclose(fast, whole, atol=1e-5)


@pytest.mark.parametrize("length", [1, 64, 99, 160, 161, 320, 321, 1000])
def test_tiles_cover_everything_and_overlap(length: int) -> None:
    found = tiles(length, 160, 32)
    assert (found[0][0], found[-1][1], len(found)) == (0, length, math.ceil(length / 160))
    assert all(begin % 16 == 0 and end - begin <= 160 + 32 + 16 for begin, end in found)
    assert all(first[1] - second[0] == 32 for first, second in pairwise(found))


def test_tiles_give_nearly_what_the_whole_gives(
    dataset: AnomalyDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wider tiles overlap, the less an edge is seen; a constant comes out as it is."""
    segmenter = Segmenter(torch.Generator().manual_seed(0)).eval()
    image = torch.from_numpy(np.tile(dataset.images[0], (3, 4, 1))).permute(2, 0, 1)[None] / 255
    errors = []
    with torch.no_grad():
        whole = probable(segmenter, image, False)
        for overlap in (0, 128):
            monkeypatch.setattr(segmenting, "tiles", partial(tiles, overlap=overlap))
            errors.append((blended(segmenter, image, False, 256) - whole).abs().mean())
    assert errors[1] < errors[0] / 4
    assert errors[1] < 1e-3
    monkeypatch.setattr(segmenting, "probable", lambda s, x, t: torch.full_like(x[:, 0], 0.25))
    torch.testing.assert_close(blended(segmenter, image, False, 256), whole * 0 + 0.25)


# Working sizes


def test_aspect_ratio_is_kept() -> None:
    """Rounded to the nearest pixel, never to none; squares and own sizes are what they are called."""
    assert working_size(300, 400, "square", 256) == (256, 256)
    assert working_size(300, 400, "own", 256) == (300, 400)
    for height, width in ((300, 400), (401, 300), (64, 64), (1000, 64), (700, 1024)):
        found = working_size(height, width, 256, 0)
        assert max(found) == 256
        exact = np.array([height, width]) * 256 / max(height, width)
        assert found == tuple(np.floor(exact + 0.5))
    assert working_size(4000, 5, 256, 0) == (256, 1)


def test_views_are_of_the_files(folder: Path, taught: DetectorConfig, same_bits: SameBits) -> None:
    """Rectangles are read anew, in their own size or a smaller one; masks go with them."""
    data = load("folder", folder, image_size=128)
    own, small = Views(data, "own"), Views(data, 80)
    for index in range(len(data)):
        image = read_image(data.originals[index].file)
        assert (own.image(index) == image).all()
        assert (small.image(index) == resize_image(image, (60, 80))).all()
        assert small.mask(index).shape == (60, 80)
        assert own.mask(index).any() == data.masks[index].any()
    settings = replace(taught, segmenter_size=80)
    found = [teach(data, np.array([0, 1]), settings, 0, CPU, torch.float32) for _ in range(2)]
    same_bits(*map(vars, found))
    (data.originals[0].file).unlink()
    with pytest.raises(DataError, match="no such file"):
        small.image(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of 120 x 160, each with a mask."""
    rng = np.random.default_rng(0)
    for number in range(4):
        mask = np.zeros((120, 160), np.uint8)
        mask[30:60, 20 + number : 60] = 255
        save_picture(rng.integers(0, 256, (120, 160, 3), np.uint8), tmp_path / "images" / f"{number}.png")
        save_picture(mask, tmp_path / "masks" / f"{number}.png")
    return tmp_path


def test_the_size_is_chosen_where_images_were_left_out(
    folder: Path, taught: DetectorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever size sees the truth, in whichever order, is taken; the last segmenter learns at it."""
    data = load("folder", folder, image_size=128)
    assert candidates(data, "auto") == ("square", "own")
    assert candidates(replace(data, sizes=((128, 128),) * 4), "auto") == ("square", 256)
    assert candidates(replace(data, originals=()), "auto") == ("square",)
    assert candidates(replace(data, sizes=((600, 400),) * 4), "auto") == ("square", 512, "own")
    assert candidates(replace(data, sizes=((600, 4000),) * 4), "auto") == ("square", 512)
    for right in ("square", "own"):
        learnt = []

        class Watched(Teacher):
            def __init__(self, views: Views, *rest: Any, learnt: list[Any] = learnt) -> None:
                super().__init__(views, *rest)
                learnt.append(views.size)

        def seen(segmenter: Segmenter, images: np.ndarray, right: str = right, **rest: Any) -> np.ndarray:
            size = "square" if images.shape[1] == images.shape[2] else "own"
            row = next(i for i in range(4) if (Views(data, size).image(i) == images[0]).all())
            return (Views(data, size).mask(row)[None] == (size == right)).astype(np.float32)

        monkeypatch.setattr(teaching, "Teacher", Watched)
        monkeypatch.setattr(teaching, "segment_images", seen)
        settings = replace(taught, segmenter_size="auto", segmenter_steps=1)
        found = teach(data, np.arange(4), settings, 0, CPU, torch.float32)
        assert (found.size, found.f1) == (right, 1.0)
        assert learnt == ["square", "square", "own", "own", right]


@pytest.mark.parametrize(("asked", "used"), [(80, 80), ("own", "own"), ("auto", "square")])
def test_a_size_that_was_asked_for_holds_where_nothing_can_be_left_out(
    asked: Any, used: Any, folder: Path, taught: DetectorConfig
) -> None:
    data = load("folder", folder, image_size=128)
    settings = replace(taught, segmenter_size=asked, segmenter_steps=1)
    assert teach(data, np.array([0]), settings, 0, CPU, torch.float32).size == used


def test_there_is_no_other_size_without_files(dataset: AnomalyDataset) -> None:
    with pytest.raises(ConfigError, match=r"segmenter_size is 80; .* choose square"):
        Views(dataset, 80)
