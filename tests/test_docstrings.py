"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
from pathlib import Path
from types import ModuleType

import pytest
import torch

import agents.base
import nbs_env.data.dataset
import nbs_env.detect.detector
import nbs_env.env
from nbs_env.detect.detector import Detector
from nbs_env.detect.segmenter import Segmenter


@pytest.mark.parametrize("module", [agents.base, nbs_env.data.dataset, nbs_env.detect.detector, nbs_env.env])
def test_examples(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    untaught = Detector([], [], 128, "float32", torch.device("cpu"), segmenter=Segmenter().state_dict())
    untaught.save(tmp_path / "runs" / "mine" / "detector.pt")
    result = doctest.testmod(module)
    assert result.attempted > 2
    assert result.failed == 0
