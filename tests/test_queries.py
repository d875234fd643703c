"""Queries choose what a slow and obvious search would, and never see a mask."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import labels
from nbs_env.data import AnomalyDataset
from nbs_env.desk import queries
from nbs_env.detect.config import DetectorConfig
from nbs_env.features.encoder import Encoder, describe, pretrained


def slow_farthest(features: np.ndarray, labeled: list[int], count: int) -> list[int]:
    centres, taken = list(labeled), []
    while len(taken) < count and len(centres) < len(features):
        rest = [i for i in range(len(features)) if i not in centres]
        if centres:
            distance = {i: min(sum((features[i] - features[j]) ** 2) for j in centres) for i in rest}
        else:
            distance = {i: sum((features[i] - features.mean(axis=0)) ** 2) for i in rest}
        best = max(rest, key=lambda i: (distance[i], -i))
        centres.append(best)
        taken.append(best)
    return taken


@pytest.mark.parametrize("labeled", [[], [3], [0, 5, 7, 11]])
@pytest.mark.parametrize("count", [0, 1, 4, 99])
def test_farthest_is_the_greedy_choice(labeled: list[int], count: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(12, 5))
    features[[2, 9]] = features[[3, 4]]  # twins
    assert queries.farthest(features, labeled, count).tolist() == slow_farthest(features, labeled, count)
    assert not queries.farthest(features[:0], [], count).size


def test_what_is_labelled_is_never_asked_again() -> None:
    rng = np.random.default_rng(2)
    features, values = np.zeros((9, 2)), rng.random(9)  # all alike
    labeled = [1, 4, 8]
    for found in (
        queries.random(9, labeled, 99, rng),
        queries.most_uncertain(values, labeled, 99),
        queries.most_anomalous(values, labeled, 99),
        queries.farthest(features, labeled, 99),
        queries.uncertain_among_diverse(features, values, labeled, 99),
    ):
        assert sorted(found) == [0, 2, 3, 5, 6, 7]


def test_the_highest_come_first_and_ties_by_number() -> None:
    values = np.array([0.5, 0.9, 0.1, 0.9, 0.7])
    assert queries.most_uncertain(values, [4], 3).tolist() == [1, 3, 0]
    assert queries.most_anomalous(values, [1], 2).tolist() == [3, 4]


def test_random_depends_on_its_generator_alone() -> None:
    draws = [queries.random(50, [7], 5, np.random.default_rng(seed)).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    counts = np.zeros(6)
    rng = np.random.default_rng(3)
    for _ in range(3000):
        counts[queries.random(6, [2], 1, rng)] += 1
    assert counts[2] == 0
    np.testing.assert_allclose(counts[counts > 0] / 3000, 0.2, atol=0.03)


def test_the_most_uncertain_of_the_diverse() -> None:
    features = np.array([[0.0], [0.1], [5], [5.2], [10], [10.1]])
    unsure = np.array([0, 0.9, 0.4, 0.3, 0.1, 0.2])
    # From 0, the two farthest are 5 and then 2 or 3 in the middle; 1 is unsure, but a twin of 0.
    diverse = slow_farthest(features, [0], 2)
    best = max(diverse, key=lambda i: unsure[i])
    assert queries.uncertain_among_diverse(features, unsure, [0], 1, times=2).tolist() == [best]
    assert best not in (0, 1)


def test_uncertainty_of_known_maps() -> None:
    maps = np.zeros((4, 20, 20))
    maps[1, :2, :2] = 0.3  # the threshold, on 1 % of the pixels
    maps[2] = 1
    maps[3] = 0.65  # half-way from the threshold to 1
    np.testing.assert_allclose(queries.uncertainty(maps, 0.3), [0, 1, 0, 0.5])
    np.testing.assert_allclose(queries.disagreement(maps, maps[::-1]), [0.65, 1, 1, 0.65])


def test_a_description_depends_on_its_image_alone(dataset: AnomalyDataset) -> None:
    encoder = Encoder()
    encoder.load_state_dict(pretrained())
    together = describe(encoder, dataset.images)
    assert together.shape == (5, 304)
    assert together.dtype == np.float32
    np.testing.assert_array_equal(together[2:3], describe(encoder, dataset.images[2:3]))
    deep = encoder(torch.from_numpy(dataset.images[:1]).permute(0, 3, 1, 2).float() / 255)
    for start, stride in ((0, 2), (80, 3)):
        flat = deep[stride][0].flatten(1).detach().numpy()
        channels = len(flat)
        np.testing.assert_allclose(together[0, start : start + channels], flat.mean(axis=1), atol=1e-5)
        spread = together[0, start + channels : start + 2 * channels]
        np.testing.assert_allclose(spread, flat.std(axis=1, ddof=1), atol=1e-4)


TINY = ["--segmenter-steps", "2", "--image-size", "128", "--segmenter-crop", "32", "--segmenter-batch", "2"]


def test_masks_of_unlabelled_images_never_reach_a_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: AnomalyDataset, taught: DetectorConfig
) -> None:
    config = replace(taught, segmenter_steps=1)
    pool, _ = labels.divide(many, 0)
    spoilt = many.masks.copy()
    spoilt[np.setdiff1d(np.arange(12), pool[:2])] ^= True
    real = labels.measure

    def measure(data: AnomalyDataset, pool: np.ndarray, labeled: np.ndarray, *rest: object) -> dict[str, Any]:
        if len(labeled) > 2:  # what was asked for is known by then
            nothing = {"f1": 0.0, "ap": 0.0, "defects": 0, "seconds": 0.0}
            return nothing | {"unsure": [0.0] * len(pool), "scores": [0.0] * len(pool)}
        return real(data, pool, labeled, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(labels, "measure", measure)
    # The draw of the first two looks for a defect among the masks, as a person would.
    monkeypatch.setattr(labels, "split", lambda *_: (np.array([0, 1]), None))
    asked = []
    for number, masks in enumerate((many.masks, spoilt)):
        monkeypatch.setattr(labels, "load", lambda *_, m=masks, **__: replace(many, masks=m))
        place = tmp_path / str(number)
        args = labels.LabelsArgs(out=place, datasets="many", seeds=1, masks="2,3", reference=4)
        rows = labels.play(args, "many", 0, config, "cpu", place)
        assert [row["query"] for row in rows if row["masks"] == 3] == list(labels.QUERIES)
        assert [row["query"] for row in rows if row["masks"] == 4] == [labels.FIRST]
        stages = [json.loads(file.read_text()) for file in sorted(place.glob("*-3.json"))]
        assert len(stages) == len(labels.QUERIES)
        asked.append([stage["labeled"] for stage in stages])
    assert asked[0] == asked[1]


def test_the_benchmark_goes_on_where_it_was(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--datasets", "folder", "--data-root", str(folder), "--seeds", "1"]
    words += ["--masks", "1,2", "--reference", "0"]
    words += ["--queries", "random,farthest", "--out", str(tmp_path / "out"), *TINY]
    labels.main(words)
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| folder | farthest | 1 |" in text
    files = sorted((tmp_path / "out" / "runs" / "folder-0").glob("*-[0-9].json"))
    assert len(files) == 3  # the first stage serves both
    times = [file.stat().st_mtime_ns for file in files]
    files[0].unlink()
    labels.main([*words, "--queries", "farthest,random"])
    assert [file.stat().st_mtime_ns for file in files][1:] == times[1:]
    labels.main([*words, "--segmenter-steps", "3"])
    assert "made with segmenter_steps = 2, not 3, so put into" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--masks", "10,5"], "masks is '10,5'"),
        (["--masks", "five"], "masks is 'five'"),
        (["--masks", "2,10"], "reference is 10"),
        (["--queries", "best"], "'best'"),
    ],
)
def test_bad_input_ends_with_one_line(
    tmp_path: Path, fails: Callable[..., str], words: list[str], message: str
) -> None:
    assert message in fails(labels.main, ["--datasets", "synthetic", "--out", str(tmp_path), *words])
