"""The U-Net: shapes, learning a plain defect, no leak of test masks; and the command of all three rivals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines import forest, reconstruction, unet
from baselines.segmentation import Problem, prepare
from nbs_env.common.errors import RunError
from nbs_env.data import AnomalyDataset
from nbs_env.predictor import class_weights

TINY = unet.UNetConfig(width=4, crop=64, batch_size=4, steps=48, check_every=24, learning_rate=5e-3)


def fit(data: AnomalyDataset, out: Path) -> dict[str, Any]:
    return unet.fit(Problem(data, np.arange(2), np.arange(2, 8), out, "cpu"), TINY, 0)


def test_shapes_and_size() -> None:
    network = unet.UNet(64)
    assert network(torch.zeros(2, 3, 32, 48)).shape == (2, 32, 48)
    # Ronneberger's 31 million for one input channel and two classes, with BatchNorm's 2 x 5888
    assert sum(p.numel() for p in network.parameters()) == 31_043_521


def test_learns_a_plain_defect_and_reads_no_test_mask(blobs: AnomalyDataset, tmp_path: Path) -> None:
    """With three seeds and either arithmetic AP is 0.9999; F1 after so few steps hangs on the last bits."""
    honest = fit(blobs, tmp_path / "a")
    assert honest["methods"]["unet"]["pixel_ap"] > 0.95
    weight, _ = class_weights(torch.from_numpy(blobs.masks[:2]), "sqrt")
    assert 0.5 <= honest["threshold"] <= weight / (1 + weight)
    masks = blobs.masks.copy()
    masks[2:] = np.random.default_rng(1).random((10, 64, 64)) < 0.5
    garbage = fit(replace(blobs, masks=masks), tmp_path / "b")
    assert (honest["steps"], honest["threshold"]) == (garbage["steps"], garbage["threshold"])
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
