"""The memory of normal images: distances, what it is filled with, how it is weighed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import NO_GAME, arguments

import agents.run
from nbs_env.common.checkpoint import save_picture
from nbs_env.data import AnomalyDataset, load
from nbs_env.detect import predict
from nbs_env.detect.alarms import alarm_of, image_scores
from nbs_env.detect.detector import Detector
from nbs_env.detect.fusion import SHARES, choose_share, log_odds, mixed
from nbs_env.detect.metrics import pixel_ap
from nbs_env.detect.recall import ODD, Recall
from nbs_env.features.encoder import frozen_encoder
from nbs_env.features.memory import LEVELS, FeatureMemory, coreset, described, level_scale

CPU = torch.device("cpu")
SIDE = 128


def weave(rng: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    """A square of a weave at a random place, with noise."""
    rows, columns = np.mgrid[:SIDE, :SIDE] + rng.uniform(0, 8, 2)[:, None, None]
    wave = np.sin(rows / 1.5) * np.sin(columns / 1.5) * 40 + 120 + shift
    levels = wave + rng.normal(0, 4, wave.shape)
    return np.repeat(levels.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def data_of(images: list[np.ndarray], masks: list[np.ndarray], good: list[np.ndarray]) -> AnomalyDataset:
    """A data set of squares."""
    names = tuple(map(str, range(len(images))))
    return AnomalyDataset(
        "weave",
        np.stack(images),
        np.stack(masks),
        np.ones(len(images), bool),
        names,
        tuple("hole" if mask.any() else "good" for mask in masks),
        good=np.stack(good) if good else np.zeros((0, SIDE, SIDE, 3), np.uint8),
    )


@pytest.fixture(scope="module")
def holes() -> AnomalyDataset:
    """Four weaves with a smooth patch in each, two without, and eight known to be good."""
    rng = np.random.default_rng(0)
    images, masks = [weave(rng) for _ in range(6)], np.zeros((6, SIDE, SIDE), bool)
    for i in range(4):
        top, left = rng.integers(10, 80, 2)
        masks[i, top : top + 30, left : left + 30] = True
        images[i][masks[i]] = 120
    return data_of(images, list(masks), [weave(rng) for _ in range(8)])


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


# Distances


@torch.no_grad()
def test_a_distance_is_that_to_the_nearest_vector(holes: AnomalyDataset) -> None:
    """Against one vector after the other."""
    encoder = frozen_encoder(CPU)
    places = [described(encoder, as_tensor(image))[0].flatten(1).T for image in holes.good]
    vectors = torch.cat(places)[::37]
    scale = level_scale(vectors)
    memory = FeatureMemory(vectors * scale, scale, 0.5, 2.0)
    x = F.avg_pool2d(described(encoder, as_tensor(holes.images[0])), 2)[0].flatten(1).T * scale
    nearest = torch.stack([((x - vector) ** 2).sum(dim=1).sqrt() for vector in vectors * scale]).amin(dim=0)
    whole = F.interpolate(nearest.reshape(1, 1, 16, 16), size=(SIDE, SIDE), mode="bilinear")
    padded = np.pad(whole[0, 0].numpy(), 4, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (9, 9))
    expected = (np.nanmean(windows, axis=(2, 3)) - 0.5) / 2
    np.testing.assert_allclose(memory(as_tensor(holes.images[0]))[0], expected, atol=1e-4)


@torch.no_grad()
def test_no_mask_is_needed_to_find_a_hole(holes: AnomalyDataset) -> None:
    memory = Recall(holes, np.zeros(0, int), 400, 0, CPU).memory
    found = np.concatenate([memory(as_tensor(image)).numpy() for image in holes.images])
    ap = pixel_ap(found, holes.masks)
    assert ap is not None
    assert ap > 0.8
    assert abs(float(np.mean(found[4:])) + ODD) < 0.5, "known-good pixels lie there"


def test_strides_weigh_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(500, sum(LEVELS), generator=generator) * torch.rand(
        sum(LEVELS), generator=generator
    )
    parts = (vectors * level_scale(vectors)).split(LEVELS, dim=1)
    assert [float(part.var(dim=0).sum()) for part in parts] == pytest.approx([1, 1, 1], rel=1e-4)


def test_a_coreset_leaves_no_vector_far_away() -> None:
    generator = torch.Generator().manual_seed(0)
    crowd, rare = torch.randn(2000, 5, generator=generator) / 10, torch.randn(40, 5, generator=generator) * 5
    vectors = torch.cat([crowd, rare])
    taken = coreset(vectors, 128, generator)
    assert len(set(taken.tolist())) == 128
    assert set(range(2000, 2040)) <= set(taken.tolist())
    assert coreset(vectors[:20], 128, generator).tolist() == list(range(20))


# What it is filled with


@pytest.mark.parametrize("kind", ["good", "labelled"])
def test_own_vectors_never_count(kind: str, holes: AnomalyDataset) -> None:
    """One image looks like no other. The whole memory knows it, but not where that image is asked."""
    good, images = holes.good.copy(), holes.images.copy()
    odd = good if kind == "good" else images
    odd[5] = np.random.default_rng(1).integers(0, 256, odd[5].shape, np.uint8)
    recall = Recall(replace(holes, good=good, images=images), np.array([0, 5]), 400, 0, CPU)
    with torch.no_grad():
        known = float(recall.memory(as_tensor(odd[5])).mean())
    assert recall.distance((kind == "good", 5)).mean() > known + 3
    other = recall.distance((kind == "good", 0))
    assert abs(np.median(other) + ODD) < 2


@torch.no_grad()
def test_marked_defects_do_not_become_normal(holes: AnomalyDataset) -> None:
    alone = replace(holes, good=holes.good[:0])
    memory = Recall(alone, np.array([0, 1, 4]), 400, 0, CPU).memory
    wrong = Recall(replace(alone, masks=alone.masks & False), np.array([0, 1, 4]), 400, 0, CPU).memory
    for i in (2, 3):
        hole = holes.masks[i]
        right, fooled = (each(as_tensor(holes.images[i]))[0].numpy()[hole].mean() for each in (memory, wrong))
        assert right > fooled + 1


def test_alarms_hold_over_many_draws() -> None:
    """Sixteen known-good images and sixteen more, twelve times: a tenth of those is called bad."""
    called = []
    for draw in range(12):
        rng = np.random.default_rng(draw)
        good = [weave(rng, rng.normal(0, 10)) for _ in range(32)]
        data = data_of(good[:1], [np.zeros((SIDE, SIDE), bool)], good[:16])
        recall = Recall(data, np.zeros(0, int), 100, draw, CPU)
        alarm = alarm_of(np.array([_score(recall.distance((True, i))) for i in range(16)]), 0.1)
        assert alarm is not None
        with torch.no_grad():
            called += [_score(recall.memory(as_tensor(image))[0].numpy()) >= alarm for image in good[16:]]
    assert 0.02 < np.mean(called) < 0.12


def _score(distances: np.ndarray) -> float:
    return float(image_scores(mixed(distances, distances, 1)[None])[0])


# Weights


def test_shares_mix_log_odds() -> None:
    p, d = np.array([0.1, 0.5, 0.9], np.float32), np.array([4, -1, 0], np.float32)
    np.testing.assert_allclose(mixed(log_odds(p), d, 0), p, rtol=1e-5)
    np.testing.assert_allclose(mixed(log_odds(p), d, 1), 1 / (1 + np.exp(-d)), rtol=1e-5)
    np.testing.assert_allclose(
        log_odds(mixed(log_odds(p), d, 0.25)), 0.75 * log_odds(p) + 0.25 * d, atol=1e-4
    )
    assert np.isfinite(log_odds(np.array([0, 1], np.float32))).all()


def test_the_share_follows_what_is_of_use() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((1, 100, 100)) < 0.05
    noise, sure = rng.normal(size=(2, 1, 100, 100)).astype(np.float32), truth * np.float32(6)
    assert choose_share(sure + noise[0], noise[1], truth) == 0
    assert choose_share(noise[0], sure + noise[1], truth) >= 0.5
    both = choose_share(sure / 3 + noise[0], sure / 3 + noise[1], truth)
    assert 0.1 < both < 0.9
    aps = {share: pixel_ap(mixed(sure / 3 + noise[0], sure / 3 + noise[1], share), truth) for share in SHARES}
    assert all(aps[share] < max(aps.values()) - 0.02 for share in SHARES if share < both)


# Runs


@pytest.fixture
def mine(holes: AnomalyDataset, tmp_path: Path) -> Path:
    """A folder of the images, the good ones beside them, and no mask."""
    for folder, images in (("images", holes.images), ("good", [*holes.good, *holes.good])):
        for number, image in enumerate(images):
            save_picture(image, tmp_path / "mine" / folder / f"{number}.png")
    return tmp_path / "mine"


def run(folder: Path, directory: Path, **changes: Any) -> dict[str, Any]:
    words = {"segmenter_steps": 2, "memory_size": 200} | changes
    agents.run.main(arguments(data_root=folder, run_dir=directory, **NO_GAME, **words))
    return json.loads((directory / "metrics.json").read_text())


def test_good_images_are_enough(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], holes: AnomalyDataset
) -> None:
    metrics = run(mine, tmp_path / "run")
    said = capsys.readouterr().out
    assert "16 more known to be good" in said
    assert "of 16 good ones" in said
    assert "no defective one, as none is known" in said
    assert metrics["masks"] == "memory"
    detector = Detector.load(tmp_path / "run" / "detector.pt")
    assert detector.methods == ("memory",)
    bad = [each.bad for each in detector.predict(holes.images)]
    assert bad[:4] == [True] * 4
    out = tmp_path / "out"
    predict.main(["--run", str(tmp_path / "run"), "--images", str(mine / "images"), "--out", str(out)])
    assert capsys.readouterr().out.startswith("Of images that it did not learn from it calls bad")


def test_masks_and_good_images_together(mine: Path, tmp_path: Path, holes: AnomalyDataset) -> None:
    """All three methods have figures; what ships reads both; other masks than the labelled change nothing."""
    for i in (0, 1, 2, 4):
        save_picture(holes.masks[i], mine / "masks" / f"{i}.png")
    found = run(mine, tmp_path / "run", labeled="0 1 4")
    assert set(found["methods"]) == {"fused", "segmenter", "memory"}
    assert found["masks"] == ("fused" if found["share"] else "segmenter")
    assert found["expected"]["defective"][1] == 2
    garbage = np.zeros((SIDE, SIDE), bool)
    garbage[::2] = True
    save_picture(garbage, mine / "masks" / "2.png")
    again = run(mine, tmp_path / "again", labeled="0 1 4")
    for key in ("thresholds", "alarms", "expected", "share"):
        assert found[key] == again[key]
    first, second = (tmp_path / name / "detector.pt" for name in ("run", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_what_cannot_work_without_a_mask_says_so(
    mine: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    words = {"data_root": mine, "run_dir": tmp_path / "run", "memory_size": 0, "segmenter_steps": 2}
    said = fails(agents.run.main, arguments(**NO_GAME, **words))
    assert "0 images for a memory, so nothing would be learnt; label a defect, or" in said
    assert "memory_size is 0" in said
    (mine / "good").rename(mine / "elsewhere")
    data = load("folder", mine, image_size=SIDE)
    assert not len(data.good)
    said = fails(agents.run.main, arguments(**NO_GAME, **words | {"memory_size": 9}))
    assert "known-good images" in said
