"""What a training is watched by: clusters against true classes, generators that have died, and pictures."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from baselines.d_anogan.trainer import DAnoGAN

DEAD = 1e-5
"""Variance of the pixels, in [-1, 1], over a cluster's samples below which its generator is dead."""


def purity(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Share of images that are of the commonest class of their cluster; `labels` and `clusters` are (n,)."""
    return float(contingency_matrix(labels, clusters).max(axis=0).sum() / len(labels))


@torch.no_grad()
def varieties(model: DAnoGAN, samples: int = 8) -> torch.Tensor:
    """Variance within each cluster that is alive (K,): of a pixel over samples, its mean over pixels."""
    return model.generators(fixed_latents(model, samples), model.active).var(dim=1).mean(dim=(1, 2, 3))


def fixed_latents(model: DAnoGAN, samples: int) -> torch.Tensor:
    """The same latent vectors (K, samples, latent) at each call, for the clusters that are alive."""
    generator = torch.Generator(model.device).manual_seed(0)
    shape = (len(model.clusters), samples, model.config.latent)
    return torch.rand(shape, generator=generator, device=model.device) * 2 - 1


def look(model: DAnoGAN, images: torch.Tensor, labels: np.ndarray) -> dict[str, float]:
    """Figures of the clustering of images (n, C, S, S) uint8, for looking only, kept in `model.history`."""
    model.refresh_active()
    model.settle(images)
    clusters = model.assign(images.float() / 127.5 - 1).argmax(dim=1).cpu().numpy()
    variety = varieties(model)
    dead = variety < DEAD
    figures = {
        "purity": purity(labels, clusters),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "variety": float(variety.mean()),
        "dead": float(dead.sum()),
    }
    prior = model.prior.probabilities().tolist()
    figures |= {f"cluster_probability/{k}": probability for k, probability in enumerate(prior)}
    model.history.append({"step": float(model.steps), **figures})
    return figures


@torch.no_grad()
def sample_sheet(model: DAnoGAN, columns: int = 8) -> np.ndarray:
    """Generated images, a row for each living cluster, uint8 (rows S, columns S), and of RGB (..., 3)."""
    return _sheet(model.generators(fixed_latents(model, columns), model.active).cpu().numpy())


def query_sheet(model: DAnoGAN, images: torch.Tensor) -> np.ndarray:
    """A row of query, reconstruction and difference for each of `images` (n, C, S, S) uint8."""
    query = images.float() / 127.5 - 1
    again = model.reconstruct(query, model.assign(query).argmax(dim=1))
    return _sheet(torch.stack([query, again, (query - again).abs() - 1], dim=1).cpu().numpy())


def _sheet(images: np.ndarray) -> np.ndarray:
    """(rows, columns, C, S, S) in [-1, 1] as one picture, (rows S, columns S), and of RGB (..., 3)."""
    rows, columns, channels, side, _ = images.shape
    picture = images.transpose(0, 3, 1, 4, 2).reshape(rows * side, columns * side, channels)
    return ((picture if channels == 3 else picture[..., 0]) * 127.5 + 127.5).clip(0, 255).astype(np.uint8)
