"""The made-up data set."""

from __future__ import annotations

import numpy as np
import pytest

from nbs_env.data import GOOD, AnomalyDataset, DataError, load
from nbs_env.data.synthetic import DEFECTS, MIXED, TEXTURES


@pytest.mark.parametrize("texture", TEXTURES)
def test_images_masks_and_kinds(texture: str) -> None:
    data = load("synthetic", category=texture, count=21)
    assert data.name == f"synthetic/{texture}"
    assert data.images.shape == (21, 256, 256, 3)
    assert data.has_mask.all()
    share = data.masks.mean(axis=(1, 2))
    good = np.array([kind == GOOD for kind in data.kinds])
    assert good.sum() == 3
    assert (share[good] == 0).all()
    assert share[~good].min() > 0.003
    assert share.max() < 0.10
    assert 0.005 < share.mean() < 0.03
    assert set(data.kinds) <= {GOOD, MIXED, *DEFECTS}


def test_default_is_forty_weaves() -> None:
    data = load("synthetic")
    assert (data.name, len(data)) == ("synthetic/weave", 40)
    assert set(data.kinds) == {GOOD, MIXED, *DEFECTS}


def test_same_seed_same_bytes_and_fewer_are_the_first_of_more() -> None:
    first, again, fewer = (load("synthetic", seed=5, count=count) for count in (6, 6, 3))
    assert (first.images == again.images).all()
    assert (first.masks == again.masks).all()
    assert (first.images[:3] == fewer.images).all()
    other = load("synthetic", seed=6, count=6)
    assert all((a != b).mean() > 0.5 for a, b in zip(first.images, other.images, strict=True))
    assert all((a != b).mean() > 0.5 for a, b in zip(first.images, first.images[1:], strict=False))


def contrast(data: AnomalyDataset) -> float:
    """Mean difference in grey levels between the anomalous and the other pixels of an image."""
    pairs = [
        (image[mask].mean(axis=0), image[~mask].mean(axis=0))
        for image, mask in zip(data.images.astype(float), data.masks, strict=True)
        if mask.any()
    ]
    return float(np.mean([np.abs(inside - outside).mean() for inside, outside in pairs]))


@pytest.mark.parametrize("texture", TEXTURES)
def test_difficulty_lowers_contrast_and_size(texture: str) -> None:
    easy, middle, hard = (load("synthetic", category=texture, count=10, difficulty=d) for d in (0, 0.5, 1))
    assert contrast(easy) > 1.05 * contrast(middle) > 1.4 * contrast(hard)
    assert easy.masks.mean() > 1.2 * middle.masks.mean() > 1.4 * hard.masks.mean()
    assert easy.kinds == middle.kinds == hard.kinds
    good = easy.kinds.index(GOOD)
    assert (easy.images[good] == hard.images[good]).all()


def test_the_mask_is_where_the_image_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbs_env.data import synthetic

    monkeypatch.setattr(synthetic, "_photograph", lambda image, rng: image)
    with_defects = [synthetic.make_image("weave", 0, number, 0.0) for number in range(7)]
    monkeypatch.setattr(synthetic, "_opacity", lambda *args: 0.0)
    without = [synthetic.make_image("weave", 0, number, 0.0) for number in range(7)]
    for (image, mask, kind), (plain, _, _) in zip(with_defects, without, strict=True):
        changed = np.abs(image.astype(float) - plain).max(axis=2) > 1
        assert (kind == GOOD) == (not mask.any())
        assert kind == GOOD or changed[mask].mean() > 0.95
        assert changed[~mask].mean() < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"category": "silk"}, "'silk'; choose one of weave, wood, speckle"),
        ({"count": 0}, "0 synthetic images"),
        ({"difficulty": 1.5}, "difficulty is 1.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_errors(options: dict[str, float | str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load("synthetic", **options)  # type: ignore[arg-type]
