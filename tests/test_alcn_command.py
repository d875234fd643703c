"""The command of ALCN: what it writes, resuming, folders in use, and bad input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from baselines.alcn import __main__ as command
from baselines.alcn import networks
from baselines.alcn.trainer import ALCN
from nbs_env.common import checkpoint
from nbs_env.common.runs import claim


@pytest.fixture
def main(noise_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command on three classes of noise, with thin networks."""
    monkeypatch.setattr(networks, "_WIDTHS", (8, 16, 16))
    monkeypatch.setattr(networks, "_NOISE_WIDTHS", (16, 16, 8, 8))
    tiny = ["--dataset", "folder", "--model.size", "16", "--model.epochs", "4", "--checkpoint-every", "2"]

    def call(*words: object) -> None:
        line = [*tiny, "--data-root", noise_classes, "--device", "cpu", *words]
        monkeypatch.setattr(sys, "argv", ["alcn", *map(str, line)])
        command.main()

    return call


@pytest.mark.parametrize("protocol", [1, 2])
def test_both_protocols(
    protocol: int, main: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main("--protocol", protocol, "--noise", "alcn,none", "--classes", "a,c", "--run-dir", tmp_path / "run")
    out = capsys.readouterr().out
    assert "|  | a | c | mean |" in out
    titles = [line.split("|")[1].strip() for line in out.splitlines()[2:]]
    kinds = ("alcn, test noise", "alcn", "alcn, test noise, relative error", "alcn, relative error")
    assert [title for title in titles if not title.startswith("(")] == [
        *("pca", "pca, relative error"),
        *(title for kind in kinds for title in (kind, f"{kind}, less none")),
        *("none", "none, relative error"),
    ]
    for noise in ("alcn", "none"):
        for name in ("checkpoint.pt", "metrics.json", "pictures.png"):
            assert (tmp_path / "run" / noise / "c" / name).stat().st_size > 0
    state = checkpoint.load(tmp_path / "run" / "alcn" / "a" / "checkpoint.pt")
    assert state["progress"]["epoch"] == 4


def test_noise_is_compared_with_none_class_by_class() -> None:
    """t with one degree of freedom is 12.706, and the standard error of 0.1 and 0.3 is 0.1."""
    results = {
        "none": {name: {"auc": 0.6, "auc_relative": 0.7} for name in "ab"},
        "speckle": {"a": {"auc": 0.7, "auc_relative": 0.7}, "b": {"auc": 0.9, "auc_relative": 0.7}},
    }
    lines = command.table(command.Args(dataset="folder"), results).splitlines()
    assert "| speckle, less none | +0.100 | +0.300 | +0.200 [-1.071, +1.471] |" in lines


def test_a_killed_command_goes_on(
    main: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_bits: Callable[..., None]
) -> None:
    words = ("--classes", "a", "--noise", "alcn", "--run-dir")
    main(*words, tmp_path / "whole")
    original = ALCN.train_epoch

    def killed(self: ALCN, images: torch.Tensor) -> dict[str, float]:
        if self.epoch == 3:
            raise KeyboardInterrupt
        return original(self, images)

    monkeypatch.setattr(ALCN, "train_epoch", killed)
    with pytest.raises(SystemExit) as end:
        main(*words, tmp_path / "killed")
    assert end.value.code == 130
    monkeypatch.setattr(ALCN, "train_epoch", original)
    main(*words, tmp_path / "killed", "--resume")
    same_bits(*(checkpoint.load(tmp_path / n / "alcn" / "a" / "checkpoint.pt") for n in ("whole", "killed")))


def test_the_images_may_lie_elsewhere(
    main: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--classes", "a", "--noise", "none", "--run-dir", tmp_path / "run")
    main(*words)
    pictures = (tmp_path / "run" / "none" / "a" / "pictures.png").read_bytes()
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    again = (*words, "--resume", "--data-root", tmp_path / "elsewhere")
    main(*again)
    assert (tmp_path / "run" / "none" / "a" / "pictures.png").read_bytes() == pictures
    Image.new("RGB", (20, 20)).save(tmp_path / "elsewhere" / "b" / "0.png")
    for more, message in (
        ((), "elsewhere no longer holds what"),
        (("--seed", "1"), "checkpoint.pt was made with seed = 0, not 1"),
    ):
        with pytest.raises(SystemExit):
            main(*again, *more)
        assert message in capsys.readouterr().err


def test_a_folder_that_holds_something_else(
    main: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--classes", "a", "--noise", "none", "--run-dir", tmp_path / "run")
    main(*words)
    main(*words, "--noise", "speckle")  # another model beside it
    (tmp_path / "run" / "config.json").touch()
    with claim(tmp_path / "other"):
        for place, message in (("run", "already holds a run;"), ("other", "another process works on it")):
            with pytest.raises(SystemExit):
                main(*words, "--noise", "gaussian", "--run-dir", tmp_path / place)
            assert message in capsys.readouterr().err


def test_a_finished_model_is_only_scored_again(
    main: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--classes", "a", "--noise", "none", "--model.patience", "1", "--run-dir", tmp_path / "run")
    monkeypatch.setattr(ALCN, "held_out_error", lambda *_: 1.0)  # never better
    main(*words)
    file = tmp_path / "run" / "none" / "a" / "checkpoint.pt"
    assert checkpoint.load(file)["progress"]["epoch"] == 2
    written = file.stat().st_mtime_ns
    main(*words, "--resume")
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--noise salt", "there is no noise 'salt'; choose from none, speckle, gaussian, alcn"),
        ("--classes d", "there is no class 'd'; choose from a, b, c"),
        ("--model.size 8", "image size is 8; the networks take sizes from 16 up"),
        ("--dataset mnist --model.size 28", "lacks train-images-idx3-ubyte.gz"),
        ("--dataset mnist", "mnist is 28 pixels and grey"),
        ("--checkpoint-every 0", "checkpoint_every is 0; it must be at least 1"),
        ("--device gpu", "there is no device 'gpu'; choose cpu, cuda or auto"),
    ],
)
def test_bad_input_ends_with_one_line(
    words: str, message: str, main: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main("--run-dir", tmp_path / "run", *words.split())
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
