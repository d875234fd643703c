"""The pixel-level rivals: learning a plain defect, no leak of test masks, thresholds, and their commands."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from baselines import forest, reconstruction, unet
from baselines.segmentation import FOLDS, Problem, prepare
from nbs_env.common.errors import RunError
from nbs_env.data import AnomalyDataset
from nbs_env.detect.teaching import folds
from nbs_env.predictor import class_weights

TINY = unet.UNetConfig(width=4, crop=64, batch_size=4, steps=48, check_every=24, learning_rate=5e-3)
SMALL = forest.ForestConfig(largest_scale=4.0, trees=10)
PLAIN = reconstruction.ReconstructionConfig(
    latent=4, steps=40, batch_size=4, learning_rate=2e-3, smallest_region=4
)


def test_shapes_and_size() -> None:
    network = unet.UNet(64)
    assert network(torch.zeros(2, 3, 32, 48)).shape == (2, 32, 48)
    # Ronneberger's 31 million for one input channel and two classes, with BatchNorm's 2 x 5888
    assert sum(p.numel() for p in network.parameters()) == 31_043_521
    assert reconstruction.Autoencoder(7)(torch.zeros(2, 3, 128, 128)).shape == (2, 3, 128, 128)


@pytest.mark.parametrize(("module", "config"), [(unet, TINY), (forest, SMALL)])
def test_learns_a_plain_defect_and_reads_no_test_mask(
    module: Any, config: Any, blobs: AnomalyDataset, tmp_path: Path
) -> None:
    """After so few steps the U-Net's F1 hangs on the last bits; AP is 0.9999 with any seed or arithmetic."""
    name = module.__name__.split(".")[-1]

    def fit(data: AnomalyDataset) -> dict[str, Any]:
        return module.fit(Problem(data, np.arange(2), np.arange(2, 8), tmp_path, "cpu"), config, 0)

    honest = fit(blobs)
    assert honest["methods"][name]["pixel_ap"] > 0.95
    weight, _ = class_weights(torch.from_numpy(blobs.masks[:2]), "sqrt")
    assert module is forest or 0.5 <= honest["threshold"] <= weight / (1 + weight)
    masks = blobs.masks.copy()
    masks[2:] = np.random.default_rng(1).random((10, 64, 64)) < 0.5
    garbage = fit(replace(blobs, masks=masks))
    assert [honest.get(k) for k in ("steps", "threshold")] == [garbage.get(k) for k in ("steps", "threshold")]
    assert honest["methods"] != garbage["methods"]


def test_the_threshold_keeps_to_the_segmenters_bounds(
    blobs: AnomalyDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where 0.2 and 0.999 would part all pixels left out."""
    masks = {image.tobytes(): mask for image, mask in zip(blobs.images, blobs.masks, strict=True)}
    weight, _ = class_weights(torch.from_numpy(blobs.masks[:3]), "sqrt")
    config = replace(TINY, steps=1, check_every=1)
    for low, high, wanted in ((0.1, 0.2, 0.5), (0.99, 0.999, weight / (1 + weight))):

        def seen(self: unet.Trainer, images: np.ndarray, low: float = low, high: float = high) -> np.ndarray:
            truth = np.stack([masks[image.tobytes()] for image in images])
            return np.where(truth, high, low).astype(np.float32)

        monkeypatch.setattr(unet.Trainer, "probabilities", seen)
        found = unet.leave_out(blobs.images[:3], blobs.masks[:3], config, 0, "cpu")
        assert found == (1, pytest.approx(wanted))


def test_an_image_with_the_only_anomaly_is_never_left_out(blobs: AnomalyDataset) -> None:
    masks = np.zeros((2, 64, 64), bool)
    masks[0, :8] = True
    config = replace(TINY, steps=2, check_every=1)
    assert unet.leave_out(blobs.images[:2], masks, config, 0, "cpu") == (2, 0.5)
    masks = masks[[1, 0, 1]]
    assert [part.tolist() for part in folds(masks, FOLDS)] == [[0], [2]]
    features = [forest.features(image, SMALL) for image in blobs.images[:3]]
    assert forest.left_out_threshold(features, masks, SMALL, 0) == 0.5  # nothing to find on 0 and 2


def test_twelve_labelled_images_are_left_out_in_five_parts(
    blobs: AnomalyDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []

    class Spy(unet.Trainer):
        def __init__(self, images: np.ndarray, *rest: Any) -> None:
            shown.append(len(images))
            super().__init__(images, *rest)

    monkeypatch.setattr(unet, "Trainer", Spy)
    config = replace(TINY, steps=1, check_every=1)
    unet.leave_out(blobs.images[:12], blobs.masks[:12], config, 0, "cpu")
    assert shown == [9, 9, 10, 10, 10]


@pytest.mark.parametrize(
    ("module", "words", "named"),
    [
        (unet, "--model.crop 100", "model.crop is 100"),
        *((each, "--image-size 200", "image_size is 200") for each in (unet, forest, reconstruction)),
        (forest, "--dataset crackforest", "crackforest is read from files"),
        (forest, "--labeled 99", "99"),
        (forest, "--model.sampled-share 0", "sampled_share is 0"),
        (reconstruction, "--image-size 64", "image_size is 64"),
    ],
)
def test_bad_input_ends_with_one_line(
    module: Any, words: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        module.main(["--run-dir", str(tmp_path / "run"), *words.split()])
    assert end.value.code == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_interrupted_run_begins_again_and_a_finished_one_stays(folder: Path, tmp_path: Path) -> None:
    args = unet.Args("folder", folder, labeled=("2",), image_size=128, run_dir=tmp_path / "run", device="cpu")
    (tmp_path / "run").mkdir()
    for name in ("overlays.png", "metrics.json.part"):
        (tmp_path / "run" / name).touch()
    with prepare(args, "unet") as problem:
        assert problem.data.images.shape[1] == 128
    (tmp_path / "run" / "metrics.json").touch()
    with pytest.raises(RunError, match="already holds a run"), prepare(args, "unet"):
        pass


def test_nothing_to_score_is_said_before_training(mine: Path, tmp_path: Path) -> None:
    args = unet.Args("folder", mine, labeled=("4",), run_dir=tmp_path / "run", device="cpu")
    message = "no image of folder/mine but the 4 labelled ones has a mask"
    with pytest.raises(RunError, match=message), prepare(args, "unet"):
        pass


def test_a_defect_is_needed(mine: Path, tmp_path: Path) -> None:
    for name in ("0", "1"):
        Image.new("L", (128, 128)).save(mine / "masks" / f"{name}.png")
    args = unet.Args("folder", mine, labeled=("0", "1"), run_dir=tmp_path / "run", device="cpu")
    message = "no labelled image of folder/mine has a defect to learn from"
    with pytest.raises(RunError, match=message), prepare(args, "unet"):
        pass


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"needs scikit-image; python -m pip install -e '.\[forest\]'"):
        forest.run(forest.Args())


def test_errors_are_means_over_the_patches_of_a_pixel() -> None:
    """With a network that returns zeros the error of a pixel is its square, however many patches hold it."""
    model = reconstruction.Reconstruction(PLAIN, 0, "cpu")
    model.network = lambda patches: torch.zeros_like(patches)  # type: ignore[assignment]
    images = np.random.default_rng(0).integers(256, size=(2, 200, 200, 3), dtype=np.uint8)
    expected = ((images / 255) ** 2).mean(axis=3)
    np.testing.assert_allclose(model.errors(images), expected, rtol=1e-5)


def test_threshold_is_the_lowest_that_leaves_small_regions() -> None:
    errors = np.random.default_rng(0).random((2, 12, 12)).astype(np.float32)

    def largest(threshold: float) -> int:
        sizes = []
        for each in errors >= threshold:
            regions, count = scipy.ndimage.label(each, np.ones((3, 3)))
            sizes += [int((regions == k).sum()) for k in range(1, count + 1)]
        return max(sizes, default=0)

    allowed = [float(value) for value in np.unique(errors) if largest(float(value)) <= 5]
    assert reconstruction.normal_threshold(errors, 5) == allowed[0]
    assert largest(reconstruction.normal_threshold(errors, 0)) == 0


def test_finds_what_normal_images_do_not_have(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(120, 130, size=(8, 128, 128, 1)).repeat(3, axis=3).astype(np.uint8)
    masks = np.zeros((4, 128, 128), bool)
    scored = grey[4:].copy()
    for k in range(4):
        masks[k, 20 * k : 20 * k + 24, 40:64] = True
    scored[masks] = 250
    data = AnomalyDataset("x", scored, masks, np.ones(4, bool), tuple("0123"), ("square",) * 4)
    problem = Problem(data, np.arange(1), np.arange(1, 4), tmp_path, "cpu")
    metrics = reconstruction.fit(problem, grey[:4], PLAIN, 0)
    assert metrics["methods"]["reconstruction"]["pixel_ap"] > 0.9
    assert metrics["scored_images"] == 3


def test_data_without_normal_images_of_their_own(tmp_path: Path, dataset: AnomalyDataset) -> None:
    with pytest.raises(RunError, match="crackforest has no normal images of its own"):
        reconstruction.normal_images(reconstruction.Args(dataset="crackforest", data_root=tmp_path), dataset)
    assert len(reconstruction.normal_images(reconstruction.Args(), dataset)) > 10
    known = replace(dataset, good=dataset.images[:2])
    assert reconstruction.normal_images(reconstruction.Args(dataset="folder"), known) is known.good
