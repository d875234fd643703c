"""The command that makes masks of a folder: its files, its errors, and how many images are in memory."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import untrained_rings
from PIL import Image

from nbs_env.common.errors import CheckpointError, RunError
from nbs_env.data import AnomalyDataset, DataError
from nbs_env.desk.report import write_report
from nbs_env.detect import detector, predict
from nbs_env.detect.detector import Detector, Prediction
from nbs_env.detect.predict import PredictArgs, predict_folder
from nbs_env.predictor import Predictor

SIZES = {"b.png": (100, 150), "a.jpg": (70, 64), "c.png": (128, 128)}


@pytest.fixture
def args(tmp_path: Path, dataset: AnomalyDataset) -> PredictArgs:
    """A run with an untrained detector, and three images of different sizes."""
    weights = [Predictor(3, 1).state_dict()] * 2
    made = Detector(untrained_rings(), weights, 128, "float32", torch.device("cpu"))
    (tmp_path / "images").mkdir()
    for number, (name, (height, width)) in enumerate(SIZES.items()):
        Image.fromarray(dataset.images[number]).resize((width, height)).save(tmp_path / "images" / name)
    predictions = made.predict([read(tmp_path / "images" / name) for name in SIZES])
    made.crf_threshold = float(np.median(np.concatenate([p.probability.ravel() for p in predictions])))
    (tmp_path / "run").mkdir()
    made.save(tmp_path / "run" / "detector.pt")
    return PredictArgs(tmp_path / "run", tmp_path / "images", tmp_path / "new" / "out", "cpu")


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_files_hold_what_the_detector_says_in_the_images_sizes(args: PredictArgs) -> None:
    rows = predict_folder(args)
    assert [name for name, *_ in rows] == sorted(SIZES)
    with (args.out / "predictions.csv").open() as file:
        table = list(csv.DictReader(file))
    detector = Detector.load(args.run / "detector.pt")
    shares = []
    for row in table:
        stem = Path(row["file"]).stem
        image = read(args.images / row["file"])
        (expected,) = detector.predict([image])
        mask = read(args.out / "masks" / f"{stem}.png")
        probability = read(args.out / "probabilities" / f"{stem}.png")
        assert mask.shape == probability.shape == SIZES[row["file"]]
        np.testing.assert_array_equal(mask, np.where(expected.mask, 255, 0))
        np.testing.assert_allclose(probability / 255, expected.probability, atol=0.5 / 255 + 1e-6)
        assert float(row["image_score"]) == pytest.approx(expected.score, abs=1e-6)
        assert float(row["anomalous_share"]) == pytest.approx(expected.mask.mean(), abs=1e-6)
        assert row["bad"] == str(int(expected.bad))
        shares.append(expected.mask.mean())
    assert 0.1 < np.mean(shares) < 0.9, "masks that are all empty would prove nothing"
    written = {str(path.relative_to(args.out)) for path in args.out.rglob("*") if path.is_file()}
    folders = ("masks", "probabilities", "overlays")
    assert written == {f"{folder}/{stem}.png" for folder in folders for stem in "abc"} | {
        *("predictions.csv", "settings.json"),
    }


def test_files_that_come_are_predicted_when_they_are_complete(
    args: PredictArgs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (args.images / "b.png").read_bytes()
    looks = 0

    def look(_: float) -> None:
        nonlocal looks
        looks += 1
        match looks:
            case 1:
                (args.images / "d.png").write_bytes(whole[:500])
                (args.images / "e.png").write_bytes(b"nothing")
                os.utime(args.images / "e.png", (0, 0))
            case 2:
                assert not (args.out / "masks" / "d.png").exists()
                (args.images / "d.png").write_bytes(whole)
            case 4:
                raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", look)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(replace(args, watch=True))
    with (args.out / "predictions.csv").open() as file:
        table = {row.pop("file"): row for row in csv.DictReader(file)}
    assert list(table) == ["a.jpg", "b.png", "c.png", "d.png"]
    assert table["d.png"] == table["b.png"]
    for folder in ("masks", "probabilities"):
        copies = [(args.out / folder / f"{stem}.png").read_bytes() for stem in "bd"]
        assert copies[0] == copies[1]
    assert capsys.readouterr().out.count("note: left out: ") == 1


def test_a_few_images_are_in_memory(args: PredictArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    read_large = predict.read_large

    def watched(file: Path, min_side: int, white: int | None) -> np.ndarray:
        assert sum(image() is not None for image in alive) <= at_once  # those being replaced
        image = read_large(file, min_side, white)
        alive.append(weakref.ref(image))
        return image

    monkeypatch.setattr(predict, "read_large", watched)
    for at_once in (1, 2):
        monkeypatch.setattr(detector, "AT_ONCE", at_once)
        predict_folder(PredictArgs(args.run, args.images, args.out / str(at_once)))
    assert len(alive) == 2 * 2 * len(SIZES)


def test_bad_images_are_found_before_any_work(args: PredictArgs) -> None:
    whole = (args.images / "c.png").read_bytes()
    small = io.BytesIO()
    Image.new("RGB", (200, 63)).save(small, "png")
    for name, content, message in (
        ("z.png", whole[: len(whole) // 2], r"z\.png: not a readable image"),
        ("z.png", small.getvalue(), r"z\.png: 200x63 pixels, smaller than a patch.*64"),
        ("a.png", whole, r"a\.\w+: a\.\w+ has the same stem"),
    ):
        (args.images / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            predict_folder(args)
        (args.images / name).unlink()
    assert not any(args.out.rglob("*"))


def test_predictions_are_never_overwritten(args: PredictArgs) -> None:
    predict_folder(args)
    with pytest.raises(RunError, match=r"masks is there already; choose another --out or remove it"):
        predict_folder(args)


def test_the_table_comes_last(args: PredictArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Detector.predict

    def dies_at_c(self: Detector, images: Iterable[np.ndarray], method: str | None) -> Iterator[Prediction]:
        for prediction in original(self, images):
            if prediction.mask.shape == SIZES["c.png"]:
                raise KeyboardInterrupt
            yield prediction

    monkeypatch.setattr(Detector, "predict", dies_at_c)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(args)
    assert sorted(path.name for path in (args.out / "masks").iterdir()) == ["a.png", "b.png"]
    assert not (args.out / "predictions.csv").exists()


def test_a_detector_alone_is_enough(args: PredictArgs, tmp_path: Path) -> None:
    file = (args.run / "detector.pt").rename(tmp_path / "of last week.pt")
    rows = predict_folder(replace(args, run=file))
    assert [name for name, *_ in rows] == sorted(SIZES)
    assert write_report(args.out)[0].is_file()
    with pytest.raises(CheckpointError, match=r"run/detector\.pt does not exist"):
        predict_folder(replace(args, out=tmp_path / "more"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"--run": "nowhere"}, "nowhere/detector.pt does not exist"),
        ({"--images": "nowhere"}, "nowhere: no such directory"),
        ({"--method": "segmenter"}, "method is 'segmenter'; this detector has nbs"),
        ({"--device": "tpu"}, "there is no device 'tpu'; choose cpu, cuda or auto"),
        ({"--out": "images/a.jpg"}, "a.jpg"),
    ],
)
def test_the_command_ends_with_one_line_and_code_2(
    args: PredictArgs,
    flags: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = {"--run": "run", "--images": "images", "--out": "out"} | flags
    assert message in fails(predict.main, [word for pair in flags.items() for word in pair])
    assert not (tmp_path / "out").exists()


def test_its_page_has_the_images_and_their_files(args: PredictArgs) -> None:
    rows = predict_folder(args)
    page, summary = write_report(args.out)
    content = json.loads(re.findall(r"<script[^>]*>(.*?)</script>", page.read_text(), re.DOTALL)[0])
    assert summary.startswith(f"{sum(bad for *_, bad in rows)} of 3 images ")
    images = {image["name"]: image for image in content["images"]}
    assert images.keys() == SIZES.keys()
    for name, *values, bad in rows:
        image = images[name]
        assert [image[k] for k in ("score", "highest", "share")] == pytest.approx(values, abs=1e-6)
        assert image["bad"] == bad
        assert (args.out / image["link"]).resolve() == (args.images / name).resolve()
        shape = read(args.images / name).shape[:2]
        sizes = set()
        for layer in ("image", "probability", "mask"):
            with Image.open(io.BytesIO(base64.b64decode(image[layer].partition(",")[2]))) as picture:
                sizes.add(picture.size)
        ((width, height),) = sizes
        assert width / height == pytest.approx(shape[1] / shape[0], rel=0.02)
