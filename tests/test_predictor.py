"""Table 4.3's size, Equation 3.2 in closed form, and what the input's scale may not do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nbs_env.common.networks import initialize
from nbs_env.common.symmetries import dihedral
from nbs_env.predictor import (
    Predictor,
    class_weights,
    logits,
    mean_probabilities,
    normalize,
    predict,
    prediction_loss,
)


@pytest.fixture
def predictor() -> Predictor:
    network = Predictor(4, 1)
    initialize(network, torch.Generator().manual_seed(0))
    with torch.no_grad():  # statistics as after some training
        for _ in range(20):
            network.train()(normalize(profiles_of(3)))
    return network


def profiles_of(count: int) -> torch.Tensor:
    return torch.rand(count, 4, 40, 48, generator=torch.Generator().manual_seed(1)) ** 2


@pytest.mark.parametrize(("width", "expected"), [(0.5, 3_045), (1, 9_113), (2, 30_321)])
def test_golden_parameter_counts(width: float, expected: int) -> None:
    assert sum(p.numel() for p in Predictor(10, width).parameters()) == expected


def test_a_pixel_sees_fifteen_pixels_far(predictor: Predictor) -> None:
    """Dilations of 1, 2, 4 and 8 reach 1 + 2 + 4 + 8 pixels to each side."""
    profiles = profiles_of(1)
    profiles.requires_grad_()
    predictor.eval()(profiles)[0, 20, 24].backward()
    assert profiles.grad is not None
    rows, columns = np.nonzero(profiles.grad[0].abs().sum(dim=0).numpy())
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 35, 9, 39)


# Equation 3.2


def test_class_weights_in_closed_form() -> None:
    masks = torch.zeros(2, 5, 10, dtype=torch.bool)
    masks[0, 0] = True  # 10 of 100 pixels
    assert class_weights(masks, "balanced") == (9, 1)
    assert class_weights(masks, "sqrt") == (3, 1)
    assert class_weights(masks, "as_printed") == (1, 9)


def test_prediction_loss_is_the_mean_over_images() -> None:
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(3, 6, 7, generator=generator)
    masks = torch.rand(3, 6, 7, generator=generator) < 0.2
    total = 0.0
    for image in range(3):
        for y in range(6):
            for x in range(7):
                p = 1 / (1 + math.exp(-scores[image, y, x].item()))
                total -= 5 * math.log(p) if masks[image, y, x] else 0.5 * math.log(1 - p)
    assert prediction_loss(scores, masks, (5.0, 0.5)).item() == pytest.approx(total / 3 / 42, rel=1e-5)


def test_extreme_logits_are_finite() -> None:
    scores = torch.tensor([[[1000.0, -1000.0]]])
    masks = torch.tensor([[[False, True]]])
    assert prediction_loss(scores, masks, (2.0, 1.0)).item() == pytest.approx((1000 + 2000) / 2)


# Normalisation


def test_normalised_profiles_have_mean_one_for_each_image() -> None:
    profiles = profiles_of(3) * torch.tensor([1.0, 10, 1e-3]).reshape(3, 1, 1, 1)
    normalised = normalize(profiles)
    torch.testing.assert_close(normalised.mean(dim=(1, 2, 3)), torch.ones(3))
    torch.testing.assert_close(normalised[1] / normalised[1].max(), profiles[1] / profiles[1].max())


def test_prediction_does_not_depend_on_the_scale_of_an_image(predictor: Predictor) -> None:
    profiles = profiles_of(3)
    scaled = profiles * torch.tensor([1.0, 64, 1 / 1024]).reshape(3, 1, 1, 1)
    torch.testing.assert_close(
        predict(predictor, profiles, torch.float32), predict(predictor, scaled, torch.float32)
    )


def test_profiles_of_zero_are_guarded(predictor: Predictor) -> None:
    assert normalize(torch.zeros(1, 4, 8, 8)).eq(0).all()
    assert predict(predictor, torch.zeros(1, 4, 8, 8), torch.float32).isfinite().all()


def test_probabilities_turn_and_mirror_with_the_image(predictor: Predictor) -> None:
    profiles = profiles_of(2)
    plain = torch.sigmoid(predict(predictor, profiles, torch.float32))
    expected = mean_probabilities(predictor, profiles, torch.float32, symmetries=True)
    assert (plain - expected).abs().max() > 0.01 * expected.std()
    for k in range(8):
        turned = mean_probabilities(predictor, dihedral(profiles, k), torch.float32, symmetries=True)
        torch.testing.assert_close(turned, dihedral(expected, k))


def test_prediction_of_an_image_does_not_depend_on_the_others(predictor: Predictor) -> None:
    profiles = profiles_of(3)
    before = {name: value.clone() for name, value in predictor.state_dict().items()}
    together = predict(predictor, profiles, torch.float32)
    alone = torch.cat([predict(predictor, profile[None], torch.float32) for profile in profiles])
    assert torch.equal(together, alone)
    assert all(torch.equal(value, before[name]) for name, value in predictor.state_dict().items())


def test_bfloat16_is_near_float32(predictor: Predictor) -> None:
    profiles = normalize(profiles_of(2))
    with torch.no_grad():
        exact, rounded = (logits(predictor.eval(), profiles, d) for d in (torch.float32, torch.bfloat16))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, rtol=0.05, atol=0.05 * exact.std().item() + 0.02)
