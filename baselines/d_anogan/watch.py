"""What a training is watched by: clusters against true classes, and which generators have died."""

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
    """Figures of the clustering, kept in `model.history`; generators that have died are drawn anew if wanted.

    Args:
        model: in its first phase.
        images: normal ones (n, C, S, S) uint8.
        labels: their true classes (n,), which nothing else gets to see.

    Returns:
        Purity, normalized mutual information, the mean variety, how many generators are dead, and the prior.
    """
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
    if model.config.revive and dead.any() and not dead.all():
        revive(model, model.clusters[dead], model.clusters[~dead])
    return figures


@torch.no_grad()
def revive(model: DAnoGAN, dead: torch.Tensor, living: torch.Tensor, noise: float = 0.1) -> None:
    """Give the generators `dead` (n,) the weights of one of `living`, and noise of a tenth of their spread.

    They get those of the most probable one, whose share of the images is the first to be split.
    """
    source = living[model.prior.probabilities()[living].argmax()]
    for parameter in model.generators.parameters():
        state = model.optimizers["generators"].state[parameter]
        for k in dead.tolist():
            weight = parameter[source]
            drawn = torch.randn(weight.shape, generator=model.random, device=model.device)
            parameter[k] = weight + noise * weight.std(correction=0) * drawn
            for name in ("exp_avg", "exp_avg_sq"):
                if name in state:
                    state[name][k] = 0
