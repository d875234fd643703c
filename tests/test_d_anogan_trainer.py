"""D-AnoGAN's losses by hand, what each step changes, what it is watched by, and a toy set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import moved
from d_anogan_loops import looped

from baselines.d_anogan.config import DAnoGANConfig
from baselines.d_anogan.networks import Critic
from baselines.d_anogan.trainer import DAnoGAN, generator_loss, gradient_penalty
from baselines.d_anogan.watch import look, purity, varieties

SMALL = DAnoGANConfig(clusters=3, latent=4, batch_size=6, critic_steps=2, critic_start=3)


def test_generator_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, torch.log(torch.tensor(3.0))]])
    loss, cross_entropy = generator_loss(
        torch.tensor([2.0, 4.0]), logits, torch.tensor([0, 0]), torch.tensor([0.5, 0.5])
    )
    expected = 0.5 * torch.log(torch.tensor(2.0)) + 0.5 * torch.log(torch.tensor(4.0))
    torch.testing.assert_close(cross_entropy, expected)
    torch.testing.assert_close(loss, expected - 3.0)


@pytest.mark.parametrize(("slope", "expected"), [(1.0, 1.0), (2.0, 9.0), (0.4, 0.0)])
def test_gradient_penalty_by_hand(slope: float, expected: float) -> None:
    """Four pixels: the gradient's norm is twice the slope; below 1 nothing is paid."""
    images = torch.rand(3, 1, 2, 2)
    weight = torch.tensor(slope, requires_grad=True)
    critic = Mock(slopes=weight.expand_as)
    penalty = gradient_penalty(critic, images, -images, torch.rand(3), torch.full((3,), 1 / 3))
    assert penalty.item() == pytest.approx(expected)
    penalty.backward()
    assert weight.grad is not None
    assert float(weight.grad) == pytest.approx(2 * 2 * max(0, 2 * slope - 1), abs=1e-5)


@pytest.fixture
def data() -> torch.Tensor:
    """Twenty noisy pictures (20, 1, 28, 28) uint8."""
    return torch.randint(256, (20, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_who_learns_when(data: torch.Tensor) -> None:
    model = DAnoGAN(SMALL, 0)
    assert moved(model, lambda: model.step(data)) == set(model.networks)
    assert moved(model, lambda: model.xzx_step(*next(model.xzx_batches(data)))) == {"encoders"}
    still = DAnoGAN(replace(SMALL, bandit=False), 0)
    assert moved(still, lambda: still.step(data)) == {"generators", "encoders", "critic", "classifier"}


def test_critic_has_a_start_and_then_so_many_steps_to_one(data: torch.Tensor) -> None:
    model, taught = DAnoGAN(SMALL, 0), Mock()
    for name in ("_step_critic", "_step_others"):
        taught.attach_mock(Mock(side_effect=getattr(model, name)), name[6:])
        setattr(model, name, getattr(taught, name[6:]))
    for _ in range(3):
        model.step(data)
    assert "".join(name[0] for name, *_ in taught.mock_calls) == "ccc" + "cco" * 3


def test_fakes_made_at_once_are_those_of_the_generators_as_they_stand(data: torch.Tensor) -> None:
    """All batches of a step come from one call; the generators must not have moved in between."""
    model, seen = DAnoGAN(replace(SMALL, critic_steps=3, critic_start=0), 0), []
    original = model._step_critic

    def noted(real: torch.Tensor, fake: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(fake)
        return original(real, fake, weights)

    model._step_critic = noted  # type: ignore[method-assign]
    other = DAnoGAN(model.config, 0)
    latents = other.draw(2).split(2, dim=1)
    model.step(data)
    for fake, latent in zip(seen, latents, strict=False):
        torch.testing.assert_close(fake, other.generators(latent).flatten(0, 1), rtol=0, atol=1e-6)


def test_critic_step_lowers_its_loss_and_generator_step_its_own(data: torch.Tensor) -> None:
    model = DAnoGAN(replace(SMALL, batch_size=30, bandit=False), 0)
    clusters, weights = model.expectation()
    fake = model.generators(model.draw()).flatten(0, 1).detach()
    steps = [model._step_critic(model.batch(data), fake, weights) for _ in range(12)]
    assert steps[-1]["wasserstein"] > steps[0]["wasserstein"]
    losses = []
    for _ in range(12):
        latents = model.draw()
        fake = model.generators(latents).flatten(0, 1)
        figures = model._step_others(model.batch(data), latents, fake, clusters, weights)
        losses.append(float(figures["generator_loss"]))
    assert losses[-1] < losses[0]


def test_fakes_stand_for_the_prior() -> None:
    """Equal numbers with weights have the expectation of draws from the prior; the dead are not drawn."""
    model = DAnoGAN(SMALL, 0)
    with torch.no_grad():
        model.prior.logits.copy_(torch.tensor([2.0, 0.0, 1.0]))
        model.prior.alive[1] = False
    model.refresh_active()
    latents, (clusters, weights) = model.draw(), model.expectation()
    assert latents.shape == (2, 3, 4)
    assert latents.abs().max() <= 1
    assert clusters.tolist() == [0, 0, 0, 2, 2, 2]
    share = torch.tensor([2.0, 1.0]).softmax(dim=0)
    torch.testing.assert_close(weights.view(2, 3).sum(dim=1), share)


def test_rates_fall_after_the_steady_part(data: torch.Tensor) -> None:
    model = DAnoGAN(replace(SMALL, generator_steps=4, steady=0.5, critic_lr=1.0, prior_lr=1.0), 0)
    rates = []
    for _ in range(4):
        model.step(data)
        optimizers = [model.optimizers[name] for name in ("critic", "encoders", "prior")]
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
    assert rates == [[1, 1e-3, 1], [1, 1e-3, 1], [1, 1e-3, 1], [0.5, 5e-4, 1]]
    model.xzx_step(*next(model.xzx_batches(data)))
    assert model.optimizers["encoders"].param_groups[0]["lr"] == 1e-3  # the second phase has its own time
    for steady, rate in ((1.0, 1.0), (0.5, 0.0)):  # past the budget
        model = DAnoGAN(replace(SMALL, generator_steps=1, steady=steady, critic_lr=1.0), 0)
        for _ in range(3):
            model.step(data)
        assert model.optimizers["critic"].param_groups[0]["lr"] == rate


def test_entropy_falls_with_the_budget() -> None:
    """Beta is the thesis's at its budget; a thousandth is left at the same share of any other."""
    paper = DAnoGAN(DAnoGANConfig(width=0.1), 0).prior
    assert paper.decay == pytest.approx(0.999, abs=1e-5)
    short = DAnoGAN(replace(SMALL, generator_steps=1000), 0).prior
    assert short.entropy_weight * short.decay**177 == pytest.approx(1.0)


def test_images_are_reconstructed_by_their_own_cluster(data: torch.Tensor) -> None:
    model = DAnoGAN(SMALL, 0)
    images = data.float() / 127.5 - 1
    cluster = torch.arange(20) % 3
    again = model.reconstruct(images, cluster)
    for k in range(3):
        where = cluster == k
        index = torch.tensor([k])
        expected = model.generators(model.encoders(images[where][None], index), index)[0]
        torch.testing.assert_close(again[where], expected, rtol=0, atol=1e-5)


def test_settled_the_classifier_has_the_statistics_of_all_images(data: torch.Tensor) -> None:
    """As if they were one batch, whatever its running averages were."""
    model = DAnoGAN(SMALL, 0)
    images = data.float() / 127.5 - 1
    model.step(data)
    with torch.no_grad():
        model.classifier.train()
        expected = model.classifier(model.critic(images)[1]).log_softmax(dim=1)
    behind = model.assign(images)
    model.settle(data)
    torch.testing.assert_close(model.assign(images), expected, rtol=0, atol=0.01)  # n and n - 1
    assert (behind - expected).abs().max() > 0.1


def test_batches_of_the_second_phase_hold_images_of_their_clusters(data: torch.Tensor) -> None:
    model = DAnoGAN(SMALL, 0)
    images, clusters, shares, kernels = next(model.xzx_batches(data))
    assigned = model.assign(data.float() / 127.5 - 1).argmax(dim=1)
    assert shares.sum() == pytest.approx(1)
    latents = torch.zeros(len(clusters), 1, 4)
    again = (model.generators(latents, clusters, each) for each in (kernels, None))
    torch.testing.assert_close(*again, rtol=0, atol=0)
    for k, group, share in zip(clusters.tolist(), images, shares.tolist(), strict=True):
        members = {tuple(((row + 1) * 127.5).round().flatten().tolist()) for row in group}
        allowed = {tuple(row.float().flatten().tolist()) for row in data[assigned == k]}
        assert members <= allowed
        assert share == pytest.approx(float((assigned == k).float().mean()))


def test_scores_of_the_critic_are_not_those_of_a_batch(data: torch.Tensor) -> None:
    critic = Critic(28, 1, torch.Generator().manual_seed(0))
    images = data.float() / 127.5 - 1
    alone = torch.cat([critic(image[None])[0] for image in images])
    torch.testing.assert_close(critic(images)[0], alone, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_prior_finds_three_manifolds() -> None:
    """Three pictures; of six generators three survive, one for each.

    Were they of varying brightness, two generators might share one for good, the light and the dark ones;
    with a latent vector of one number, or rates that stay, one may draw two. What is left would hang on
    rounding.
    """
    pictures = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    pictures[0, 0, :9] = pictures[1, 0, 10:19] = pictures[2, 0, 19:] = 204
    labels = torch.arange(300) % 3
    images = pictures[labels]
    config = DAnoGANConfig(
        clusters=6,
        width=0.25,
        batch_size=24,
        generator_steps=2000,
        steady=0.2,
        prior_lr=5e-3,
        entropy_weight=50.0,
        entropy_share=0.5,
        critic_lr=5e-4,
        generator_lr=5e-4,
        classifier_lr=5e-4,
    )
    model = DAnoGAN(config, 1)
    while model.steps < 2 * config.generator_steps and len(model.clusters) > 3:
        figures = model.step(images)
        if model.steps % 50 == 0:
            model.check(figures)
            look(model, images, labels.numpy())
    assigned = model.assign(images.float() / 127.5 - 1).argmax(dim=1)
    assert int(model.prior.alive.sum()) == 3
    owners = [assigned[labels == label].mode().values.item() for label in range(3)]
    assert len(set(owners)) == 3
    assert (assigned == torch.tensor(owners)[labels]).float().mean() > 0.95
    assert model.history[-1]["purity"] > 0.95


@pytest.fixture(params=[torch.float32, torch.float64])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.dtype]:
    """Of all that is computed."""
    if request.param == torch.float64:
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


def test_all_at_once_is_the_loop_over_clusters(data: torch.Tensor, dtype: torch.dtype) -> None:
    """Three generator steps, a cluster shut down after the first: equal figures and, in float64, gradients.

    In float32 another order of a sum may put a unit on the other side of its kink, where a gradient jumps.
    """
    exact = dtype == torch.float64
    tolerance = 1e-9 if exact else 1e-5
    # Small ones: Adam makes whole steps of the last bits of a gradient that is nearly zero.
    names = ("generator_lr", "critic_lr", "classifier_lr", "encoder_lr")
    config = replace(SMALL, clusters=4, **({} if exact else dict.fromkeys(names, 1e-5)))
    models = [DAnoGAN(config, 0), looped(DAnoGAN(config, 0))]
    for step in range(3):
        figures, gradients = [], []
        for model in models:
            figures.append(model.step(data))
            gradients.append(
                {
                    f"{name}.{key}": parameter.grad
                    for name, network in model.networks.items()
                    for key, parameter in network.named_parameters()
                }
            )
            if step == 0:
                model.prior.alive[2] = False
                model.refresh_active()
        torch.testing.assert_close(*figures, rtol=tolerance, atol=tolerance)
        if exact:
            torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance)
    batches = [next(model.xzx_batches(data)) for model in models]
    steps = [model.xzx_step(*batch) for model, batch in zip(models, batches, strict=True)]
    torch.testing.assert_close(*steps, rtol=tolerance, atol=tolerance)


def test_bfloat16_keeps_differences_of_scores_far_from_zero(data: torch.Tensor) -> None:
    critic = Critic(28, 1, torch.Generator().manual_seed(0))
    images = data.float() / 127.5 - 1
    expected = critic(images)[0]
    with torch.no_grad():
        critic.head.bias.fill_(5000.0)
    with torch.autocast("cpu", torch.bfloat16):
        scores = critic(images)[0]
    torch.testing.assert_close(scores - 5000.0, expected, rtol=0, atol=0.05)


def test_purity_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert purity(labels, np.array([4, 4, 4, 4, 7, 7])) == pytest.approx((3 + 1) / 6)
    assert purity(labels, np.array([7, 7, 7, 1, 1, 0])) == 1.0
    assert purity(labels, np.zeros(6, int)) == 0.5


@pytest.fixture
def black(data: torch.Tensor) -> DAnoGAN:
    """A model whose second generator has died: its tanh is saturated, whatever the latent vector."""
    model = DAnoGAN(SMALL, 0)
    model.step(data)
    with torch.no_grad():
        model.generators.biases[-1][1] = -100.0
        model.prior.logits[2] += 0.2
    return model


def test_variety_is_that_of_the_samples(black: DAnoGAN) -> None:
    variety = varieties(black)
    assert variety[1] == 0
    assert (variety[[0, 2]] > 1e-5).all()
    black.prior.alive[0] = False
    black.refresh_active()
    assert torch.equal(varieties(black) > 0, torch.tensor([False, True]))


def test_the_dead_are_noticed_and_left_alone(black: DAnoGAN, data: torch.Tensor) -> None:
    random = black.random.get_state()
    figures: dict[str, float] = {}
    assert not moved(black, lambda: figures.update(look(black, data, np.arange(20) % 2)))
    assert figures["dead"] == 1
    assert black.history == [{"step": 1.0, **figures}]
    assert torch.equal(random, black.random.get_state())  # looking changes nothing
