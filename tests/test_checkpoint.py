"""Files are whole or absent, come back with the same bits, and name themselves where they do not."""

from __future__ import annotations

import io
import pickle
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nbs_env.common import checkpoint
from nbs_env.common.curves import Curves
from nbs_env.common.errors import CheckpointError, WriteError
from nbs_env.common.pictures import new_figure


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
    for write in (lambda: path.write_text("hello"), lambda: torch.save([1, 2], path)):
        write()
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


@contextmanager
def full_disc(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes; Python ignores the signal, so that writing fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _figure(path: Path, value: int) -> None:
    figure = new_figure(2, 2)
    figure.subplots().plot([0, value])
    checkpoint.save_figure(figure, path, dpi=50)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "a.json": lambda path, value: checkpoint.save_json([value] * 1000, path),
    "a.csv": lambda path, value: checkpoint.save_text(f"{value}\r\n" * 1000, path),
    "a.pt": lambda path, value: checkpoint.save({"a": torch.full((1000,), value)}, path),
    "a.png": lambda path, value: checkpoint.save_picture(
        np.random.default_rng(value).integers(256, size=(40, 40), dtype=np.uint8), path
    ),
    "figure.png": _figure,
}


@pytest.mark.parametrize("size", [0, 500])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disc_is_one_error_and_spares_the_older_file(name: str, size: int, tmp_path: Path) -> None:
    path, write = tmp_path / name, WRITERS[name]
    write(path, 1)
    before = path.read_bytes()
    with (
        full_disc(size),
        pytest.raises(WriteError, match=rf"{name} cannot be written \(.*\); make room") as error,
    ):
        write(path, 2)
    assert pickle.loads(pickle.dumps(error.value)).args == error.value.args  # as between processes
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]
    write(path, 2)
    assert path.read_bytes() != before


def test_a_full_disc_ends_the_curves_with_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WriteError, match=r"events\.out.* cannot be written \(.*\); make room"):  # noqa: PT012, SIM117
        with Curves(tmp_path) as curves, full_disc(300):
            for step in range(50):
                curves.add_scalar("loss", 0.5, step)
    assert capsys.readouterr().err == ""


def test_curves_are_read_back(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(256, size=(4, 6, 3), dtype=np.uint8)
    for start in (0, 2):  # the second goes on after step 1 of the first
        with Curves(tmp_path, purge_step=start) as curves:
            for step in range(start, start + 4):
                curves.add_scalar("loss", start + 0.25, step)
            curves.add_image("shown", picture, 3)
        time.sleep(1.1)  # files are told apart, and sorted, by the second
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(0, 0.25), (1, 0.25), *((step, 2.25) for step in range(2, 6))]
    image = events.Images("shown")[-1]
    with Image.open(io.BytesIO(image.encoded_image_string)) as shown:
        np.testing.assert_array_equal(np.asarray(shown), picture)
