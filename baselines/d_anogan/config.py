"""Settings of D-AnoGAN (thesis 5.3, appendix B.1), and where the presets `quick` and `half` start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from baselines.models import FAST, ModelConfig
from nbs_env.common.settings import AtLeast, Count, Positive, Share


@dataclass(frozen=True)
class DAnoGANConfig(ModelConfig):
    """The model and its training; defaults are the thesis's for MNIST, sizes multiples of 4 from 28 up."""

    clusters: Count = 15
    """Generators to begin with: more than there are manifolds."""
    latent: Count = 30
    """Length of a latent vector."""
    batch_size: Annotated[int, AtLeast(2)] = 128
    """Real images of a step."""
    critic_steps: Count = 5
    """Critic steps to one step of everything else, together a generator step."""
    critic_start: Annotated[int, AtLeast(0)] = 100
    """Critic steps before all others: against a critic that knows nothing yet some generators turn black,
    where tanh has no gradient, and stay so. The thesis has none."""
    generator_steps: Annotated[int, AtLeast(0)] = 39_000
    """Generator steps in all; the thesis's 500 epochs of MNIST."""
    xzx_steps: Annotated[int, AtLeast(0)] = 4_000
    """Steps in which the encoders alone learn to reconstruct real images; 0: none, as in Table 5.6."""
    bandit: bool = True
    """Learn the prior and shut superfluous generators down; otherwise it stays uniform, as in Table 5.6, and
    `clusters` should be as many as there are manifolds."""
    generator_lr: Positive = 2e-4
    """Adam's learning rate, betas (0.9, 0.99), weight decay 5e-5."""
    critic_lr: Positive = 2e-4
    """Adam's learning rate, betas (0.5, 0.5)."""
    classifier_lr: Positive = 2e-4
    """Adam's learning rate, betas (0.9, 0.99)."""
    encoder_lr: Positive = 1e-3
    """Adam's learning rate, betas (0.5, 0.5), in both phases."""
    prior_lr: Positive = 1e-3
    """Adam's learning rate, betas (0.5, 0.5)."""
    steady: Annotated[float, Share()] = 1.0
    """Share of the generator steps after which all rates but the prior's fall to 0 in a straight line; 1:
    never, as in the thesis."""
    gradient_penalty: float = 10.0
    """Weight of the critic's one-sided gradient penalty."""
    entropy_weight: float = 1000.0
    """Nu of Eq. 4.2."""
    entropy_share: Positive = 0.177
    """Share of the generator steps after which a thousandth of `entropy_weight` is left, so that the bandit
    acts whatever the budget; with the thesis's budget that is its beta, 0.999."""


QUICK = DAnoGANConfig(
    size=64,
    width=0.5,
    clusters=8,
    batch_size=16,
    generator_steps=3000,
    xzx_steps=300,
    generator_lr=6e-4,
    critic_lr=6e-4,
    classifier_lr=6e-4,
    encoder_lr=2e-4,
    prior_lr=1e-2,
    steady=0.5,
    bfloat16=FAST,
)
"""What makes clusters of wheels pure in minutes."""
HALF = DAnoGANConfig(width=0.5, generator_steps=24_000, steady=0.4, bfloat16=FAST)
"""The thesis's batches and rates at half width. With rates that stay clusters of MNIST without 1 fell apart
half way through the thesis's 39 000 steps; with these those of MNIST without 9, and without 1 after a third
of the steps, are purest in the end."""
