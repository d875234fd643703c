"""The exported file says what the detector says, of images of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

from nbs_env.common.errors import RunError
from nbs_env.data import resize_image
from nbs_env.detect import export as exporting
from nbs_env.detect.detector import Detector, Prediction
from nbs_env.detect.export import OUTPUTS, export
from nbs_env.detect.segmenter import Segmenter
from nbs_env.features.encoder import frozen_encoder
from nbs_env.features.memory import FeatureMemory, described, level_scale

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def run_onnx(file: Path, images: np.ndarray) -> list[Prediction]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(list(OUTPUTS), {"image": images})
    return [Prediction(p, m, float(score), bool(bad)) for p, m, score, bad in zip(*found, strict=True)]


def photo(size: tuple[int, int]) -> np.ndarray:
    """A part of a photograph that is installed with scikit-learn."""
    return load_sample_image("china.jpg")[: size[0], : size[1]].copy()


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    """A segmenter, and a memory of every fourth place of the other photograph."""
    encoder = frozen_encoder(torch.device("cpu"))
    flower = resize_image(load_sample_image("flower.jpg"), 128)
    with torch.no_grad():
        places = described(encoder, torch.from_numpy(flower).permute(2, 0, 1)[None].float() / 255)
    vectors = places[0].flatten(1).T[::4].clone()
    scale = level_scale(vectors)
    return {
        "segmenter": Segmenter(torch.Generator().manual_seed(0)).state_dict(),
        "memory": FeatureMemory(vectors * scale, scale, 1.0, 0.3).weights(),
        "share": 0.3,
    }


def made(weights: dict[str, Any], method: str, size: Any = "square", symmetries: bool = False) -> Detector:
    """A detector that ships `method`."""
    one = {name: value for name, value in weights.items() if method in (name, "fused")}
    more = {"segmenter_size": size, "segmenter_symmetries": symmetries, **one}
    detector = Detector([], [], 128, "float32", torch.device("cpu"), **more)
    assert detector.methods[0] == method
    return detector


@pytest.mark.parametrize(
    ("method", "working", "size"),
    [
        *(("fused", "square", size) for size in ((128, 128), (64, 64), (200, 90), (301, 517))),
        *(("fused", working, (301, 117)) for working in (96, 333, "own")),
        *(("segmenter", working, (97, 128)) for working in ("square", 96, "own")),
        ("memory", "square", (301, 517)),
    ],
)
def test_it_says_what_the_detector_says(
    method: str, working: Any, size: tuple[int, int], weights: dict[str, Any], tmp_path: Path
) -> None:
    detector = made(weights, method, working, symmetries=(method, working) == ("segmenter", "own"))
    image = photo(size)
    detector.thresholds[method] = float(np.median(next(detector.predict(image)).probability))
    export(detector, tmp_path / "detector.onnx")
    (expected,), (found,) = detector.predict(image), run_onnx(tmp_path / "detector.onnx", image[None])
    assert found.probability.shape == found.mask.shape == size
    np.testing.assert_allclose(found.probability, expected.probability, atol=2e-5)
    assert expected.probability.std() > 1e-3, "probabilities that are all alike would prove nothing"
    assert (found.mask == expected.mask).mean() > 0.998
    assert 0.02 < expected.mask.mean() < 0.98, "so would such masks"
    assert found.score == pytest.approx(expected.score, abs=2e-5)
    assert found.bad == expected.bad


@pytest.mark.parametrize("size", [(64, 100), (427, 640), (300, 75)])
@pytest.mark.parametrize("target", [(128, 128), (333, 75), (90, 160)])
def test_levels_are_those_of_pillow(size: tuple[int, int], target: tuple[int, int]) -> None:
    image = photo(size)
    levels = torch.from_numpy(image).permute(2, 0, 1)[None]
    found = exporting._resized(levels, torch.tensor(size), torch.tensor(target))[0].permute(1, 2, 0) * 255
    np.testing.assert_array_equal(found.round().numpy(), resize_image(image, target))


@pytest.mark.parametrize(("working", "symmetries"), [("square", True), (96, False), ("own", False)])
def test_a_batch_is_its_images_one_by_one(
    working: Any, symmetries: bool, weights: dict[str, Any], tmp_path: Path
) -> None:
    detector = made(weights, "fused", working, symmetries)
    image = photo((101, 150))
    images = np.stack([image, image[::-1], image[:, ::-1]])
    scores = [each.score for each in detector.predict(images)]
    detector.alarms["fused"] = (min(scores) + max(scores)) / 2
    export(detector, tmp_path / "detector.onnx")
    together = run_onnx(tmp_path / "detector.onnx", images)
    assert {each.bad for each in together} == {True, False}
    for one, expected in zip(together, detector.predict(images), strict=True):
        np.testing.assert_allclose(one.probability, expected.probability, atol=2e-5)
        assert one.bad == expected.bad


def test_names_sizes_and_facts(weights: dict[str, Any], tmp_path: Path) -> None:
    export(made(weights, "fused"), tmp_path / "detector.onnx")
    model = onnx.load(tmp_path / "detector.onnx")
    sizes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    planes = ["n", "height", "width"]
    assert sizes == {
        "image": [*planes, 3],
        "probability": planes,
        "mask": planes,
        "score": ["n"],
        "bad": ["n"],
    }
    facts = {p.key: p.value for p in model.metadata_props}
    assert facts == {"method": "fused", "image_size": "128", "threshold": "0.5", "white": "255"}


def test_batch_sampling_alone_is_refused(
    weights: dict[str, Any], tmp_path: Path, fails: Callable[..., str]
) -> None:
    detector = made(weights, "memory")
    detector.methods = ("nbs",)
    with pytest.raises(RunError, match="train it with --segmenter-steps or --memory-size above 0"):
        export(detector, tmp_path / "detector.onnx")
    words = ["--run", str(tmp_path), "--out", str(tmp_path / "x.onnx")]
    assert f"{tmp_path / 'detector.pt'} does not exist" in fails(exporting.main, words)
    made(weights, "fused").save(tmp_path / "detector.pt", ("fused",))
    exporting.main(words)
    (found,) = run_onnx(tmp_path / "x.onnx", np.zeros((1, 70, 80, 3), np.uint8))
    assert found.mask.shape == (70, 80)
