"""What an episode's reward can tell: known figures, episodes that leave no trace, nothing computed twice."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import arguments

from agents.heuristics import RandomPatches
from benchmarks import credit
from benchmarks.credit import SAMPLERS, summary
from nbs_env.config import Config
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv


def test_signal_and_signs_of_known_figures() -> None:
    paid: dict[str, list[list[float]]] = {
        "normal-only": [[0, 4], [0, 6]],
        "anomalous-only": [[0, 1], [0, 3]],
        "random-patches": [[1, 4], [-1, 4]],  # sums 5 and 3
        "highest-loss": [[0, 0], [0, 0]],
    }
    defects = {name: [[False, True], [True, False]] for name in paid}
    rows = [
        {"reward": "mine", "sampler": name, "milliseconds": 7.0, "paid": each, "defects": defects[name]}
        for name, each in paid.items()
    ]
    _, *lines = summary(rows)
    assert [line[1:3] for line in lines] == [
        ["normal-only", "anomalous-only"],
        ["normal-only", "random-patches"],
        ["random-patches", "anomalous-only"],
    ]
    spread = 2**0.5  # of 4 and 6, of 1 and 3, of 5 and 3
    assert [line[3] for line in lines] == [f"{change / spread:+.2f}" for change in (3, 1, 2)]
    # 4 and 6 are above 1 and 3; above 5 and 3: three of four; 5 and 3 above 1 and 3: three, and a tie
    assert [line[4].split()[0] for line in lines] == ["1.00", "0.75", "0.88"]
    assert [line[5] for line in lines] == [f"{2 * (2 * spread / change) ** 2:.0f}" for change in (3, 1, 2)]
    # steps without a defect 1 and 4, with one 4 and -1: 1 + 1.5 of four pairs
    assert {line[6] for line in lines} == {"0.62"}


def test_an_episode_depends_on_its_number_alone(
    dataset: AnomalyDataset, config: Config, same_bits: Callable[..., None]
) -> None:
    env = PatchSamplingEnv(dataset, ["0", "1"], replace(config, reward="shaped_separation"), "cpu")
    env.reset(seed=0)
    sampler = RandomPatches(env, 0)
    for _ in range(3):
        credit.play_episode(env, sampler.act)
    before = copy.deepcopy(env.learner.state_dict())
    first, other, again = (credit.episode(env, sampler.act, number) for number in (4, 5, 4))
    same_bits(first, again)
    assert first != other
    assert len(first[0]) == len(first[1]) == config.episode_length
    same_bits(before, env.learner.state_dict())


def call(out: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str, **changes: Any) -> None:
    few = [
        "--seeds",
        "1",
        "--at",
        "3",
        "7",
        "--episodes",
        "2",
        "--rewards",
        "difference",
        "separation",
        *words,
    ]
    changed = arguments(data_root=folder, mask_symmetries=None, **changes)
    monkeypatch.setattr(sys, "argv", ["credit", "--out", str(out), *few, *changed])
    credit.main()


def test_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(tmp_path, folder, monkeypatch)
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    rows = json.loads((tmp_path / "cells" / "0.json").read_text())["rows"]
    assert [(row["update"], row["reward"], row["sampler"]) for row in rows] == [
        (update, reward, sampler)
        for update in (3, 7)
        for reward in ("difference", "separation")
        for sampler in SAMPLERS
    ]
    assert np.shape([row["paid"] for row in rows]) == (16, 2, 4)
    monkeypatch.setattr(credit, "read_images", None)  # nobody asks for images again
    call(tmp_path, folder, monkeypatch)
    assert (tmp_path / "table.md").read_text() == text
    with pytest.raises(SystemExit):
        call(tmp_path, folder, monkeypatch, "--episodes", "3")
    assert "0.json was made with episodes = 2, not 3" in capsys.readouterr().err
    assert (tmp_path / "table.md").read_text() == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--episodes", "1"], "episodes is 1"),
        (["--at", "7", "3"], "at is (7, 3); give updates in rising order"),
        (["--at", "6"], "at has 6, in a warm-up, which pays nothing"),
        (["--rewards", "fame"], "rewards has 'fame'; choose among prediction"),
    ],
)
def test_bad_input_ends_with_one_line(
    words: list[str],
    said: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        call(tmp_path, folder, monkeypatch, *words)
    assert end.value.code == 2
    assert f"error: {said}" in capsys.readouterr().err
