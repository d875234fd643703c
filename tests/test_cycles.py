"""What each cycle is worth: l_pred is the environment's own, and a cycle's row is made before it ends."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import arguments
from test_sampling import Images

import train
from agents.heuristics import Random
from benchmarks import cycles
from nbs_env.data import AnomalyDataset
from nbs_env.env import PatchSamplingEnv


def test_a_row_for_each_cycle(
    many: AnomalyDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = Images(many)
    monkeypatch.setattr(cycles, "read_images", images)
    few = arguments(updates=12, beta_horizon=12)
    words = ["cycles", "--out", str(tmp_path), "--seeds", "1", "--images", "8", *few]
    monkeypatch.setattr(sys, "argv", words)
    for _ in range(2):
        cycles.main()
    assert images.reads == 1  # what is there is not computed again
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))

    run, config, _ = train.parse(["--agent", "random", "--preset", "micro", *few])
    data, labeled, _ = images(run, config)
    env = PatchSamplingEnv(data, [data.names[i] for i in labeled], config, "cpu")
    env.reset(seed=0)
    losses: list[Any] = []
    Random(env, 0).learn(env, config.updates, lambda info: losses.append(info["prediction_loss"]))
    ends = range(config.reinit_period - 1, config.updates + 1, config.reinit_period)
    assert [int(row["updates"]) for row in rows] == [end + 1 for end in ends]
    expected = [losses[end - 1] for end in ends]
    np.testing.assert_allclose([float(row["l_pred, labelled"]) for row in rows], expected, rtol=1e-4)
    assert rows[0]["AP, others"] == rows[0]["AP, others, all cycles"]
    assert "| updates | l_pred, labelled |" in capsys.readouterr().out
