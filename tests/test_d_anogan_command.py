"""The command of D-AnoGAN: what it writes, resuming, its members, and the detector."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.d_anogan import __main__ as command
from baselines.d_anogan import wheel
from baselines.d_anogan.config import DAnoGANConfig
from baselines.d_anogan.detector import DAnoGANDetector, mean_scores
from baselines.d_anogan.trainer import DAnoGAN
from nbs_env.common import checkpoint
from nbs_env.data.classes import ClassDataset, read_folder
from nbs_env.detect.metrics import image_auroc

TINY = ("--model.size 28 --model.clusters 3 --model.latent 4 --model.batch-size 8 "
        "--model.generator-steps 5 --model.critic-start 2 --model.xzx-steps 5 "
        "--checkpoint-every 2 --device cpu")  # fmt: skip


def main(*words: object) -> None:
    """The command in its smallest form."""
    command.main([*TINY.split(), *map(str, words)])


@pytest.fixture
def wheels(tmp_path: Path) -> tuple[object, ...]:
    return "--per-class", 6, "--run-dir", tmp_path / "run"


def test_default_run_on_wheels(
    wheels: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(*wheels)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["alpha"] == 1.0
    assert set(metrics["auc"]) == {"spoke", "hub"}
    assert metrics["auc"]["hub"] == pytest.approx(metrics["swept"]["hub"][100])
    state = checkpoint.load(tmp_path / "run" / "checkpoint.pt")
    assert (state["steps"], state["xzx_steps"]) == (5, 5)  # it ends with the budget
    assert [row["step"] for row in state["history"]] == [5.0]
    assert metrics["purity"] == state["history"][-1]["purity"]
    for name in ("queries.png", "samples.png", "detector.pt", "checkpoint.pt", "table.md"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    out = capsys.readouterr().out
    assert "|  | spoke | hub | mean |" in out
    assert "| thesis | 0.88 | 0.97 | 0.93 |" in out or "| thesis | 0.88 | 0.97 | 0.92 |" in out


def test_presets_are_the_thesis_at_half_and_full_width() -> None:
    def model(dataset: str, preset: str) -> DAnoGANConfig:
        chosen = command.Args(dataset=dataset, preset=preset, seed=3)  # type: ignore[arg-type]
        assert command.default(chosen).seed == 3
        return replace(command.default(chosen).model, bfloat16=False)

    assert model("mnist", "paper") == DAnoGANConfig()
    half = model("fashion_mnist", "half")
    assert half == DAnoGANConfig(width=0.5, clusters=30, generator_steps=24_000, steady=0.4)
    assert model("wheel", "paper") == DAnoGANConfig(size=256, clusters=12)  # Table 5.4
    wheel, digits = model("wheel", "quick"), model("mnist", "quick")
    assert (wheel.size, digits.size) == (64, 28)
    assert all(each.batch_size >= 2 * each.clusters for each in (wheel, digits))
    assert model("cifar10", "quick").channels == 3


@pytest.mark.parametrize("step", ["steps", "xzx_steps"])
def test_resuming_gives_the_same_bits(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_bits: Callable[..., None]
) -> None:
    few = "--per-class", 6, "--run-dir"
    main(*few, tmp_path / "whole")
    method = "step" if step == "steps" else "xzx_step"
    original = getattr(DAnoGAN, method)

    def killed(self: DAnoGAN, *rest: object) -> object:
        if getattr(self, step) == 3:
            raise KeyboardInterrupt
        return original(self, *rest)

    monkeypatch.setattr(DAnoGAN, method, killed)
    with pytest.raises(SystemExit) as end:
        main(*few, tmp_path / "killed")
    assert end.value.code == 130
    monkeypatch.setattr(DAnoGAN, method, original)
    main(*few, tmp_path / "killed", "--resume")
    same_bits(*(checkpoint.load(tmp_path / n / "checkpoint.pt") for n in ("whole", "killed")))
    same_bits(*(json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("whole", "killed")))


def test_detector_survives_the_disc_and_ranks_by_its_parts(
    wheels: tuple[object, ...], tmp_path: Path
) -> None:
    main(*wheels)
    detector = DAnoGANDetector.load(tmp_path / "run" / "detector.pt")
    images = np.random.default_rng(0).integers(256, size=(5, 1, 28, 28), dtype=np.uint8)
    (error,), (divergence,) = detector.parts(images)
    assert (divergence > -1e-5).all()
    query = torch.from_numpy(images).float() / 127.5 - 1
    (model,) = detector.models
    cluster = model.assign(query).argmax(dim=1)
    again = model.reconstruct(query, cluster)
    np.testing.assert_allclose(error, (query - again).square().mean(dim=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(detector.predict(images), divergence)
    detector.alpha = 0.25
    np.testing.assert_allclose(detector.predict(images), 0.75 * error + 0.25 * divergence)
    with pytest.raises(checkpoint.CheckpointError, match="holds no D-AnoGAN"):
        DAnoGANDetector.load(tmp_path / "run" / "checkpoint.pt")


def test_scores_of_several_models_are_averaged(
    wheels: tuple[object, ...], tmp_path: Path, same_bits: Callable[..., None]
) -> None:
    main(*wheels, "--members", 2)
    rows = [line.split(" | ")[0] for line in (tmp_path / "run" / "table.md").read_text().splitlines()]
    assert rows[3:5] == ["| seed 0 alone", "| seed 1 alone"]
    main("--per-class", 6, "--run-dir", tmp_path / "grown")
    alone = json.loads((tmp_path / "grown" / "metrics.json").read_text())
    main("--per-class", 6, "--run-dir", tmp_path / "grown", "--resume", "--members", 2)
    for name in ("checkpoint.pt", "member-1/checkpoint.pt", "detector.pt"):
        same_bits(*(checkpoint.load(tmp_path / each / name) for each in ("run", "grown")))
    metrics = json.loads((tmp_path / "grown" / "metrics.json").read_text())
    assert metrics["members"][0]["auc"] == alone["auc"]
    assert metrics["auc"]["hub"] == metrics["swept"]["hub"][100]
    assert (tmp_path / "grown" / "member-1" / "samples.png").stat().st_size > 0

    detector = DAnoGANDetector.load(tmp_path / "run" / "detector.pt")
    made, labels, _ = wheel.make(6, 28, 0)
    data = ClassDataset(made[:, None], labels, wheel.CLASSES)
    _, test = data.split(wheel.ANOMALIES, 0.8, np.random.default_rng(0))
    scores, kinds = detector.predict(data.images[test]), np.array(wheel.CLASSES)[labels[test]]
    some = kinds != "spoke"
    assert metrics["auc"]["hub"] == image_auroc(scores[some], kinds[some] == "hub")
    detector.alpha = 0.25
    images = np.random.default_rng(0).integers(256, size=(5, 1, 28, 28), dtype=np.uint8)
    first, second = (DAnoGANDetector([model], 0.25).predict(images) for model in detector.models)
    assert not np.array_equal(first, second)
    np.testing.assert_allclose(detector.predict(images), np.sqrt(first * second), rtol=1e-5)


def test_a_further_model_that_does_not_fit_is_told_before_the_first_is_trained(
    wheels: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "member-1").mkdir(parents=True)
    main(*wheels[:2], "--run-dir", tmp_path / "other", "--seed", 1)
    (tmp_path / "other" / "checkpoint.pt").rename(tmp_path / "run" / "member-1" / "checkpoint.pt")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(*wheels, "--resume", "--members", 2)
    assert "seed = 1, not 0" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_score_of_rounding_is_the_least_in_a_mean() -> None:
    errors = np.zeros((2, 3))
    divergences = np.array([[-1e-9, 1e-12, 4.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(mean_scores(errors, divergences, 1.0), [1e-3, 1e-3, 2.0])


def test_folder_with_each_class_in_turn(
    noise_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--dataset folder --anomalous-class all --model.channels 3 --model.xzx-steps 0 --model.no-bandit"
    main(*words.split(), "--data-root", noise_classes, "--run-dir", tmp_path / "run")
    assert "|  | a | b | c | mean |" in capsys.readouterr().out
    state = checkpoint.load(tmp_path / "run" / "b" / "checkpoint.pt")
    assert (state["xzx_steps"], state["networks"]["prior"]["updates"]) == (0, 0)
    with Image.open(tmp_path / "run" / "b" / "queries.png") as sheet:
        query = np.asarray(sheet)[:28, :28]
    data = read_folder(noise_classes, 28, 3).images.transpose(0, 2, 3, 1).astype(int)
    assert abs(data - query).max(axis=(1, 2, 3)).min() <= 1  # the first cell is one of the images, in colour
