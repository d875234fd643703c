"""The predictor (thesis Table 4.3): loss profiles to anomaly logits, and its weighted loss (Eq. 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from nbs_env.common.networks import own_draws
from nbs_env.common.symmetries import dihedral, inverse


class Predictor(nn.Module):
    """Thesis Table 4.3: normalised profiles (B, T, H, W) to logits (B, H, W), float32.

    9 113 parameters at width 1 and T = 10, 30 321 at width 2. The sigmoid is left to the loss.

    Args:
        profile_length: T.
        width: factor on the hidden channels.
    """

    @own_draws
    def __init__(self, profile_length: int, width: float) -> None:
        super().__init__()
        channels = [profile_length, *(int(share * width) for share in (32, 16, 8, 4))]
        layers: list[nn.Module] = []
        for i, dilation in enumerate((1, 2, 4, 8)):
            layers += [
                nn.Conv2d(channels[i], channels[i + 1], 3, padding=dilation, dilation=dilation),
                nn.BatchNorm2d(channels[i + 1]),
                nn.LeakyReLU(0.2, True),
            ]
        self.features = nn.Sequential(*layers)
        self.output = nn.Conv2d(channels[-1], 1, 1)

    def forward(self, profiles: torch.Tensor) -> torch.Tensor:
        """Logits (B, H, W) of `profiles` (B, T, H, W)."""
        features = self.features(profiles)
        with torch.autocast(features.device.type, enabled=False):
            return self.output(features.float()).squeeze(1)


def normalize(profiles: torch.Tensor) -> torch.Tensor:
    """Divide each image's profiles (B, T, H, W) by their mean over T x H x W, guarded against 0 (3.1.3)."""
    return profiles / profiles.mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)


def logits(predictor: Predictor, profiles: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Logits (B, H, W) float32 of normalised `profiles` (B, T, H, W), the convolutions running in `dtype`."""
    profiles = profiles.contiguous(memory_format=torch.channels_last)
    with torch.autocast(profiles.device.type, dtype, enabled=dtype != torch.float32):
        return predictor(profiles)


@torch.no_grad()
def predict(predictor: Predictor, profiles: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Logits (B, H, W) of raw `profiles` (B, T, H, W), with the running statistics."""
    predictor.eval()
    at_once = 1 if profiles.device.type == "cpu" else 16  # one image fits a processor's cache
    parts = profiles.split(at_once)
    return torch.cat([logits(predictor, normalize(part), dtype) for part in parts])


def mean_probabilities(
    predictor: Predictor, profiles: torch.Tensor, dtype: torch.dtype, symmetries: bool
) -> torch.Tensor:
    """Probabilities (B, H, W) of raw `profiles` (B, T, H, W); their mean over the symmetries of the square.

    The predictor has learnt under all eight of them, and errs differently under each.
    """
    turned = [predict(predictor, dihedral(profiles, k), dtype) for k in range(8 if symmetries else 1)]
    return torch.stack([dihedral(torch.sigmoid(x), inverse(k)) for k, x in enumerate(turned)]).mean(dim=0)


def class_weights(masks: torch.Tensor, kind: str) -> tuple[float, float]:
    """Weights (anomalous term, normal term) of Eq. 3.2 from the labelled masks (n, H, W) bool.

    `balanced` puts #normal/#anomalous on the anomalous term, `sqrt` its square root, `as_printed` the
    ratio on the normal term, as the equation stands in the thesis.
    """
    anomalous = int(masks.sum())
    ratio = (masks.numel() - anomalous) / anomalous
    if kind == "as_printed":
        return 1.0, ratio
    return (ratio if kind == "balanced" else ratio**0.5), 1.0


def prediction_loss(logits: torch.Tensor, masks: torch.Tensor, weights: tuple[float, float]) -> torch.Tensor:
    """Weighted binary cross-entropy of thesis Eq. 3.2: the mean over images of each image's mean over pixels.

    Args:
        logits: (B, H, W).
        masks: (B, H, W) bool or {0, 1}.
        weights: of the anomalous and of the normal term, from `class_weights`.
    """
    anomalous, normal = weights
    target = masks.to(logits.dtype)
    loss = -anomalous * target * F.logsigmoid(logits) - normal * (1 - target) * F.logsigmoid(-logits)
    return loss.mean(dim=(1, 2)).mean()
