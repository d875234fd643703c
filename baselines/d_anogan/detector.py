"""Anomaly scores of a trained D-AnoGAN (thesis 4.3 and Eq. 5.1)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from baselines.d_anogan.config import DAnoGANConfig
from baselines.d_anogan.trainer import DAnoGAN
from nbs_env import checkpoint


class DAnoGANDetector:
    """Scores images by how well their own cluster reconstructs them.

    Args:
        model: trained.
        alpha: share of the divergence in a score, in [0, 1]; the rest is the reconstruction error's.
    """

    def __init__(self, model: DAnoGAN, alpha: float) -> None:
        self.model, self.alpha = model, alpha

    @torch.no_grad()
    def parts(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a score is made of, for `images` (n, C, S, S) uint8.

        Returns:
            Mean squared error of the reconstruction (n,), with pixels in [-1, 1], and the divergence
            KL[C(x) || C(x^)] in nats (n,).
        """
        errors, divergences = [], []
        for part in torch.from_numpy(images).split(512):
            query = part.to(self.model.device).float() / 127.5 - 1
            log_query = self.model.assign(query)
            again = self.model.reconstruct(query, log_query.argmax(dim=1))
            log_again = self.model.assign(again)
            alive = self.model.prior.alive
            ratio = (log_query - log_again)[:, alive]
            divergences.append((log_query.exp()[:, alive] * ratio).sum(dim=1).cpu())
            errors.append((again - query).square().mean(dim=(1, 2, 3)).cpu())
        return torch.cat(errors).numpy(), torch.cat(divergences).numpy()

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Scores (n,) of `images` (n, C, S, S) uint8; higher is more anomalous."""
        error, divergence = self.parts(images)
        return (1 - self.alpha) * error + self.alpha * divergence

    def save(self, path: Path | str) -> None:
        """Write networks and settings into one file."""
        networks = {name: network.state_dict() for name, network in self.model.networks.items()}
        config = json.dumps(asdict(self.model.config))
        checkpoint.save(
            {"kind": "baselines.DAnoGAN", "alpha": self.alpha, "config": config, "networks": networks}, path
        )

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> DAnoGANDetector:
        """Read a detector.

        Raises:
            CheckpointError: the file is absent, truncated, or holds something else.
        """
        state = checkpoint.load(path, device)
        if state.get("kind") != "baselines.DAnoGAN":
            raise checkpoint.CheckpointError(f"{path} holds no D-AnoGAN; expected the detector.pt of a run")
        model = DAnoGAN(DAnoGANConfig(**json.loads(state["config"])), 0, device)
        for name, network in model.networks.items():
            network.load_state_dict(state["networks"][name])
        model.refresh_active()
        return cls(model, state["alpha"])
