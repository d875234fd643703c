"""Settings of D-AnoGAN (thesis 5.3, appendix B.1), and where the presets `quick` and `half` start from."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.models import FAST
from nbs_env.common.errors import RunError
from nbs_env.common.runs import at_least, positive
from nbs_env.common.settings import check_types


@dataclass(frozen=True)
class DAnoGANConfig:
    """The model and its training; defaults are the thesis's for MNIST."""

    size: int = 28
    """Side of the square images in pixels, a multiple of 4 from 28 up."""
    channels: int = 1
    """1 (grey) or 3 (RGB)."""
    clusters: int = 15
    """Generators to begin with: more than there are manifolds."""
    width: float = 1.0
    """Factor on the channels of all layers; half of them reach the same AUC on MNIST (Table 5.4)."""
    latent: int = 30
    """Length of a latent vector."""
    batch_size: int = 128
    """Real images of a step."""
    critic_steps: int = 5
    """Critic steps to one step of everything else, together a generator step."""
    critic_start: int = 100
    """Critic steps before all others: against a critic that knows nothing yet some generators turn black,
    where tanh has no gradient, and stay so. The thesis has none."""
    generator_steps: int = 39_000
    """Generator steps in all; the thesis's 500 epochs of MNIST."""
    xzx_steps: int = 4_000
    """Steps in which the encoders alone learn to reconstruct real images; 0: none."""
    bandit: bool = True
    """Learn the prior and shut superfluous generators down; otherwise it stays uniform."""
    generator_lr: float = 2e-4
    """Adam's learning rate, betas (0.9, 0.99), weight decay 5e-5."""
    critic_lr: float = 2e-4
    """Adam's learning rate, betas (0.5, 0.5)."""
    classifier_lr: float = 2e-4
    """Adam's learning rate, betas (0.9, 0.99)."""
    encoder_lr: float = 1e-3
    """Adam's learning rate, betas (0.5, 0.5), in both phases."""
    prior_lr: float = 1e-3
    """Adam's learning rate, betas (0.5, 0.5)."""
    steady: float = 1.0
    """Share of the generator steps after which all rates but the prior's fall to 0 in a straight line; 1:
    never, as in the thesis."""
    gradient_penalty: float = 10.0
    """Weight of the critic's one-sided gradient penalty."""
    entropy_weight: float = 1000.0
    """Nu of Eq. 4.2."""
    entropy_share: float = 0.177
    """Share of the generator steps after which a thousandth of `entropy_weight` is left, so that the bandit
    acts whatever the budget; with the thesis's budget that is its beta, 0.999."""
    bfloat16: bool = False
    """Run the convolutions in bfloat16."""

    def __post_init__(self) -> None:
        check_types(self, RunError)
        given = vars(self)
        at_least(1, **{k: given[k] for k in ("clusters", "latent", "batch_size", "critic_steps")})
        at_least(0, **{k: given[k] for k in ("critic_start", "generator_steps", "xzx_steps")})
        rates = ("generator_lr", "critic_lr", "classifier_lr", "encoder_lr", "prior_lr")
        positive(**{k: given[k] for k in ("width", "entropy_share", *rates)})
        if not 0 <= self.steady <= 1:
            raise RunError(f"steady is {self.steady}; choose a share of the generator steps from 0 to 1")
        if self.channels not in (1, 3):
            raise RunError(f"channels is {self.channels}; choose 1 (grey) or 3 (RGB)")


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
