"""The image-level rivals: each on an easy task, what they promise alike, and their command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import moved

from baselines.classes import __main__ as command
from baselines.classes.__main__ import METHODS
from baselines.classes.autoencoders import ARAE, VAE, DeepSVDD, MaskModule
from baselines.classes.gans import OCGAN, FAnoGAN
from baselines.classes.method import Method
from baselines.models import ModelConfig
from baselines.tables import PAPERS, paper_rows
from baselines.tasks import Task, class_tasks
from nbs_env.common.errors import RunError
from nbs_env.data.classes import ClassDataset
from nbs_env.detect.metrics import image_auroc

TINY = ModelConfig(size=16, width=0.25, batch_size=16)


def bars(count: int, lying: bool, seed: int) -> np.ndarray:
    """Images (count, 1, 16, 16) uint8 of a bar of three pixels, lying or standing, at a random place."""
    rng = np.random.default_rng(seed)
    images = rng.integers(30, 50, size=(count, 1, 16, 16))
    for image, place in zip(images, rng.integers(5, 9, size=count), strict=True):
        image[0, place : place + 3] += 170
    return (images if lying else images.transpose(0, 1, 3, 2)).astype(np.uint8)


NORMAL, LYING, STANDING = bars(200, True, 0), bars(100, True, 1), bars(100, False, 2)
STEPS = {"vae": 80, "deep_svdd": 200, "f_anogan": 210, "egbad": 100}
"""Others need 40."""
SIZES = {"pca": 25_872, "vae": 232_993, "deep_svdd": 347_681, "ganomaly": 2_949_962,
         "skip_ganomaly": 1_420_226, "f_anogan": 148_530, "egbad": 7_749_258, "ocgan": 2_780_932,
         "oled": 1_449_794, "arae": 1_907_457}  # fmt: skip
NEAR = {"vae": 237_656, "f_anogan": 149_505, "ocgan": 3_353_842, "egbad": 8_650_000, "ganomaly": 3_860_000}
"""Thesis Table 5.5; ALCN's Table 5 for the last two."""


def trained(name: str, steps: int, config: ModelConfig = TINY) -> Method:
    model = METHODS[name](config, steps, 0, "cpu")
    while model.done < model.steps:
        model.advance(torch.from_numpy(NORMAL))
    return model


@pytest.mark.parametrize("name", METHODS)
def test_each_tells_standing_bars_from_lying_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it says of an image does not depend on what else it is shown."""
    monkeypatch.setattr(FAnoGAN, "CRITIC_UPDATES", 2)  # for the sake of time
    model = trained(name, STEPS.get(name, 40), replace(TINY, width=1.0) if name == "f_anogan" else TINY)
    scores = model.scores(np.concatenate([LYING, STANDING]))
    assert (image_auroc(scores, np.arange(200) >= 100) or 0) > 0.9
    np.testing.assert_allclose(model.scores(STANDING[:3]), scores[100:103], rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_sizes_are_those_of_the_docstrings_and_near_the_papers(name: str) -> None:
    model = METHODS[name](ModelConfig(), 1, 0, "cpu")
    assert model.parameters() == SIZES[name]
    said = type(model).__doc__ or ""
    assert f"{SIZES[name]:,}".replace(",", " ") in " ".join(said.split())
    if name in NEAR:
        assert 0.75 < SIZES[name] / NEAR[name] < 1.1


@pytest.mark.parametrize("name", METHODS)
def test_half_of_the_steps_and_a_restart_end_with_the_same_bits(
    name: str, same_bits: Callable[..., None]
) -> None:
    """Phases included: the restart of Deep SVDD and f-AnoGAN falls into their first."""
    config = replace(TINY, width=0.1, batch_size=4)
    whole, parts = trained(name, 6, config), METHODS[name](config, 6, 0, "cpu")
    for _ in range(min(2, parts.steps)):
        parts.advance(torch.from_numpy(NORMAL))
    again = METHODS[name](config, 6, 1, "cpu")
    again.load_state_dict(parts.state_dict())
    while again.done < again.steps:
        again.advance(torch.from_numpy(NORMAL))
    same_bits(again.state_dict(), whole.state_dict())


def test_pca_is_the_distance_from_the_space_of_the_largest_singular_vectors() -> None:
    values = NORMAL.reshape(200, -1) / 127.5 - 1
    *_, directions = np.linalg.svd(values - values.mean(axis=0))
    rest = (STANDING.reshape(100, -1) / 127.5 - 1 - values.mean(axis=0)) @ directions[32:].T
    expected = np.square(rest).sum(axis=1) / 256
    np.testing.assert_allclose(trained("pca", 0).scores(STANDING), expected, rtol=2e-2)  # its SVD is random


def test_an_image_that_the_vae_reproduces_has_no_error_whatever_its_greys() -> None:
    model = METHODS["vae"](TINY, 1, 0, "cpu")
    assert isinstance(model, VAE)
    images = model.scale(torch.from_numpy(NORMAL[:4]))
    model.decoder.forward = lambda latent: latent  # type: ignore[method-assign]
    exact = torch.logit((images + 1) / 2)
    torch.testing.assert_close(model._error(images, exact), torch.zeros(4), rtol=0, atol=1e-3)
    assert bool((model._error(images, exact + 0.1) > 0.1).all())


def test_deep_svdd_takes_its_centre_from_all_images_when_half_of_the_steps_are_done() -> None:
    model = METHODS["deep_svdd"](TINY, 4, 0, "cpu")
    assert isinstance(model, DeepSVDD)
    for _ in range(2):
        model.advance(torch.from_numpy(NORMAL))
    model.encoder.eval()
    mean = model.encoder(model.scale(torch.from_numpy(NORMAL))).mean(dim=0).detach()
    assert not model.encoder.centre.any()
    model.advance(torch.from_numpy(NORMAL))
    far = mean.abs() > DeepSVDD.NEAREST
    torch.testing.assert_close(model.encoder.centre[far], mean[far], rtol=1e-4, atol=1e-5)
    assert (model.encoder.centre[~far].abs() == torch.tensor(DeepSVDD.NEAREST)).all()


def test_arae_attacks_within_the_cube_and_moves_the_code_farther_than_chance() -> None:
    model = METHODS["arae"](TINY, 1, 0, "cpu")
    assert isinstance(model, ARAE)
    images = model.scale(torch.from_numpy(NORMAL[:32]))
    attacked = model.attack(images)
    by_chance = (images + ARAE.RADIUS * model.uniform(*images.shape).sign()).clamp(-1, 1)
    assert float((attacked - images).abs().max()) <= ARAE.RADIUS + 1e-6
    assert float(attacked.abs().max()) <= 1
    with torch.no_grad():
        moves = [float((model.encoder(x) - model.encoder(images)).norm()) for x in (attacked, by_chance)]
    assert moves[0] > 2 * moves[1]


def test_ocgan_mines_where_the_classifier_sees_a_fake() -> None:
    model = METHODS["ocgan"](TINY, 1, 0, "cpu")
    assert isinstance(model, OCGAN)
    drawn = model.uniform(32, 128)
    before, after = (model.classifier(model.decoder(z)) for z in (drawn, model._mine(drawn)))
    assert bool((after < before).all())


def test_oled_hides_an_eighth_of_every_image_and_its_mask_can_learn() -> None:
    mask = MaskModule(16, 1, 4)
    hidden = mask(torch.from_numpy(NORMAL[:5] / 127.5 - 1).float())
    assert hidden.shape == (5, 1, 16, 16)
    torch.testing.assert_close(hidden.mean(dim=(1, 2, 3)), torch.full((5,), MaskModule.HIDDEN))
    hidden[:, :, :8].sum().backward()
    assert all(bool(p.grad.any()) for p in mask.parameters() if p.grad is not None and p.dim() > 1)


def test_f_anogan_leaves_the_gan_alone_once_its_time_is_over() -> None:
    model = METHODS["f_anogan"](replace(TINY, batch_size=4), 3, 0, "cpu")
    assert isinstance(model, FAnoGAN)
    steps = [moved(model, lambda: model.advance(torch.from_numpy(NORMAL))) for _ in range(3)]
    assert steps == [{"generator", "critic"}] * 2 + [{"encoder"}]


def test_wheels_score_each_anomaly_by_itself() -> None:
    (task,) = class_tasks("wheel", None, 16, 1, 1, 0).values()
    train, test, truths = task.draw(0, 0, np.random.default_rng(0))
    names = np.array(task.data.names)[task.data.labels]
    assert not {"spoke", "hub"} & set(names[train])
    for name, other in (("spoke", "hub"), ("hub", "spoke")):
        np.testing.assert_array_equal(truths[name] == 1, names[test] == name)
        np.testing.assert_array_equal(truths[name] == -1, names[test] == other)
    few, some, truths = task.draw(0, 7, np.random.default_rng(0))
    np.testing.assert_array_equal(few, train)
    assert set(some) < set(test)
    for truth in truths.values():
        np.testing.assert_array_equal(np.unique(truth, return_counts=True), [[-1, 0, 1], [7, 7, 7]])


def test_a_kind_without_test_images_is_named() -> None:
    images = np.zeros((4, 1, 16, 16), np.uint8)
    task = Task(ClassDataset(images, np.array([0, 0, 1, 1]), ("good", "bad")), ("bad",), 0.9)
    with pytest.raises(RunError, match="no normal image is left to test on"):
        task.draw(0, 0, np.random.default_rng(0))


def test_published_figures_have_the_means_that_the_papers_print() -> None:
    """Within two hundredths: some of the printed means are not those of the printed rows."""
    printed = {
        ("thesis", "mnist", 1): {
            "vae": 0.85,
            "egbad": 0.67,
            "ganomaly": 0.66,
            "f_anogan": 0.60,
            "ocgan": 0.75,
        },
        ("thesis", "fashion_mnist", 1): {"ganomaly": 0.70},
        ("thesis", "wheel", 0): {"ocgan": 0.91},
        ("ALCN's paper", "mnist", 1): {"vae": 0.34, "egbad": 0.50, "ganomaly": 0.79},
        ("ALCN's paper", "cifar10", 1): {"ganomaly": 0.61},
        ("ALCN's paper", "mvtec", 0): {"ganomaly": 0.76, "skip_ganomaly": 0.80},
    }
    for key, means in printed.items():
        for method, mean in means.items():
            assert np.mean(PAPERS[key][method]) == pytest.approx(mean, abs=0.02)
    assert paper_rows("mnist", 2, "vae", ["0"], True) == paper_rows("folder", 1, "vae", ["0"], True) == []


@pytest.mark.parametrize(
    ("dataset", "protocol", "method", "auc", "row"),
    [
        ("mnist", 1, "vae", {"9": 0.5, "0": 0.75}, "| vae, thesis | 0.62 | 0.96 | 0.79 |  |  |  |"),
        ("mnist", 1, "vae", {"9": 0.5, "0": 0.75}, "| vae, ALCN's paper | 0.10 | 0.55 | 0.33 |  |  |  |"),
        ("mnist", 2, "oled", {"0": 0.5, "1": 0.75}, "| oled, ALCN's paper | - | - | 0.985 |  |  |  |"),
        ("wheel", 1, "ocgan", {"spoke": 0.5, "hub": 0.75}, "| ocgan, thesis | 0.84 | 0.98 | 0.91 |  |  |  |"),
    ],
)
def test_the_papers_figures_stand_below_ours(
    dataset: str, protocol: int, method: str, auc: dict[str, float], row: str
) -> None:
    args = command.Args(dataset=dataset, protocol=protocol, classes="all")  # type: ignore[arg-type]
    one = {"auc": auc, "parameters": 1234, "steps": 5, "minutes": 1.5}
    lines = command.table(args, {method: {"model": one}}).splitlines()
    ours = " | ".join([method, *(f"{value:.3f}" for value in auc.values()), "0.625", "1,234", "5", "1.5"])
    assert lines[2] == f"| {ours} |"
    assert row in lines[3:]
