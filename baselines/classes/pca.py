"""Principal components: the row that everything else has to beat.

The score is the squared distance from the space of 32 components; (32 + 1) x pixels numbers, 25 872 at 28x28.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from sklearn.decomposition import PCA as Components
from torch import nn

from baselines.classes.method import Method, ModelConfig
from baselines.classes.networks import squared

COMPONENTS = 32


def fit(images: torch.Tensor, seed: int) -> Components:
    """The principal components of `images` (n, C, S, S); fewer than 32 images have fewer."""
    values = images.flatten(1).cpu().numpy()
    count = min(COMPONENTS, *values.shape)
    return Components(count, svd_solver="randomized", random_state=seed).fit(values)


class PCA(Method):
    """Fitted in one step, on all images."""

    BUDGET: ClassVar[int] = 1

    def __init__(self, config: ModelConfig, steps: int, seed: int, device: torch.device | str) -> None:
        super().__init__(config, 1, seed, device)

    def build(self) -> dict[str, nn.Module]:
        """Mean (1, d) and components (32, d) as the weights of a module."""
        pixels = self.config.channels * self.config.size**2
        self.mean = nn.Parameter(torch.zeros(1, pixels), requires_grad=False)
        self.components = nn.Parameter(torch.zeros(COMPONENTS, pixels), requires_grad=False)
        return {"space": nn.ParameterDict({"mean": self.mean, "components": self.components})}

    def optimize(self) -> dict[str, torch.optim.Optimizer]:
        """None."""
        return {}

    def advance(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        """Fit."""
        found = fit(self.scale(data), self.seed)
        self.mean.copy_(torch.from_numpy(found.mean_))
        self.components[: found.n_components_] = torch.from_numpy(found.components_)
        self.done = 1
        return {"explained": torch.tensor(found.explained_variance_ratio_.sum())}

    def step(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Not there."""
        raise NotImplementedError("PCA is fitted to all images at once, see `advance`")

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Mean squared distance of each image from the space."""
        values = images.flatten(1) - self.mean
        return squared(values @ self.components.T @ self.components, values)
