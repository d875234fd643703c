"""The search over samplers: which masks it reads, what it ranks and pairs, that nothing is computed twice."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import arguments

from agents.heuristics import WeightedOptions
from agents.run import RunArgs
from benchmarks import sampling
from benchmarks.report import paired
from benchmarks.sampling import RANDOM, SamplingArgs, candidates, ranking, search_split
from nbs_env.common.errors import RunError
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset, split


class Images:
    """In place of `read_images`; counts how often it is called."""

    def __init__(self, data: AnomalyDataset) -> None:
        self.data, self.reads = data, 0

    def __call__(self, run: RunArgs, config: Config) -> tuple[AnomalyDataset, np.ndarray, np.ndarray]:
        self.reads += 1
        return self.data, *split(self.data, 4, np.random.default_rng(run.seed))


@pytest.fixture
def images(many: AnomalyDataset, monkeypatch: pytest.MonkeyPatch) -> Images:
    made = Images(many)
    monkeypatch.setattr(sampling, "read_images", made)
    return made


def call(out: Path, monkeypatch: pytest.MonkeyPatch, *words: str, updates: int = 6) -> None:
    few = ["--seeds", "2", "--splits", "1", "--candidates", "2", *words]
    monkeypatch.setattr(sys, "argv", ["sampling", "--out", str(out), *few, *arguments(updates=updates)])
    sampling.main()


def test_a_split_of_the_search_has_no_other_masks(many: AnomalyDataset) -> None:
    labeled = np.array([1, 4, 6, 9])
    data, kept, out = search_split(many, labeled, 2, seed=3)
    assert sorted([*kept, *out]) == labeled.tolist()
    assert len(out) == 2
    np.testing.assert_array_equal(data.masks[labeled], many.masks[labeled])
    assert np.flatnonzero(data.masks.any(axis=(1, 2))).tolist() == labeled.tolist()
    assert np.flatnonzero(data.has_mask).tolist() == labeled.tolist()
    data.masks[:] = True
    assert not many.masks.all()  # a copy


def test_too_few_defects_to_leave_out(many: AnomalyDataset) -> None:
    masks = many.masks.copy()
    masks[[1, 4]] = False
    with pytest.raises(RunError, match="left_out is 1, of 3 labelled images; both parts need one"):
        search_split(replace(many, masks=masks), np.array([1, 4, 6]), 1, seed=0)


def test_more_candidates_begin_with_the_same() -> None:
    few, more = list(candidates(14)), list(candidates(20))
    assert more[:14] == few
    assert len({name for name, _ in more}) == 20
    assert few[0] == (RANDOM, WeightedOptions(jump=100))


def test_rank_and_pairs_of_known_figures() -> None:
    found = {
        (name, seed): {"f1": ap + 0.1, "ap": ap}
        for name, aps in {RANDOM: (0.2, 0.4), "a": (0.4, 0.4), "b": (0.1, 0.3)}.items()
        for seed, ap in enumerate(aps)
    }
    found["c", 0] = {"f1": 1.0, "ap": 1.0}  # failed on the other split
    assert [name for name, _ in ranking(found, 2)] == ["a", RANDOM, "b"]
    assert [ap for _, ap in ranking(found, 2)] == pytest.approx([0.4, 0.3, 0.2])
    _, base, better = paired(found, [RANDOM, "a"], RANDOM)
    assert base == [RANDOM, "2", "0.400", "-", "0.300", "-"]
    assert better == ["a", "2", "0.500", "+0.100 [+0.000, +0.200]", "0.400", "+0.100 [+0.000, +0.200]"]


def test_the_command(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(tmp_path / "one", monkeypatch)
    text = (tmp_path / "one" / "table.md").read_text()
    assert text in capsys.readouterr().out
    assert f"| {RANDOM} | 2 |" in text
    assert images.reads == 2 + 1 + 4
    cells = {file.name: file.read_text() for file in (tmp_path / "one" / "cells").iterdir()}
    assert len(cells) == 6
    call(tmp_path / "one", monkeypatch)
    assert images.reads == 7 + 1  # none of them again
    assert (tmp_path / "one" / "table.md").read_text() == text

    labeled = split(images.data, 4, np.random.default_rng(0))[0]
    garbage = np.random.default_rng(0).random(images.data.masks.shape) > 0.9
    garbage[labeled] = images.data.masks[labeled]
    images.data = replace(images.data, masks=garbage)
    call(tmp_path / "other", monkeypatch, "--seeds", "1")
    others = {file.name: file.read_text() for file in (tmp_path / "other" / "cells").iterdir()}
    assert all(others[name] == cells[name] for name in cells if name.startswith("0-"))  # the search's
    assert others["1-random-patches.json"] != cells["1-random-patches.json"]

    with pytest.raises(SystemExit) as end:
        call(tmp_path / "one", monkeypatch, updates=7)
    assert end.value.code == 2
    assert "0-random-patches.json was made with updates = 6, not 7" in capsys.readouterr().err


def test_images_that_the_search_had_are_not_scored(images: Images, tmp_path: Path) -> None:
    args = SamplingArgs(out=tmp_path, splits=1)
    (job,) = sampling.cells(args, arguments(), range(1, 2), {RANDOM: WeightedOptions(jump=100)})
    known = tuple(map(sampling.digest, images.data.images))
    with pytest.raises(RunError, match="no image with a defect is left to score"):
        sampling.play(replace(job, searched=known))


@pytest.mark.parametrize("words", ["--seeds 0", "--splits 0", "--candidates 1", "--left-out 0", "--judged 0"])
def test_bad_input_ends_with_one_line(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        call(tmp_path, monkeypatch, *words.split())
    assert end.value.code == 2
    name, value = words.removeprefix("--").replace("-", "_").split()
    assert f"error: {name} is {value}" in capsys.readouterr().err
