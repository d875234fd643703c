"""Anomaly scores of a trained D-AnoGAN (thesis 4.3 and Eq. 5.1)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from baselines.d_anogan.config import DAnoGANConfig
from baselines.d_anogan.trainer import DAnoGAN
from nbs_env.common import checkpoint

LEAST = 1e-6
"""A divergence, and at alpha 1 a score, below which there is only rounding."""


def mean_scores(errors: np.ndarray, divergences: np.ndarray, alpha: float) -> np.ndarray:
    """Eq. 5.1 of each model's parts, (models, n) each, and the geometric mean of it over models (n,).

    Scores span orders of magnitude; in their arithmetic mean the model of the largest would decide alone.
    """
    scores: np.ndarray = (1 - alpha) * errors + alpha * divergences
    if len(scores) == 1:
        return scores[0]
    mean: np.ndarray = np.exp(np.log(scores.clip(min=LEAST)).mean(axis=0))
    return mean


class DAnoGANDetector:
    """Scores images by how well their own cluster reconstructs them.

    `models` have the same settings; `alpha`, in [0, 1], is the share of the divergence in a score.
    """

    def __init__(self, models: Sequence[DAnoGAN], alpha: float) -> None:
        self.models, self.alpha = list(models), alpha

    def parts(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean squared errors, pixels in [-1, 1], and KL[C(x) || C(x^)] in nats, (models, n) each."""
        errors, divergences = zip(*(_parts(model, images) for model in self.models), strict=True)
        return np.stack(errors), np.stack(divergences)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Scores (n,) of `images` (n, C, S, S) uint8; higher is more anomalous."""
        return mean_scores(*self.parts(images), self.alpha)

    def save(self, path: Path | str) -> None:
        """Write networks and settings into one file."""
        state = {
            "kind": "baselines.DAnoGAN",
            "alpha": self.alpha,
            "config": json.dumps(asdict(self.models[0].config)),
            "networks": [model.state_dict()["networks"] for model in self.models],
        }
        checkpoint.save(state, path)

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> DAnoGANDetector:
        """Read a detector; CheckpointError if the file is absent, truncated, or holds something else."""
        state = checkpoint.load(path, device)
        if state.get("kind") != "baselines.DAnoGAN":
            raise checkpoint.CheckpointError(f"{path} holds no D-AnoGAN; expected the detector.pt of a run")
        models = []
        for networks in state["networks"]:
            model = DAnoGAN(DAnoGANConfig(**json.loads(state["config"])), 0, device)
            for name, network in model.networks.items():
                network.load_state_dict(networks[name])
            model.refresh_active()
            models.append(model)
        return cls(models, state["alpha"])


@torch.no_grad()
def _parts(model: DAnoGAN, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    errors, divergences = [], []
    for part in torch.from_numpy(images).split(512):
        query = part.to(model.device).float() / 127.5 - 1
        log_query = model.assign(query)
        again = model.reconstruct(query, log_query.argmax(dim=1))
        alive = model.prior.alive
        ratio = (log_query - model.assign(again))[:, alive]
        divergences.append((log_query.exp()[:, alive] * ratio).sum(dim=1).cpu())
        errors.append((again - query).square().mean(dim=(1, 2, 3)).cpu())
    return torch.cat(errors).numpy(), torch.cat(divergences).numpy()
