"""The bandit (thesis 4.1.2): how probable each cluster is, and which generators still run."""

from __future__ import annotations

import torch
from torch import nn


class Prior(nn.Module):
    """A learnt distribution over clusters, uniform at first.

    A cluster whose probability falls below `threshold` is shut down for good: it is drawn no more, and its
    generator and encoder cost nothing.

    `entropy_weight` is nu of Eq. 4.2, `decay` its beta, per update; the default of `threshold` is a tenth of
    the uniform probability.
    """

    def __init__(
        self,
        clusters: int,
        entropy_weight: float = 1000.0,
        decay: float = 0.999,
        threshold: float | None = None,
    ) -> None:
        super().__init__()
        self.entropy_weight, self.decay = entropy_weight, decay
        self.threshold = 0.1 / clusters if threshold is None else threshold
        self.logits = nn.Parameter(torch.ones(clusters))
        self.alive: torch.Tensor
        self.register_buffer("alive", torch.ones(clusters, dtype=torch.bool))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.updates: torch.Tensor

    def probabilities(self) -> torch.Tensor:
        """Probability of each cluster (K,); 0 for those that are shut down."""
        return self.logits.masked_fill(~self.alive, -torch.inf).softmax(dim=0).detach()

    def loss(self, estimate: torch.Tensor) -> torch.Tensor:
        """Eq. 4.2, means over clusters as in the thesis's listing: cross-entropy less decaying entropy.

        The entropy is that of the prior itself, as in the listing; the equation has the classifier's, which
        does not depend on the prior. `estimate` (K,) is the mean of the classifier's probabilities over real
        images.
        """
        log_prior = self.logits.log_softmax(dim=0)
        entropy = -(log_prior.exp() * log_prior).mean()
        weight = self.entropy_weight * self.decay ** self.updates.to(torch.float64)
        return -(estimate * log_prior).mean() - weight * entropy

    @torch.no_grad()
    def advance(self) -> None:
        """Count an update, and shut down what has become improbable; the most probable cluster stays."""
        self.updates += 1
        probabilities = self.probabilities()
        self.alive &= (probabilities >= self.threshold) | (probabilities == probabilities.max())
