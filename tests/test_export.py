"""The exported file says what the detector says, of images of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nbs_env.common.errors import RunError
from nbs_env.data import AnomalyDataset
from nbs_env.detect import export as exporting
from nbs_env.detect.detector import Detector, Prediction
from nbs_env.detect.export import OUTPUTS, export
from nbs_env.detect.segmenter import Segmenter

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def run_onnx(file: Path, image: np.ndarray) -> Prediction:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    probability, mask, score, bad = session.run(list(OUTPUTS), {"image": image})
    return Prediction(probability, mask, float(score), bool(bad))


@pytest.fixture
def detector() -> Detector:
    weights = Segmenter(torch.Generator().manual_seed(0)).state_dict()
    cpu = torch.device("cpu")
    return Detector([], [], 128, "float32", cpu, segmenter=weights, segmenter_threshold=0.5)


@pytest.mark.parametrize(
    ("working", "size"),
    [
        *(("square", size) for size in ((128, 128), (64, 64), (200, 90), (301, 517))),
        *((96, (301, 117)), (96, (96, 130)), ("own", (97, 128))),
    ],
)
def test_it_says_what_the_detector_says(
    working: Any, size: tuple[int, int], detector: Detector, dataset: AnomalyDataset, tmp_path: Path
) -> None:
    """Pillow resizes in fixed point, so a level may differ by one; that moves a few pixels by a little."""
    image = np.array(Image.fromarray(dataset.images[0]).resize(size[::-1], Image.Resampling.BILINEAR))
    detector.segmenter_size, detector.segmenter_symmetries = working, working == "own"
    if working == "own":  # where 0.5 marks nothing
        detector.segmenter_threshold = float(np.median(next(detector.predict(image)).probability))
    export(detector, tmp_path / "detector.onnx")
    (expected,), found = detector.predict(image), run_onnx(tmp_path / "detector.onnx", image)
    assert found.probability.shape == found.mask.shape == size
    difference = np.abs(found.probability - expected.probability)
    assert difference.max() < (1e-5 if working == "own" or size == (128, 128) else 0.01)
    assert np.quantile(difference, 0.99) < 1e-3
    assert (found.mask == expected.mask).mean() > 0.998
    assert 0.02 < expected.mask.mean() < 0.98, "masks that are all alike would prove nothing"
    assert found.score == pytest.approx(expected.score, abs=1e-3)
    assert found.bad == expected.bad


def test_symmetries_and_alarm_are_inside(detector: Detector, dataset: AnomalyDataset, tmp_path: Path) -> None:
    called = []
    for detector.segmenter_symmetries, above in ((True, -1e-3), (False, 1e-3)):
        (first,) = detector.predict(dataset.images[1])
        detector.image_threshold = first.score + above
        export(detector, tmp_path / "detector.onnx")
        (expected,) = detector.predict(dataset.images[1])
        found = run_onnx(tmp_path / "detector.onnx", dataset.images[1])
        np.testing.assert_allclose(found.probability, expected.probability, atol=1e-5)
        assert found.bad == expected.bad
        called.append(found.bad)
    assert called == [True, False]


def test_names_sizes_and_facts(detector: Detector, tmp_path: Path) -> None:
    export(detector, tmp_path / "detector.onnx")
    model = onnx.load(tmp_path / "detector.onnx")
    sizes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    plane = ["height", "width"]
    assert sizes == {"image": [*plane, 3], "probability": plane, "mask": plane, "score": [], "bad": []}
    facts = {p.key: p.value for p in model.metadata_props}
    assert facts == {"image_size": "128", "threshold": "0.5", "white": "255"}


def test_a_detector_without_a_segmenter_is_refused(
    detector: Detector, tmp_path: Path, fails: Callable[..., str]
) -> None:
    detector.methods = ("nbs",)
    with pytest.raises(RunError, match="no segmenter to export; train it with --segmenter-steps"):
        export(detector, tmp_path / "detector.onnx")
    words = ["--run", str(tmp_path), "--out", str(tmp_path / "x.onnx")]
    assert f"{tmp_path / 'detector.pt'} does not exist" in fails(exporting.main, words)
    detector.methods = ("segmenter",)
    detector.save(tmp_path / "detector.pt")
    exporting.main(words)
    assert run_onnx(tmp_path / "x.onnx", np.zeros((70, 80, 3), np.uint8)).mask.shape == (70, 80)
