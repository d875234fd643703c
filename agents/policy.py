"""The neural batch sampler's policy network (thesis Table 4.1)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from nbs_env.common.networks import initialize, own_draws, place


class PolicyFeatures(nn.Module):
    """Table 4.1 up to its last layer: windows (B, 5, 128, 128) to features (B, 256).

    The input is standardised without parameters: the loss channel is divided by its mean over the window,
    as loss profiles are (3.1.3), for its scale falls by two orders of magnitude while an autoencoder trains.

    BatchNorm always uses running statistics, when acting and when updating alike, so that the probabilities
    of both agree; `refresh` moves them, between updates, and `train` leaves them alone.
    """

    size = 256

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        channels = [5, 16, 32, 32, 64, 64]
        layers: list[nn.Module] = [nn.BatchNorm2d(5, affine=False)]
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU(True), nn.BatchNorm2d(after)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, self.size), nn.ReLU(True))
        initialize(self, generator)
        place(self, torch.device("cpu"))
        self.eval()

    def train(self, mode: bool = True) -> PolicyFeatures:
        """Do nothing: there is no second mode."""
        return super().train(False)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Features (B, 256) of `windows` (B, 5, 128, 128)."""
        return self.layers(self._standardize(windows))

    @torch.no_grad()
    def refresh(self, windows: torch.Tensor) -> None:
        """Move the running statistics of BatchNorm towards those of `windows` (B, 5, 128, 128)."""
        for part in windows.split(32):
            self.layers.train()
            self.layers(self._standardize(part))
            self.layers.eval()

    @staticmethod
    def _standardize(windows: torch.Tensor) -> torch.Tensor:
        loss = windows[:, 3:4]
        loss = loss / loss.mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
        windows = torch.cat([windows[:, :3], loss, windows[:, 4:]], dim=1)
        return windows.contiguous(memory_format=torch.channels_last)


class Policy(nn.Module):
    """Thesis Table 4.1: windows (B, 5, 128, 128) to action logits (B, 9); 335 177 parameters."""

    @own_draws
    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.features = PolicyFeatures(generator)
        self.head = nn.Linear(self.features.size, 9)
        initialize(self.head, generator)
        self.eval()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Action logits (B, 9) of `windows` (B, 5, 128, 128)."""
        return self.head(self.features(windows))
