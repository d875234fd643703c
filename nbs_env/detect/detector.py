"""What is kept after training, segmenter, memory and batch sampling's snapshots: masks of any image."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nbs_env.common import checkpoint
from nbs_env.common.errors import ConfigError
from nbs_env.common.networks import compute_dtype, place
from nbs_env.config import PATCH
from nbs_env.data import DataError, resize_image, resize_map
from nbs_env.detect.alarms import image_scores, is_bad
from nbs_env.detect.config import Size
from nbs_env.detect.crf import CRFParams, dense_crf, shift_threshold
from nbs_env.detect.fusion import log_odds, mixed
from nbs_env.detect.metrics import best_threshold, pixel_prf
from nbs_env.detect.segmenter import Segmenter, segment_images
from nbs_env.detect.views import working_size
from nbs_env.features.encoder import fused
from nbs_env.features.memory import FeatureMemory
from nbs_env.predictor import Predictor, mean_probabilities
from nbs_env.profiles import ProfileMeter, Weights

AT_ONCE = 8
"""Images that are predicted together: autoencoders are set up once for all of them."""
CRF_CANDIDATES = tuple(
    CRFParams(smooth_compat=smooth, appearance_compat=appearance)
    for smooth, appearance in itertools.product((0.1, 0.5, 2.0), (0.0, 0.5, 2.0))
)
"""The kernels that `calibrate` chooses from, from hardly any smoothing to much."""


@dataclass(frozen=True)
class Prediction:
    """What a detector says of one image, in the image's own size.

    Attributes:
        probability: (h, w) float32 in [0, 1].
        mask: (h, w) bool.
        score: image score, the mean of the highest 0.1 % of the probabilities; in [0, 1].
        bad: whether the image is called bad: by its score, or, where no good image is known, by its mask.
    """

    probability: np.ndarray
    mask: np.ndarray
    score: float
    bad: bool


@dataclass(frozen=True, eq=False)  # arrays have no truth value
class Judgement:
    """What a detector says of n images, in the size that it works on.

    Attributes:
        probabilities: (n, h, w) float32 in [0, 1].
        masks: (n, h, w) bool.
        scores: (n,) image scores, see `Prediction`.
        bad: (n,) bool, whether an image is called bad.
    """

    probabilities: np.ndarray
    masks: np.ndarray
    scores: np.ndarray
    bad: np.ndarray


class Detector:
    """Turns images into masks, in one of the ways that `methods` names.

    `segmenter`: its probabilities at a threshold. `memory`: the distance from what normal images look like.
    `fused`: both, see `fusion.mixed`. `nbs`: loss profiles under each snapshot's autoencoders, predictor,
    mean, CRF.

    Args:
        rings: one ring of T autoencoders a snapshot, oldest first; none: there is no method `nbs`.
        predictors: the weights of the predictor that reads its profiles, one a ring, or one for all.
        image_size: side of the squares that images are resized to for memory and `nbs`, as in training.
        precision: of `nbs`, see `DetectorConfig.precision`; the others look in float32.
        device: where it computes.
        crf: the CRF's kernel; chosen by `calibrate`.
        crf_threshold: probability that is even odds to the CRF; chosen by `calibrate`.
        white: level of 16-bit images that is white, as it was in training.
        symmetries: average `nbs` over the eight symmetries of the square.
        segmenter: weights; None: there is no method `segmenter`.
        segmenter_symmetries: average the segmenter's probabilities over the symmetries, too.
        segmenter_size: see `DetectorConfig.segmenter_size`.
        memory: of `FeatureMemory.weights`; None: there is no method `memory`.
        share: the memory's in `fused`.
        thresholds: probability from which a pixel is anomalous, by method; 0.5 where there is none. That of
            `nbs` is without a CRF, and chosen by `calibrate`.
        alarms: image score from which an image is bad, by method; where there is none its mask decides.
        expected: see `alarms.expectation`.

    Example:
        >>> detector = Detector.load(Path("runs/mine/detector.pt"))
        >>> detector.methods  # with a memory: ('fused', 'segmenter', 'memory')
        ('segmenter',)
        >>> (prediction,) = detector.predict(np.zeros((300, 400, 3), np.uint8))
        >>> prediction.mask.shape, 0 <= prediction.score <= 1
        ((300, 400), True)
    """

    def __init__(
        self,
        rings: Sequence[Sequence[Weights]],
        predictors: Sequence[Weights] | Weights,
        image_size: int,
        precision: str,
        device: torch.device,
        crf: CRFParams = CRF_CANDIDATES[0],
        crf_threshold: float = 0.5,
        white: int = 65535,
        symmetries: bool = True,
        segmenter: Weights | None = None,
        segmenter_symmetries: bool = False,
        segmenter_size: Size = "square",
        memory: Weights | None = None,
        share: float = 0.0,
        thresholds: Mapping[str, float] | None = None,
        alarms: Mapping[str, float] | None = None,
        expected: Mapping[str, Any] | None = None,
    ) -> None:
        self.white, self.symmetries = white, symmetries
        self.rings, self.image_size, self.precision, self.device = rings, image_size, precision, device
        self.crf, self.crf_threshold = crf, crf_threshold
        self.dtype = compute_dtype(precision, device)
        two = ("segmenter",) * bool(segmenter) + ("memory",) * bool(memory)
        if segmenter and memory:
            two = ("fused", *two) if share else ("segmenter", "fused", "memory")
        self.methods = two + (("nbs",) if rings else ())
        """What it can do, the better first."""
        if isinstance(predictors, dict):
            predictors = [predictors] * len(rings)
        if not self.methods or len(rings) != len(predictors):
            raise ValueError(f"{len(rings)} rings, {len(predictors)} predictors, no segmenter: no detector")
        self.share, self.expected = share, dict(expected or {})
        self.thresholds, self.alarms = (
            {method: values[method] for method in self.methods if method in values}
            for values in (thresholds or {}, alarms or {})
        )
        self.segmenter_symmetries = segmenter_symmetries
        self.segmenter_size: Size = segmenter_size if segmenter else "square"
        if segmenter is not None:
            self.segmenter = place(Segmenter(), device)
            self.segmenter.load_state_dict(segmenter)
            self._fused = fused(self.segmenter)
        if memory is not None:
            self.memory = FeatureMemory(**memory).to(device)
        if rings:
            self.meter = ProfileMeter(rings[0][0], device, self.dtype)
        self.predictors = []
        for weights in predictors:
            first = weights["features.0.weight"]
            predictor = Predictor(first.shape[1], first.shape[0] / 32)
            self.predictors.append(place(predictor, device))
            self.predictors[-1].load_state_dict(weights)

    def probabilities(
        self, images: np.ndarray, method: str = "nbs", squares: np.ndarray | None = None
    ) -> np.ndarray:
        """Anomaly probabilities (N, h, w) float32.

        Args:
            images: (N, h, w, 3) uint8 of the working size: squares, or as `segmenter_size` has it.
            method: one of `methods`.
            squares: (N, S, S, 3) the same in squares of `image_size`; None: `images` are.
        """
        if method == "nbs":
            return self.from_profiles(self.profiles(images))
        return mixed(*self.evidence(images, squares, (method,)), self.share_of(method))

    def evidence(
        self, images: np.ndarray, squares: np.ndarray | None, methods: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds of the segmenter and distances of the memory, (N, h, w) each; 0 where no method uses them.

        Images and squares are those of `probabilities`.
        """
        odds = distances = np.zeros(images.shape[:3], np.float32)
        shares = [self.share_of(method) for method in methods]
        if min(shares) < 1:
            odds = log_odds(segment_images(self._fused, images, self.segmenter_symmetries))
        if max(shares) > 0:
            seen = torch.from_numpy(images if squares is None else squares)
            with torch.no_grad():
                maps = [
                    self.memory(one.to(self.device).permute(0, 3, 1, 2).float() / 255)
                    for one in seen.split(1)
                ]
            distances = np.stack([resize_map(one[0].cpu().numpy(), *images.shape[1:3]) for one in maps])
        return odds, distances

    def share_of(self, method: str) -> float:
        """The memory's share in what a method says."""
        return {"segmenter": 0.0, "memory": 1.0}.get(method, self.share)

    def profiles(self, images: np.ndarray) -> list[torch.Tensor]:
        """Raw loss profiles (N, T, S, S) of images (N, S, S, 3) uint8 under each snapshot, the best first."""
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device)
        return [self.meter.measure(ring, tensor) for ring in self.rings]

    def from_profiles(self, profiles: Sequence[torch.Tensor]) -> np.ndarray:
        """Probabilities (N, S, S) from each snapshot's raw profiles (N, T, S, S): the snapshots' mean."""
        pairs = zip(self.predictors, profiles, strict=True)
        parts = [mean_probabilities(*pair, self.dtype, self.symmetries) for pair in pairs]
        return torch.stack(parts).mean(dim=0).cpu().numpy()

    def calibrate(self, probabilities: np.ndarray, images: np.ndarray, masks: np.ndarray) -> None:
        """Choose thresholds and CRF kernel by the pooled pixel F1 on labelled images.

        Args:
            probabilities: (n, S, S) of the labelled images.
            images: (n, S, S, 3) uint8.
            masks: (n, S, S) bool.
        """
        self.thresholds["nbs"] = best_threshold(probabilities, masks)
        highest = min(self.thresholds["nbs"], 1 - 1e-5)  # a sigmoid can round to 1
        odds = highest / (1 - highest) / np.array([1, 1.5, 2.5, 4])  # a CRF removes pixels
        thresholds = (odds / (1 + odds)).tolist()
        shifted = np.stack([shift_threshold(probabilities, each) for each in thresholds], axis=1)
        scores: list[float] = []
        for crf in CRF_CANDIDATES:
            smoothed = [dense_crf(*pair, crf) >= 0.5 for pair in zip(shifted, images, strict=True)]
            scores += [pixel_prf(each, masks)[2] for each in np.stack(smoothed, axis=1)]
        choices = list(itertools.product(CRF_CANDIDATES, thresholds))
        self.crf, self.crf_threshold = choices[int(np.argmax(scores))]

    def masks(self, probabilities: np.ndarray, images: np.ndarray, method: str = "nbs") -> np.ndarray:
        """Masks (N, S, S) bool: for `nbs` the CRF on probabilities whose `crf_threshold` has become 0.5."""
        if method != "nbs":
            return probabilities >= self.threshold_of(method)
        shifted = shift_threshold(probabilities, self.crf_threshold)
        smoothed = [dense_crf(*pair, self.crf) for pair in zip(shifted, images, strict=True)]
        return np.stack(smoothed) >= 0.5

    def judge(self, probabilities: np.ndarray, images: np.ndarray, method: str) -> Judgement:
        """What probabilities (N, h, w) of images (N, h, w, 3) uint8 of the working size come to."""
        masks, scores = self.masks(probabilities, images, method), image_scores(probabilities)
        return Judgement(probabilities, masks, scores, is_bad(scores, masks, self.alarms.get(method)))

    def look(self, images: Sequence[np.ndarray], method: str, first: int = 0) -> Judgement:
        """Judge images as `predict` takes them, which have one working size in common.

        `first` is the number of the first one in the message of a DataError, which says that one is no image.
        """
        small = np.stack(
            [self.small(image, self.size_of(method), first + i) for i, image in enumerate(images)]
        )
        squares = small
        if self.size_of(method) != "square" and self.share_of(method) > 0:
            squares = np.stack([self.small(image, "square", first + i) for i, image in enumerate(images)])
        return self.judge(self.probabilities(small, method, squares), small, method)

    def predict(
        self, images: np.ndarray | Iterable[np.ndarray], method: str | None = None
    ) -> Iterator[Prediction]:
        """Predict one image or many, `AT_ONCE` at a time; a prediction for each, in their order.

        Each is resized to the working size as in training, and its probabilities back to (h, w).

        Args:
            images: arrays (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), uint8 or uint16, of any sizes from 64
                pixels up; one of them, an array (n, h, w, channels), or anything that gives them one by one.
                A fourth channel is alpha, which is dropped: what is transparent counts as its colour.
            method: one of `methods`; None: the first.

        Raises:
            DataError: one is no such image; what comes before its batch has been given.
            ConfigError: there is no such method.
        """
        method = self.check(method)
        one = images.ndim < 4 if isinstance(images, np.ndarray) else isinstance(images, str | bytes)
        rest: Iterator[Any] = iter([images] if one or not isinstance(images, Iterable) else images)
        at_once = AT_ONCE if self.size_of(method) == "square" else 1  # else each has a shape of its own
        for start in itertools.count(step=at_once):
            batch = list(itertools.islice(rest, at_once))
            if not batch:
                return
            judged = self.look(batch, method, start)
            for i, image in enumerate(batch):
                size = image.shape[:2]
                probability = resize_map(judged.probabilities[i], *size)
                mask = resize_mask_map(judged.masks[i], *size)
                yield Prediction(probability, mask, float(judged.scores[i]), bool(judged.bad[i]))

    def threshold_of(self, method: str) -> float:
        """Probability from which a pixel is anomalous to a method, before the CRF."""
        return self.thresholds.get(method, 0.5)

    def size_of(self, method: str) -> Size:
        """What images are resized to for a method."""
        return self.segmenter_size if method in ("segmenter", "fused") else "square"

    def check(self, method: str | None) -> str:
        """The method called `method`, or the first.

        Raises:
            ConfigError: there is none.
        """
        if method is not None and method not in self.methods:
            raise ConfigError(f"method is {method!r}; this detector has {' and '.join(self.methods)}")
        return method or self.methods[0]

    def small(self, image: Any, size: Size, number: int = 0) -> np.ndarray:
        """RGB (H, W, 3) of an image of any size, resized.

        Raises:
            DataError: it is no image, as `predict` says; `number` is the image's in the message.
        """
        array = isinstance(image, np.ndarray)
        if (
            not array
            or image.dtype not in (np.uint8, np.uint16)
            or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4)))
            or min(image.shape[:2]) < PATCH
        ):
            what = f"{image.dtype} {image.shape}" if array else f"a {type(image).__name__}"
            raise DataError(
                f"image {number} is {what}; expected uint8 or uint16 of shape (h, w) or (h, w, 1, 3 or 4), "
                f"from {PATCH}x{PATCH} pixels: read files with nbs_env.data.read_image, scale "
                "floats to 0-255, put channels last, enlarge smaller images"
            )
        shape = working_size(image.shape[0], image.shape[1], size, self.image_size)
        try:
            return resize_image(image[..., :3] if image.ndim == 3 else image, shape, white=self.white)
        except DataError as error:  # levels above white
            raise DataError(f"image {number}: {str(error).removeprefix('image: ')}") from error

    def save(self, path: Path | str, methods: Sequence[str] | None = None) -> None:
        """Write one file, which `load` reads back to the same predictions.

        Args:
            path: the file.
            methods: those to put in; None: all.
        """
        methods = methods or self.methods
        whole = "fused" in methods and self.share > 0
        state = {
            "kind": "nbs_env.Detector",
            "rings": [list(ring) for ring in self.rings if "nbs" in methods],
            "predictors": [each.state_dict() for each in self.predictors if "nbs" in methods],
            "image_size": self.image_size,
            "precision": self.precision,
            "white": self.white,
            "symmetries": self.symmetries,
            "segmenter": self.segmenter.state_dict() if {"segmenter", "fused"} & {*methods} else None,
            "segmenter_symmetries": self.segmenter_symmetries,
            "segmenter_size": self.segmenter_size,
            "memory": self.memory.weights() if "memory" in methods or whole else None,
            "share": self.share,
            "crf_threshold": self.crf_threshold,
        }
        notes = {name: getattr(self, name) for name in ("thresholds", "alarms", "expected")}
        checkpoint.save(state | {"notes": json.dumps(notes | {"crf": asdict(self.crf)})}, path)

    def save_run(self, directory: Path) -> None:
        """Write the first method into detector.pt, and the many autoencoders of another into nbs.pt."""
        self.save(directory / "detector.pt", self.methods[:1])
        if "nbs" in self.methods[1:]:
            self.save(directory / "nbs.pt", ("nbs",))

    @staticmethod
    def file_of(run: Path, method: str | None = None) -> Path:
        """The file of a run, a directory or its detector.pt, that holds a method; None is the first."""
        first = run if run.is_file() else run / "detector.pt"
        beside = first.with_name("nbs.pt")
        return beside if method == "nbs" and beside.is_file() else first

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> Detector:
        """Read a detector.

        Raises:
            CheckpointError: the file is absent, truncated, or holds something else.
        """
        state = checkpoint.load(path, device)
        if state.pop("kind", None) != "nbs_env.Detector":
            raise checkpoint.CheckpointError(f"{path} holds no detector; expected the detector.pt of a run")
        if "notes" not in state:
            raise checkpoint.CheckpointError(f"{path} is of an earlier version; train again, or use that one")
        notes = json.loads(state.pop("notes"))
        notes["crf"] = CRFParams(**notes["crf"])
        return cls(device=torch.device(device), **state, **notes)


def resize_mask_map(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask (h, w) bool resampled to (height, width)."""
    return resize_map(mask.astype(np.float32), height, width) >= 0.5
