"""Files are whole or absent, come back with the same bits, and name themselves where they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nbs_env import checkpoint
from nbs_env.checkpoint import CheckpointError


def test_round_trip(tmp_path: Path, same_bits: Callable[..., None]) -> None:
    shared = torch.randn(3, 5)
    state = {
        "tensors": [shared, shared, torch.randn(4).bfloat16(), torch.Generator().get_state()],
        "text": "ä",
        "numbers": {"one": 1, "half": 0.5, "none": None, "pair": (1, 2)},
    }
    checkpoint.save(state, tmp_path / "a.pt")
    same_bits(checkpoint.load(tmp_path / "a.pt"), state)


def test_shared_storages_are_written_once(tmp_path: Path) -> None:
    weights = torch.zeros(100_000)
    checkpoint.save({"ring": [weights] * 10}, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 2 * 400_000


def test_what_is_cut_off_anywhere_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save({"weights": torch.zeros(3000), "more": torch.ones(50)}, path)
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 300, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"a\.pt is truncated.*--resume$"):
            checkpoint.load(path)


def test_what_is_something_else_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(CheckpointError, match=r"a\.pt does not exist"):
        checkpoint.load(path)
    path.write_text("hello")
    with pytest.raises(CheckpointError, match="of another kind"):
        checkpoint.load(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="of another kind"):
        checkpoint.load(path)


def test_code_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"x": Evil()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    checkpoint.save_json({"a": 1}, path)

    def fail(part: Path) -> None:
        part.write_text("half of")
        raise OSError("disc full")

    with pytest.raises(OSError, match="disc full"):
        checkpoint.replace_file(path, fail)
    assert path.read_text() == '{\n  "a": 1\n}\n'
    checkpoint.save_json({"a": 2}, path)  # what was left behind does not disturb
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_pictures_are_lossless_png_in_new_folders(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    mask = rng.random((5, 7)) < 0.5
    checkpoint.save_picture(colour, tmp_path / "kind" / "a.png")
    checkpoint.save_picture(mask, tmp_path / "kind" / "b.png")
    with Image.open(tmp_path / "kind" / "a.png") as a, Image.open(tmp_path / "kind" / "b.png") as b:
        assert a.format == b.format == "PNG"
        np.testing.assert_array_equal(np.asarray(a), colour)
        np.testing.assert_array_equal(np.asarray(b), np.where(mask, 255, 0))
