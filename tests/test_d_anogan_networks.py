"""D-AnoGAN's networks and prior: golden sizes, one cluster at a time against all, doubled convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from d_anogan_loops import LoopedEncoder, LoopedGenerator

from baselines.d_anogan.networks import (
    Classifier,
    Critic,
    MultiEncoder,
    MultiGenerator,
    SizeError,
    doubling_kernel,
    layer_channels,
    upsample_conv,
)
from baselines.d_anogan.trainer import Prior


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("size", "clusters", "width", "expected"),
    [(28, 15, 1.0, 7_831_312), (28, 15, 0.5, 2_441_344), (28, 15, 0.25, 852_280), (256, 12, 1.0, 57_454_413)],
)
def test_golden_parameter_count(size: int, clusters: int, width: float, expected: int) -> None:
    """Tables 5.4 and 5.5."""
    networks = [
        MultiGenerator(size, 1, clusters, 30, seeded(), width),
        MultiEncoder(size, 1, clusters, 30, seeded(), width),
        Critic(size, 1, seeded(), width),
        Classifier(size, clusters, seeded(), width),
    ]
    assert sum(p.numel() for network in networks for p in network.parameters()) + clusters == expected


@pytest.mark.parametrize("size", [28, 32, 36, 44, 64, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_multiple_of_four(size: int, channels: int) -> None:
    images = MultiGenerator(size, channels, 2, 5, seeded())(torch.rand(2, 3, 5, generator=seeded()))
    assert images.shape == (2, 3, channels, size, size)
    assert images.abs().max() <= 1
    assert MultiEncoder(size, channels, 2, 5, seeded())(images).shape == (2, 3, 5)
    scores, features = Critic(size, channels, seeded())(images.flatten(0, 1))
    assert scores.shape == (6,)
    assert Classifier(size, 2, seeded())(features).shape == (6, 2)


@pytest.mark.parametrize(
    ("size", "width", "named"), [(24, 1, "from 28"), (30, 1, "of 4"), (28, 0, "width is 0")]
)
def test_other_sizes_are_named(size: int, width: float, named: str) -> None:
    with pytest.raises(SizeError, match=named):
        layer_channels(size, width)


def test_doubled_convolution_against_the_definition() -> None:
    x = torch.randn(2, 3 * 4, 5, 7, generator=seeded())
    weight, bias = torch.randn(3 * 2, 4, 5, 5, generator=seeded()), torch.randn(6, generator=seeded())
    doubled = F.interpolate(x, scale_factor=2, mode="nearest")
    expected = F.conv2d(doubled, weight, bias, padding=2, groups=3)
    kernel = doubling_kernel(weight.unflatten(0, (3, 2)))
    torch.testing.assert_close(upsample_conv(x, kernel, bias.view(3, 2)), expected, rtol=1e-5, atol=1e-4)


def test_all_clusters_at_once_equal_one_after_the_other() -> None:
    generators, encoders = MultiGenerator(28, 1, 4, 6, seeded()), MultiEncoder(28, 1, 4, 6, seeded(1))
    for network in (generators, encoders):
        for bias in [*network.biases, network.dense_bias]:
            torch.nn.init.normal_(bias, generator=seeded(2))
    latents = torch.rand(4, 3, 6, generator=seeded(3)) * 2 - 1
    images = generators(latents)
    again = encoders(images)
    in_turn = LoopedGenerator.forward(generators, latents)  # type: ignore[arg-type]
    torch.testing.assert_close(images, in_turn, rtol=0, atol=1e-5)
    expected = LoopedEncoder.forward(encoders, images)  # type: ignore[arg-type]
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-5)
    gradients = []
    for picture in (images, in_turn):
        generators.zero_grad()
        picture.square().mean().backward(retain_graph=True)
        gradients.append([p.grad.clone() for p in generators.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


def test_clusters_that_are_shut_down_are_left_out() -> None:
    generators, encoders = MultiGenerator(28, 1, 5, 6, seeded()), MultiEncoder(28, 1, 5, 6, seeded())
    latents = torch.rand(5, 2, 6, generator=seeded())
    active = torch.tensor([0, 3])
    images = generators(latents[active], active)
    torch.testing.assert_close(images, generators(latents)[active], rtol=0, atol=1e-6)
    torch.testing.assert_close(
        encoders(images, active), encoders(generators(latents))[active], rtol=0, atol=1e-5
    )
    images.sum().backward()
    for parameter in generators.parameters():
        assert parameter.grad is not None
        silent = [k for k in range(5) if not parameter.grad[k].any()]
        assert silent == [1, 2, 4]


def test_weights_are_xavier_of_each_network_and_come_from_the_generator() -> None:
    first, second = (MultiGenerator(28, 1, 3, 6, seeded(4)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    weight = first.weights[0]
    bound = (6 / ((128 + 64) * 25)) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert not torch.equal(weight[0], weight[1])
    assert not any(bias.any() for bias in first.biases)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (36, 3), (64, 1)])
def test_slopes_of_the_critic_are_its_gradients(size: int, channels: int) -> None:
    """And so are their own gradients, against differentiating twice."""
    critic = Critic(size, channels, seeded(), 0.25)
    images = (torch.rand(3, channels, size, size, generator=seeded()) * 2 - 1).requires_grad_()
    (expected,) = torch.autograd.grad(critic(images)[0].sum(), images, create_graph=True)
    slopes = critic.slopes(images.detach())
    torch.testing.assert_close(slopes, expected, rtol=1e-5, atol=1e-7)
    weights = [parameter for name, parameter in critic.named_parameters() if name.endswith("weight")]
    by_weight = (
        torch.autograd.grad(each.flatten(1).norm(dim=1).square().sum(), weights)
        for each in (expected, slopes)
    )
    for twice, once in zip(*by_weight, strict=True):
        torch.testing.assert_close(once, twice, rtol=1e-4, atol=1e-6)


def test_prior_loss_by_hand() -> None:
    prior = Prior(2, entropy_weight=3.0, decay=0.5)
    estimate = torch.tensor([0.75, 0.25])
    log2 = torch.log(torch.tensor(2.0))
    torch.testing.assert_close(prior.loss(estimate).float(), log2 / 2 - 3 * log2 / 2)
    prior.advance()
    torch.testing.assert_close(prior.loss(estimate).float(), log2 / 2 - 1.5 * log2 / 2)


def test_prior_follows_the_estimate_and_shuts_down_for_good() -> None:
    prior = Prior(4, entropy_weight=0.0, decay=1.0)
    prior.threshold = 0.05
    optimizer = torch.optim.Adam(prior.parameters(), 0.05)
    estimate = torch.tensor([0.5, 0.3, 0.2, 0.0])
    for _ in range(400):
        optimizer.zero_grad()
        prior.loss(estimate).backward()
        optimizer.step()
        prior.advance()
    torch.testing.assert_close(prior.probabilities(), estimate, atol=0.01, rtol=0)
    assert prior.alive.tolist() == [True, True, True, False]
    with torch.no_grad():
        prior.logits[3] = 10.0
    prior.advance()
    assert prior.probabilities()[3] == 0


def test_last_cluster_is_never_shut_down() -> None:
    prior = Prior(3, 1000.0, 0.999)
    prior.threshold = 0.9
    with torch.no_grad():
        prior.logits[1] += 0.1
    prior.advance()
    assert prior.alive.tolist() == [False, True, False]
