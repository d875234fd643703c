"""What the commands of image-level models share: resuming, folders in use, workers and bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from baselines.alcn import __main__ as alcn
from baselines.classes import __main__ as classes
from baselines.d_anogan import __main__ as d_anogan
from baselines.models import Model
from nbs_env.common import checkpoint
from nbs_env.common.runs import claim

MODULES = {"alcn": alcn, "classes": classes, "d_anogan": d_anogan}
FOLDER = "--dataset folder --data-root DATA --model.size 16 --model.width 0.1 --checkpoint-every 2"
TINY = {
    "alcn": f"{FOLDER} --noise none --classes a --model.epochs 4",
    "classes": f"{FOLDER} --method ganomaly --classes a --steps 4 --model.batch-size 4",
    "d_anogan": "--per-class 6 --model.size 28 --model.batch-size 8",
}
Call = Callable[..., None]


@pytest.fixture
def call(noise_classes: Path, tmp_path: Path) -> Call:
    """A command in its smallest form, into `run`; further options are words, or values."""

    def run(name: str, *words: object) -> None:
        line = [*TINY[name].replace("DATA", str(noise_classes)).split(), "--device", "cpu"]
        MODULES[name].main([*line, "--run-dir", str(tmp_path / "run"), *map(str, words)])

    return run


@pytest.fixture
def error(call: Call, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line that a command fails with."""

    def fail(name: str, *words: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            call(name, *words)
        assert end.value.code == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: ")
        return line

    return fail


def test_a_killed_command_goes_on_and_a_finished_model_is_only_scored_again(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_bits: Callable[..., None]
) -> None:
    call("classes", "--run-dir", tmp_path / "whole")
    original = classes.Method.advance

    def killed(self: Model, data: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.done == 3:
            raise KeyboardInterrupt
        return original(self, data)  # type: ignore[arg-type]

    monkeypatch.setattr(classes.Method, "advance", killed)
    with pytest.raises(SystemExit) as end:
        call("classes")
    assert end.value.code == 130
    monkeypatch.setattr(classes.Method, "advance", original)
    call("classes", "--resume")
    files = [tmp_path / n / "ganomaly" / "a" / "checkpoint.pt" for n in ("whole", "run")]
    same_bits(*map(checkpoint.load, files))
    written = files[1].stat().st_mtime_ns
    call("classes", "--resume", "--method", "ganomaly,pca")  # another one beside it
    assert files[1].stat().st_mtime_ns == written


def test_several_workers_find_what_one_finds(call: Call, tmp_path: Path) -> None:
    words = ("--method", "pca,vae", "--classes", "a,c")
    call("classes", *words, "--workers", 2)
    call("classes", *words, "--run-dir", tmp_path / "one")
    tables = [(tmp_path / name / "table.md").read_text().splitlines() for name in ("run", "one")]
    here, there = ([line.split("|")[:5] for line in lines] for lines in tables)
    assert here == there


@pytest.mark.parametrize("protocol", [1, 2])
def test_the_table(protocol: int, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("classes", "--protocol", protocol, "--method", "pca,vae", "--classes", "a,c")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "|  | a | c | mean | parameters | steps | minutes |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["pca", "vae"]
    assert [line.split("|")[6].strip() for line in lines[2:]] == ["1", "4"]
    assert (tmp_path / "run" / "table.md").read_text().splitlines() == lines
    for name in ("checkpoint.pt", "metrics.json", "timing.json"):
        assert (tmp_path / "run" / "vae" / "c" / name).stat().st_size > 0


def test_the_images_may_lie_elsewhere(call: Call, error: Callable[..., str], tmp_path: Path) -> None:
    call("alcn")
    pictures = (tmp_path / "run" / "none" / "a" / "pictures.png").read_bytes()
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    again = ("alcn", "--resume", "--data-root", tmp_path / "elsewhere")
    call(*again)
    assert (tmp_path / "run" / "none" / "a" / "pictures.png").read_bytes() == pictures
    Image.new("RGB", (20, 20)).save(tmp_path / "elsewhere" / "b" / "0.png")
    assert str(tmp_path / "elsewhere") in error(*again)
    assert "seed = 0, not 1" in error(*again, "--seed", 1)


def test_a_folder_that_holds_something_else(call: Call, error: Callable[..., str], tmp_path: Path) -> None:
    call("alcn")
    call("alcn", "--noise", "speckle")  # another model beside it
    assert "--resume" in error("alcn")
    (tmp_path / "run" / "config.json").touch()
    assert "already holds a run" in error("alcn", "--noise", "gaussian")
    with claim(tmp_path / "other"):
        assert "another process" in error("alcn", "--run-dir", tmp_path / "other")


EMPTY = "--dataset mnist --data-root EMPTY"
ANY = [
    ("--workers 0", "workers is 0"),
    ("--seed -1", "seed is -1"),
    ("--device gpu", "'gpu'"),
    ("--model.width 0", "width is 0"),
    ("--dataset mnist --data-root /nowhere --model.size 28", "/nowhere"),
    ("--dataset folder --data-root EMPTY", "empty has no folders of classes"),
    (f"{EMPTY} --model.size 28", "train-images-idx3-ubyte.gz"),
    (f"{EMPTY} --model.size 32", "--model.size 28 --model.channels 1"),
]


@pytest.mark.parametrize(
    ("name", "words", "named"),
    [
        *((name, *each) for name in MODULES for each in ANY),
        ("alcn", "--noise salt", "'salt'; choose from none, speckle, gaussian, alcn"),
        ("alcn", "--model.size 8", "image size is 8"),
        ("alcn", "--model.alpha-low 0.95", "alpha_low is 0.95"),
        ("classes", "--method salt", "'salt'; choose from pca, vae, deep_svdd"),
        ("classes", "--classes d", "'d'; choose from a, b, c"),
        ("classes", "--model.size 8", "image size is 8"),
        ("classes", "--model.batch-size 1", "batch_size is 1"),
        ("d_anogan", "--dataset mnist", "--data-root"),
        ("d_anogan", "--dataset folder --data-root DATA --anomalous-class d", "'d'; choose from a, b, c"),
        ("d_anogan", "--model.size 30", "image size is 30"),
        ("d_anogan", "--model.batch-size 99", "model.batch_size (99)"),
        ("d_anogan", "--model.steady 1.5", "steady is 1.5"),
    ],
)
def test_bad_input(
    name: str, words: str, named: str, error: Callable[..., str], noise_classes: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    words = words.replace("DATA", str(noise_classes)).replace("EMPTY", str(tmp_path / "empty"))
    assert named in error(name, *words.split())
    assert not (tmp_path / "run").exists()
