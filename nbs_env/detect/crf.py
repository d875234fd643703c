"""Dense CRF: the raw prediction of an image, smoothed along the image's own colours (thesis 3.3).

Mean-field inference in the fully connected CRF of Krähenbühl and Koltun (2011), through `pydensecrf`.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pydensecrf.densecrf as densecrf

from nbs_env.common.settings import AtLeast, Between, Count, check_types

_CLIP = 1e-5  # probabilities are kept this far from 0 and 1, so that the unary energy stays finite
Width = Annotated[float, Between(0, math.inf)]
Weight = Annotated[float, AtLeast(0)]


@dataclass(frozen=True)
class CRFParams:
    """The two kernels of the CRF. Distances are in pixels, colours in steps of 0-255.

    The smoothness kernel removes small isolated regions; the appearance kernel says that near pixels of
    similar RGB share a class. Both are normalised symmetrically, so the neighbours of a pixel pull its
    log-odds by at most about the sum of the two weights (`compat`). A weight of 0 leaves the kernel out. The
    defaults are gentle: a crack is a minority among its neighbours, and a heavy kernel wipes it out.

    Raises:
        ValueError: A field has another type, or is out of its bounds.
    """

    smooth_sxy: Width = 3.0
    """Standard deviation of the smoothness kernel, pixels."""
    smooth_compat: Weight = 0.5
    """Weight of the smoothness kernel."""
    appearance_sxy: Width = 10.0
    """Standard deviation of the appearance kernel in space, pixels."""
    appearance_srgb: Width = 10.0
    """Standard deviation of the appearance kernel in each colour channel, 0-255."""
    appearance_compat: Weight = 0.5
    """Weight of the appearance kernel."""
    iterations: Count = 5
    """Mean-field iterations."""

    def __post_init__(self) -> None:
        check_types(self, ValueError)


def dense_crf(probability: np.ndarray, image: np.ndarray, params: CRFParams) -> np.ndarray:
    """Smooth a probability map, or several, by the image they belong to.

    Args:
        probability: `(H, W)` or `(n, H, W)` floats in [0, 1], the probability of "anomalous"; background has
            the rest. The kernels are set up once for all n, which takes longer than to use them once.
        image: `(H, W, 3)` uint8, the RGB image.
        params: The kernels.

    Returns:
        float32 in [0, 1] of the same shape, the posterior of "anomalous"; `>= 0.5` is the mask.

    Raises:
        ValueError: A shape, a type or a value is not as above.
    """
    _check_probability(probability)
    if probability.ndim not in (2, 3) or probability.size == 0:
        raise ValueError(
            f"The probability has shape {probability.shape}; expected a map (H, W), or some (n, H, W)."
        )
    height, width = probability.shape[-2:]
    if image.dtype != np.uint8 or image.shape != (height, width, 3):
        raise ValueError(
            f"The image is {image.dtype} of shape {image.shape}; expected uint8 of shape "
            f"{(height, width, 3)} to go with the probability."
        )
    field = densecrf.DenseCRF2D(width, height, 2)
    if params.smooth_compat > 0:
        field.addPairwiseGaussian(
            sxy=params.smooth_sxy, compat=params.smooth_compat, normalization=densecrf.NORMALIZE_SYMMETRIC
        )
    if params.appearance_compat > 0:
        field.addPairwiseBilateral(
            sxy=params.appearance_sxy,
            srgb=params.appearance_srgb,
            rgbim=np.array(image, order="C"),  # a copy: read-only arrays are refused
            compat=params.appearance_compat,
            normalization=densecrf.NORMALIZE_SYMMETRIC,
        )
    posterior = np.empty((probability.size // (height * width), height * width), np.float32)
    clipped = np.clip(probability.astype(np.float64), _CLIP, 1 - _CLIP)
    for row, anomalous in zip(posterior, clipped.reshape(posterior.shape), strict=True):
        field.setUnaryEnergy(-np.log(np.stack([1 - anomalous, anomalous])).astype(np.float32))
        row[:] = np.array(field.inference(params.iterations))[1]  # of (2, H * W)
    return posterior.reshape(probability.shape)


def shift_threshold(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Shift probabilities in logit space so that `threshold` becomes 0.5.

    So the CRF, which decides at 0.5, decides where the caller's threshold does. Both arguments are first
    clipped to [1e-5, 1 - 1e-5], as the CRF clips. Up to that, `>= 0.5` is then what `>= threshold` was.

    Args:
        probability: Floats in [0, 1] of any shape.
        threshold: In [0, 1].

    Returns:
        float64 of the same shape, in (0, 1): `sigmoid(logit(probability) - logit(threshold))`.

    Raises:
        ValueError: A probability or the threshold is not in [0, 1], or not a float.
    """
    _check_probability(probability)
    if not 0 <= threshold <= 1:
        raise ValueError(f"The threshold is {threshold}; expected a number in [0, 1].")
    p = np.clip(probability.astype(np.float64), _CLIP, 1 - _CLIP)
    t = float(np.clip(threshold, _CLIP, 1 - _CLIP))
    return p * (1 - t) / (p * (1 - t) + (1 - p) * t)


def _check_probability(probability: np.ndarray) -> None:
    if not np.issubdtype(probability.dtype, np.floating):
        raise ValueError(f"The probability is {probability.dtype}; expected floats in [0, 1].")
    if not np.all((probability >= 0) & (probability <= 1)):
        raise ValueError("The probability holds NaN or values outside [0, 1].")
