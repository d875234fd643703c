"""The training of D-AnoGAN (thesis 4.2, appendices A and B.2), and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from baselines.d_anogan.config import DAnoGANConfig
from baselines.d_anogan.networks import Classifier, Critic, MultiEncoder, MultiGenerator
from baselines.models import Trainable


def gradient_penalty(
    critic: Critic, real: torch.Tensor, fake: torch.Tensor, mix: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """One-sided penalty E[max(0, |gradient| - 1)^2] between pairs of `real` and `fake` (B, C, S, S).

    `mix` (B,) is the share of the real one, and `weights` (B,), of the expectation, sum to 1.
    """
    mix = mix[:, None, None, None]
    slopes = critic.slopes(mix * real + (1 - mix) * fake).float()
    excess = (slopes.flatten(1).norm(dim=1) - 1).clamp_min(0)
    return (weights * excess.square()).sum()


def generator_loss(
    fake: torch.Tensor, logits: torch.Tensor, clusters: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """-E[D(fake)] + cross-entropy (Eq. 4.1 with the listing's signs), and the cross-entropy (Eq. 4.5) alone.

    Scores (F,) and `logits` (F, K) are of fakes made for `clusters` (F,); `weights` (F,) sum to 1.
    """
    cross_entropy = (weights * F.cross_entropy(logits, clusters, reduction="none")).sum()
    return -(weights * fake).sum() + cross_entropy, cross_entropy


class Prior(nn.Module):
    """The bandit (thesis 4.1.2): a learnt distribution over clusters, uniform at first.

    A cluster whose probability falls below a tenth of the uniform one is shut down for good: it is drawn no
    more, and its generator and encoder cost nothing. `entropy_weight` is nu of Eq. 4.2, `decay` its beta, per
    update.
    """

    def __init__(self, clusters: int, entropy_weight: float, decay: float) -> None:
        super().__init__()
        self.entropy_weight, self.decay, self.threshold = entropy_weight, decay, 0.1 / clusters
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

        The entropy is the prior's, as in the listing; the equation has the classifier's, a constant here.
        `estimate` (K,) is the mean of the classifier's probabilities over real images.
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


class DAnoGAN(Trainable):
    """Networks, optimisers and generators of random numbers: everything that training changes.

    Fakes are drawn in equal numbers from every cluster that is alive, and each counts with its cluster's
    probability. That is the thesis's expectation over k ~ prior with less noise, and all shapes are fixed.
    """

    COUNTS = ("steps", "xzx_steps", "history", "clusters")
    REMEDY = "lower the learning rates and begin anew"

    def __init__(self, config: DAnoGANConfig, seed: int, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.steps = self.xzx_steps = 0
        self.history: list[dict[str, float]] = []
        super().__init__(seed, device)
        self.refresh_active()

    def build(self) -> dict[str, torch.optim.Optimizer]:
        """All weights come from one generator; betas and decay are the thesis's."""
        config = self.config
        shape = config.size, config.channels
        drawn = torch.Generator().manual_seed(self.seed), config.width
        decay = 0.001 ** (1 / max(1, config.entropy_share * config.generator_steps))
        self.generators = MultiGenerator(*shape, config.clusters, config.latent, *drawn)
        self.encoders = MultiEncoder(*shape, config.clusters, config.latent, *drawn)
        self.critic = Critic(*shape, *drawn)
        self.classifier = Classifier(config.size, config.clusters, *drawn)
        self.prior = Prior(config.clusters, config.entropy_weight, decay)
        slow, fast = (0.9, 0.99), (0.5, 0.5)
        return {
            "generators": self.adam(config.generator_lr, self.generators, betas=slow, decay=5e-5),
            "critic": self.adam(config.critic_lr, self.critic, betas=fast),
            "classifier": self.adam(config.classifier_lr, self.classifier, betas=slow),
            "encoders": self.adam(config.encoder_lr, self.encoders, betas=fast),
            "prior": self.adam(config.prior_lr, self.prior, betas=fast),
        }

    def refresh_active(self) -> None:
        """Look which clusters are alive; the one place where training waits for the device."""
        self.clusters = self.prior.alive.nonzero()[:, 0]

    @property
    def active(self) -> torch.Tensor | None:
        """The living clusters; None for all."""
        return None if len(self.clusters) == self.config.clusters else self.clusters

    def draw(self, batches: int = 1) -> torch.Tensor:
        """Latent vectors (K, M, latent) of the alive clusters, M samples being those of so many batches."""
        count = len(self.clusters)
        samples = math.ceil(self.config.batch_size / count)
        return self.uniform(count, batches * samples, self.config.latent)

    def expectation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Clusters and weights (K M,) of a batch of fakes."""
        samples = math.ceil(self.config.batch_size / len(self.clusters))
        weights = self.prior.probabilities()[self.clusters] / samples
        return self.clusters.repeat_interleave(samples), weights.repeat_interleave(samples)

    def step(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        """A generator step: `critic_steps` of the critic, then one of all others; figures on the device.

        The generators stand still until then, so their kernels are made once, and all fakes but the last
        batch, through which gradients flow, at once. Before the first one comes `critic_start`.
        """
        clusters, weights = self.expectation()
        with self.autocast():
            kernels = self.generators.kernels(self.active)
        before = 0 if self.steps else self.config.critic_start
        for start in range(0, before + self.config.critic_steps - 1, self.config.critic_steps):
            count = min(self.config.critic_steps, before + self.config.critic_steps - 1 - start)
            with self.autocast(), torch.no_grad():
                fakes = self.generators(self.draw(count), self.active, kernels)
            for fake in fakes.unflatten(1, (count, -1)).unbind(1):
                self._step_critic(self.batch(data), fake.flatten(0, 1), weights)
        real, latents = self.batch(data), self.draw()
        with self.autocast():
            fake = self.generators(latents, self.active, kernels).flatten(0, 1)
        figures = self._step_critic(real, fake.detach(), weights)
        figures |= self._step_others(real, latents, fake, clusters, weights)
        self.steps += 1
        return figures

    def _step_critic(
        self, real: torch.Tensor, fake: torch.Tensor, weights: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        size = len(real)
        order = torch.randperm(len(fake), generator=self.random, device=self.device)[:size]
        mix = torch.rand(size, generator=self.random, device=self.device)
        pair_weights = weights[order] / weights[order].sum()
        with self.autocast():
            scores = self.critic(torch.cat([real, fake]))[0]
            penalty = gradient_penalty(self.critic, real, fake[order], mix, pair_weights)
        penalty = self.config.gradient_penalty * penalty
        loss = (
            (weights * scores[size:]).sum() - scores[:size].mean() + penalty
        )  # Eq. 4.4, the listing's signs
        self.descend(loss, "critic", pace=self._pace())
        distance = (penalty - loss).detach()
        return {"wasserstein": distance, "penalty": penalty.detach(), "critic_loss": loss.detach()}

    def _step_others(
        self,
        real: torch.Tensor,
        latents: torch.Tensor,
        fake: torch.Tensor,
        clusters: torch.Tensor,
        weights: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        self.classifier.train()
        with self.autocast():
            scores, features = self.critic(fake)
            logits = self.classifier(features).float()
        loss, cross_entropy = generator_loss(scores.float(), logits, clusters, weights)
        # One backward pass serves both: the critic's term does not reach the classifier.
        self.descend(loss, "generators", "classifier", pace=self._pace())
        with self.autocast():
            again = self.encoders(fake.detach().unflatten(0, latents.shape[:2]), self.active).float()
        error = (again - latents).square().mean(dim=2).flatten()
        encoder_loss = (weights * error).sum()
        self.descend(encoder_loss, "encoders", pace=self._pace())
        with torch.no_grad(), self.autocast():
            estimate = self.classifier(self.critic(real)[1]).float().softmax(dim=1).mean(dim=0)
        figures = {
            "generator_loss": loss.detach(),
            "cross_entropy": cross_entropy.detach(),
            "encoder_loss": encoder_loss.detach(),
        }
        if self.config.bandit:
            self.descend(self.prior.loss(estimate), "prior")
            self.prior.advance()
        return figures

    def _pace(self) -> float:
        """Share of the learning rates that is left."""
        steady, done = self.config.steady, self.steps / max(1, self.config.generator_steps)
        return 1.0 if steady == 1 or done <= steady else max(0.0, (1 - done) / (1 - steady))

    @torch.no_grad()
    def assign(self, images: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, K) of clusters for `images` (B, C, S, S) in [-1, 1]; -inf where shut down."""
        self.classifier.eval()
        logits = torch.cat([self.classifier(self.critic(part)[1]) for part in images.split(512)])
        return logits.masked_fill(~self.prior.alive, -torch.inf).log_softmax(dim=1)

    @torch.no_grad()
    def settle(self, images: torch.Tensor) -> None:
        """Give the classifier's BatchNorm the statistics of `images` (n, C, S, S) uint8.

        Running averages stay 0.1 to 0.2 standard deviations behind the critic's features.
        """
        norm = self.classifier.norm
        momentum, norm.momentum = norm.momentum, None  # equal weights
        norm.reset_running_stats()
        self.classifier.train()
        for part in images.split(512):
            self.classifier(self.critic(part.float() / 127.5 - 1)[1])
        norm.momentum = momentum

    def xzx_batches(
        self, data: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]]:
        """Endless batches by cluster: images (K, M, C, S, S), clusters and shares of the data (K,), kernels.

        Classifier and generators are frozen in this phase: an image's cluster and the generators' kernels are
        looked up once.
        """
        self.settle(data)
        parts = data.split(2048)
        cluster = torch.cat([self.assign(part.float() / 127.5 - 1).argmax(dim=1) for part in parts])
        counts = torch.bincount(cluster, minlength=self.config.clusters)
        clusters = counts.nonzero()[:, 0]
        order, counts = cluster.argsort(stable=True), counts[clusters]
        starts = counts.cumsum(0) - counts
        samples = math.ceil(self.config.batch_size / len(clusters))
        with torch.no_grad(), self.autocast():
            kernels = self.generators.kernels(clusters)
        while True:
            shape = (len(clusters), samples)
            chance = torch.rand(shape, generator=self.random, device=self.device)
            index = order[starts[:, None] + (chance * counts[:, None]).long()]
            yield data[index].float() / 127.5 - 1, clusters, counts / len(data), kernels

    def xzx_step(
        self,
        images: torch.Tensor,
        clusters: torch.Tensor,
        shares: torch.Tensor,
        kernels: list[torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """One step of the encoders towards reconstructing real images, everything else frozen."""
        with self.autocast():
            again = self.generators(self.encoders(images, clusters), clusters, kernels)
        loss = (shares * (again - images).square().mean(dim=(1, 2, 3, 4))).sum()
        self.descend(loss, "encoders", pace=1)
        self.xzx_steps += 1
        return {"reconstruction_error": loss.detach()}

    @torch.no_grad()
    def reconstruct(self, images: torch.Tensor, cluster: torch.Tensor) -> torch.Tensor:
        """E and G of each image's cluster (B,): images (B, C, S, S) in [-1, 1] to their reconstructions."""
        again = torch.empty_like(images)
        for k in cluster.unique():
            where = (cluster == k).nonzero()[:, 0]
            for part in where.split(256):
                again[part] = self.generators(self.encoders(images[part][None], k[None]), k[None])[0]
        return again
