"""Tasks of a comparison: what they leave is gathered, what failed is named."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from benchmarks.engine import EngineArgs, gather, is_made
from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError


def leave(file: Path, size: int) -> None:
    """Leave its size in `file`, unless that is there."""
    if size < 0:
        raise ValueError("size is negative")
    if not is_made(file, {"size": size}):
        checkpoint.save_json({"settings": {"size": size}, "found": size}, file)


def test_a_task_that_fails_is_named_and_keeps_no_other_back(tmp_path: Path) -> None:
    leave(tmp_path / "2", 7)  # by other settings
    tasks = [
        (f"size {size}", partial(leave, tmp_path / str(size), size), tmp_path / str(size))
        for size in (-1, 1, 2, 3)
    ]
    found, failed = gather(tasks, EngineArgs())
    assert {index: content["found"] for index, content in found.items()} == {1: 1, 3: 3}
    assert failed[0] == "size -1: ValueError: size is negative"
    assert failed[1].startswith("size 2: RunError: ")
    with pytest.raises(RunError, match="nothing could be computed: size -1: ValueError: size is negative"):
        gather(tasks[:1], EngineArgs())
